"""docs/how-to/test-a-transport.md shows code of this folder, and commands and names that exist."""

import asyncio
import re
from pathlib import Path

import pytest
from tests.conformance.broker_process import Broker

from anywire.testing.patience import Breaches
from anywire.testing.rig import Rig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/test-a-transport.md").read_text()


def test_what_the_page_shows_is_the_code_of_these_tests() -> None:
    # A reader of the page has his own type checker.
    sources = [re.sub(r"  # type: ignore\S*", "", path.read_text()) for path in Path(__file__).parent.glob("*.py")]
    shown = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(shown) == 3
    for text in shown:
        assert any(text in source for source in sources), text


async def test_the_broker_of_the_page_stops_and_runs_again() -> None:
    async with Broker() as broker:
        for _ in range(2):
            _, writer = await asyncio.open_connection("127.0.0.1", broker.port)
            writer.close()
            await broker.cut()
        await broker.stop()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", broker.port)


def test_what_the_page_names_is_there() -> None:
    for name in re.findall(r"`rig\.(\w+)\(", PAGE):
        assert hasattr(Rig, name), name
    assert hasattr(Breaches, "allow")
    for path in re.findall(r"\b(?:tests|core)/[\w./]*\w", PAGE):
        assert path == "tests/my_transport.py" or (ROOT / path).exists(), path
