"""Clients that speak the Responses API by themselves: the Vercel AI SDK, and OpenAI's Agents SDK."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.clients.asked_client import found_by
from tests.patience import PATIENCE
from tests.responses.conversing import conversing

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine

HERE = Path(__file__).parent
PYTHON = HERE / ".venv" / "bin" / "python"


async def found_in(folder: Path, *command: str) -> Any:
    """What the client prints that asks a gateway with an engine whose answers are known."""
    engine = SyntheticEngine(SyntheticConfig(length=5))
    async with conversing(folder, engine, timeout=PATIENCE) as at:
        return await found_by(*command, at.served.url)


@pytest.mark.skipif(shutil.which("node") is None, reason="missing: node")
@pytest.mark.skipif(not (HERE / "node_modules" / "ai").is_dir(), reason="missing: the package ai of npm")
async def test_the_vercel_ai_sdk(tmp_path: Path) -> None:
    found = await found_in(tmp_path, "node", str(HERE / "ai_sdk.mjs"))
    assert found["whole"] == found["streamed"]
    assert len(found["whole"].split()) == 5
    assert found["tokens"] == [6, 6]
    assert (found["reason"], found["warnings"]) == ("stop", 0)
    assert found["steps"] == [2, 2], "a call, and the answer after it"
    assert len(found["told"]) == 2
    assert found["told"][0] == found["told"][1]
    assert found["texts"][0] == found["texts"][1] != found["whole"]
    assert isinstance(found["structured"]["number"], int | float)


@pytest.mark.skipif(not PYTHON.exists(), reason="missing: the package openai-agents")
async def test_openais_agents_sdk(tmp_path: Path) -> None:
    found = await found_in(tmp_path, str(PYTHON), str(HERE / "openai_agents.py"))
    assert found["called"] == ["ToolCallItem", "ToolCallOutputItem", "MessageOutputItem"]
    assert found["inputs"] == sorted(found["inputs"])
    assert found["session"] == ["message", "message", "message", "function_call", "function_call_output", "message"]
    assert found["conversation"] == ["message", "function_call", "function_call_output", "message"]
    assert found["events"] > 10
    assert found["texts"][0] == found["texts"][1]
    assert len(found["told"]) == 4
    assert isinstance(found["structured"], int)
