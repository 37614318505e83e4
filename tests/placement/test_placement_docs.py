"""What the pages of placement and of alerts say is done as written, with real processes."""

from __future__ import annotations

import pytest
from tests.integration.test_docs import DOCS, Reader, reader

__all__ = ["reader"]  # a fixture

pytestmark = pytest.mark.timeout(150)


async def test_the_page_of_placement_works_as_written(reader: Reader) -> None:
    reader.environment["XDG_STATE_HOME"] = str(reader.folder / "state")
    await reader.follow(DOCS / "how-to" / "placement.md")


async def test_the_page_of_alerts_works_as_written(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "alerts.md")
