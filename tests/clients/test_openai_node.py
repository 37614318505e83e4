"""The package `openai` of Node.js asks the gateway, with a key."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.clients.asked_client import found_by
from tests.integration.gateway_serving import ScriptedEngine, serving
from tests.patience import PATIENCE

from anywire.engine import Delta
from anywire.errors import EngineFailed
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from anywire.messages import TaskRequest
from anywire.offers import offers

HERE = Path(__file__).parent
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
    body = json.loads(task.body)
    if task.kind == "embedding":
        entries = [
            {"object": "embedding", "index": at, "embedding": [0.5, -0.25, at]} for at, _ in enumerate(body["input"])
        ]
        yield Delta(extra=json.dumps(entries), finish_reason="stop", usage=json.dumps(USAGE))
    elif task.model == "calls" and body["messages"][-1]["role"] != "tool":
        call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":'}}
        for calls in ([call], [{"index": 0, "function": {"arguments": "7}"}}]):
            choice = {"index": 0, "delta": {"tool_calls": calls}, "finish_reason": None}
            yield Delta(extra=json.dumps([choice]))
        yield Delta(finish_reason="tool_calls")
    elif task.model == "numbers":
        assert body["response_format"]["json_schema"]["schema"]["properties"] == {"number": {"type": "number"}}
        yield Delta('{"number": 7}', finish_reason="stop")
    elif task.model == "endless":
        while True:
            yield Delta("on ")
            await asyncio.sleep(0)
    elif task.model == "breaks":
        yield Delta("so far")
        for _ in range(1000):  # turns of the loop: what was said is on its way then, and the error comes after it
            await asyncio.sleep(0)
        raise EngineFailed("it broke")
    else:
        yield Delta("a ")
        yield Delta("cat")
        yield Delta(finish_reason="stop", usage=json.dumps(USAGE))


@pytest.mark.skipif(shutil.which("node") is None, reason="missing: node")
@pytest.mark.skipif(not (HERE / "node_modules" / "openai").is_dir(), reason="missing: the package openai of npm")
async def test_everything_a_user_of_it_asks_for(tmp_path: Path) -> None:
    key, path = new_key(), tmp_path / "keys.json"
    add_key(path, record_of(key, tenant="lab"))
    engine = ScriptedEngine(script, offers("said", "calls", "numbers", "endless", "breaks"))
    async with serving(engine, access=KeyAccess(path)) as served:
        found = await found_by("node", str(HERE / "openai_node.mjs"), served.url, str(key))
        await asyncio.wait_for(engine.cancelled.wait(), PATIENCE)
    assert found["chat"] == {"text": "a cat", "reason": "stop", "usage": USAGE}
    assert found["stream"] == {"text": "a cat", "chunks": found["stream"]["chunks"], "usage": USAGE}
    assert found["stream"]["chunks"] >= 3
    assert found["helper"] == "a cat"
    assert found["tools"] == {"name": "look", "arguments": '{"at":7}'}
    assert (found["after"], found["response"], found["structured"]) == ("a cat", "a cat", {"number": 7})
    assert found["aborted"] >= 3
    assert found["embeddings"] == [[0.5, -0.25, 0], [0.5, -0.25, 1]]
    assert found["completion"] == "a cat"
    assert sorted(found["models"]) == ["breaks", "calls", "endless", "numbers", "said"]
    assert found["model"] == "said"
    assert found["unknown_model"] == {
        "type": "NotFoundError", "status": 404, "code": "model_not_found", "param": "model",
    }  # fmt: skip
    assert (found["bad_request"]["type"], found["bad_request"]["param"]) == ("BadRequestError", "messages")
    assert (found["wrong_key"]["type"], found["wrong_key"]["code"]) == ("AuthenticationError", "invalid_api_key")
    assert found["forbidden"]["type"] == "PermissionDeniedError"
    assert found["breaks"]["type"] == "APIError"
