"""Clients that speak the Responses API by themselves: the Vercel AI SDK, and OpenAI's Agents SDK."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from tests.clients.asked_client import found_by
from tests.clients.known_engine import WORDS, known_engine
from tests.patience import PATIENCE
from tests.responses.conversing import conversing

HERE = Path(__file__).parent
PYTHON = HERE / ".venv" / "bin" / "python"


@pytest.mark.skipif(shutil.which("node") is None, reason="missing: node")
@pytest.mark.skipif(not (HERE / "node_modules" / "ai").is_dir(), reason="missing: the package ai of npm")
async def test_the_vercel_ai_sdk(tmp_path: Path) -> None:
    engine = known_engine()
    async with conversing(tmp_path, engine, timeout=PATIENCE * 2) as at:
        told = await found_by("node", str(HERE / "ai_sdk.mjs"), at.served.url)
        await asyncio.wait_for(engine.cancelled.wait(), PATIENCE)
    for found in (told["responses"], told["chats"]):
        assert found["whole"] == found["streamed"]
        assert len(found["whole"].split()) == WORDS
        assert found["tokens"] == [6, 6]
        assert (found["reason"], found["warnings"]) == ("stop", 0)
        assert found["steps"] == [2, 2], "a call, and the answer after it"
        assert len(found["told"]) == 2
        assert found["told"][0] == found["told"][1]
        assert found["texts"][0] == found["texts"][1] != found["whole"]
        assert isinstance(found["structured"]["number"], int | float)
    assert told["embeddings"][0] == told["embeddings"][1] > 1
    assert told["failed"] == {"status": 404, "retryable": False}
    assert told["pieces"] >= 3


@pytest.mark.skipif(not PYTHON.exists(), reason="missing: the package openai-agents")
async def test_openais_agents_sdk(tmp_path: Path) -> None:
    async with conversing(tmp_path, known_engine(), timeout=PATIENCE) as at:
        found = await found_by(str(PYTHON), str(HERE / "asking" / "openai_agents.py"), at.served.url)
    assert found["called"] == ["ToolCallItem", "ToolCallOutputItem", "MessageOutputItem"]
    assert found["inputs"] == sorted(found["inputs"])
    assert found["session"] == ["message", "message", "message", "function_call", "function_call_output", "message"]
    assert found["conversation"] == ["message", "function_call", "function_call_output", "message"]
    assert found["events"] > 10
    assert found["texts"][0] == found["texts"][1]
    assert len(found["told"]) == 4
    assert isinstance(found["structured"], int)
    assert found["failed"] == {"type": "NotFoundError", "status": 404}
