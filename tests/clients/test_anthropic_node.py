"""The package `@anthropic-ai/sdk` of Node.js asks the gateway, with a key."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.clients.asked_client import found_by
from tests.integration.gateway_serving import serving

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key

HERE = Path(__file__).parent


@pytest.mark.skipif(shutil.which("node") is None, reason="missing: node")
@pytest.mark.skipif(
    not (HERE / "node_modules" / "@anthropic-ai" / "sdk").is_dir(), reason="missing: the package @anthropic-ai/sdk"
)
async def test_everything_a_user_of_it_asks_for(tmp_path: Path) -> None:
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
