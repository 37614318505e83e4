"""Anthropic's clients ask the gateway: its package of Python, and that of Node.js with a key."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from tests.clients.asked_client import found_by
from tests.clients.known_engine import WORDS, known_engine
from tests.integration.gateway_serving import serving
from tests.patience import PATIENCE

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key

HERE = Path(__file__).parent
PYTHON = HERE / ".venv" / "bin" / "python"


@pytest.mark.skipif(not PYTHON.exists(), reason="missing: the environment of the clients (tests/clients/install.sh)")
async def test_everything_a_user_of_the_package_of_python_asks_for() -> None:
    engine = known_engine()
    async with serving(engine, timeout=PATIENCE * 3) as served:
        found = await found_by(str(PYTHON), str(HERE / "asking" / "anthropic_client.py"), served.url)
        await asyncio.wait_for(engine.cancelled.wait(), PATIENCE)
    assert found["whole"] == found["streamed"]
    assert len(found["whole"].split()) == WORDS
    assert found["reasons"] == ["end_turn", "end_turn", "tool_use", "end_turn"]
    assert len(found["cities"]) == 1, "the tool was called once"
    assert len(found["after"].split()) == WORDS, "and the answer came after it"
    assert isinstance(found["structured"][0], int)
    assert found["tokens"] > 0
    assert found["models"] == ["endless", "synthetic"]
    assert found["failed"] == {"type": "NotFoundError", "status": 404}
    assert found["pieces"] == 3


@pytest.mark.skipif(shutil.which("node") is None, reason="missing: node")
@pytest.mark.skipif(
    not (HERE / "node_modules" / "@anthropic-ai" / "sdk").is_dir(), reason="missing: the package @anthropic-ai/sdk"
)
async def test_everything_a_user_of_the_package_of_node_asks_for(tmp_path: Path) -> None:
    key, path = new_key(), tmp_path / "keys.json"
    add_key(path, record_of(key, tenant="lab"))
    async with serving(SyntheticEngine(SyntheticConfig(length=5)), access=KeyAccess(path)) as served:
        found = await found_by("node", str(HERE / "anthropic_node.mjs"), served.url, str(key))
    assert found["whole"] == found["streamed"]
    assert (found["whole"]["reason"], found["whole"]["made"]) == ("end_turn", 5)
    assert found["pieces"] >= 1
    assert found["tools"] == ["tool_use", "look", "number", "end_turn"]
    assert found["tokens"] > 0
    assert found["unknown_model"] == {"type": "NotFoundError", "status": 404, "kind": "not_found_error"}
    assert found["bad_request"] == {"type": "BadRequestError", "status": 400, "kind": "invalid_request_error"}
    assert found["wrong_key"] == {"type": "AuthenticationError", "status": 401, "kind": "authentication_error"}
    assert found["aborted"]["type"] == "APIUserAbortError"
