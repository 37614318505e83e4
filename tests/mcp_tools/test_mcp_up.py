"""MCP servers under ``anywire up``, over DDS and over HTTP: chats, routes, the command line, and a killed agent."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from tests.integration.anywire_processes import Process, start
from tests.mcp_tools.servers import HERE
from tests.patience import PATIENCE

from anywire.testing.patience import polled

__all__ = ["start"]

TOOLS: Any = [{"type": "mcp", "server_label": "measures"}]
MESSAGES: Any = [{"role": "user", "content": "Use temperature"}]


@pytest.fixture(params=["dds", "http"])
def arguments(request: pytest.FixtureRequest, tmp_path: Path, options_of: Any) -> list[str]:
    servers = {
        "measures": {"command": [sys.executable, str(HERE / "sdk_server.py")], "start_timeout": 120},
        "plain": {"command": [sys.executable, "-I", "-S", str(HERE / "plain_server.py")], "autostart": False},
    }
    settings = {
        "transports": {request.param: options_of(request.param)},
        "server": {"port": 0},
        "engine": {"name": "mcp", "inner": {"name": "synthetic"}, "servers": servers},
        "services": {"mcp": {}},
    }
    path = tmp_path / "anywire.yaml"
    path.write_text(json.dumps(settings))
    return ["up", "--agents", "2", "--config", str(path)]


@pytest.fixture
async def fleet(start: Callable[..., Any], arguments: list[str]) -> Process:
    started: Process = await start(*arguments)
    return started


async def command(*words: str, status: int = 0) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", "mcp", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"COLUMNS": "300", "NO_COLOR": "1"},
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == status, (words, out.decode(), err.decode())
    return (out if status == 0 else err).decode()


async def test_chats_call_tools_and_servers_are_seen_and_steered(fleet: Process) -> None:
    url = ("--url", fleet.url)
    assert (await command("start", "measures", *url)).count(" is running with 4 tools") == 2
    async with openai.AsyncOpenAI(
        base_url=f"{fleet.url}/v1", api_key="none", timeout=PATIENCE, max_retries=0
    ) as client:
        whole = await client.chat.completions.create(model="synthetic", messages=MESSAGES, tools=TOOLS, max_tokens=20)
        assert whole.choices[0].message.content
        assert not whole.choices[0].message.tool_calls
        assert whole.usage is not None
        stream = await client.chat.completions.create(
            model="synthetic", messages=MESSAGES, tools=TOOLS, max_tokens=20, stream=True
        )
        text = "".join([each.choices[0].delta.content or "" async for each in stream if each.choices])
        assert text == whole.choices[0].message.content
        with pytest.raises(openai.BadRequestError, match="mcp:other"):
            await client.chat.completions.create(
                model="synthetic",
                messages=MESSAGES,
                tools=[{"type": "mcp", "server_label": "other"}],  # type: ignore[list-item]
            )
    async with httpx.AsyncClient(base_url=fleet.url, timeout=PATIENCE) as http:
        measures = (await http.get("/v1/mcp/measures")).json()
        assert (measures["agents_running"], measures["agents_total"]) == (2, 2)
        models = (await http.get("/v1/models")).json()["data"]
        assert models[0]["features"]["mcp:measures"] is True
        assert (await http.post("/v1/mcp/other/start")).status_code == 404
    listed = json.loads(await command("list", "--json", *url))
    assert [[each["server"] for each in told["servers"]] for told in listed.values()] == [["measures", "plain"]] * 2
    assert "stopped" in await command("list", *url)
    agent = next(iter(listed))
    assert "temperature" in await command("tools", "measures", "--agent", agent, *url)
    assert await command("call", "measures", "temperature", '{"room": "lab"}', *url) == "lab: 21.5 degrees\n"
    assert "the sensor is broken" in await command("call", "measures", "broken", *url, status=1)
    assert "no MCP server 'meassures'" in await command("start", "meassures", *url, status=1)
    assert "must be a JSON object" in await command("call", "measures", "temperature", "[1]", *url, status=1)
    await command("call", "plain", "echo", '{"text": "x"}', "--agent", agent, *url)
    assert await command("logs", "plain", "--agent", agent, *url) == "ready to listen\n"


async def test_nothing_of_a_server_is_left_when_its_agent_is_killed(fleet: Process) -> None:
    await command("start", "measures", "--url", fleet.url)
    family = psutil.Process(fleet.process.pid).children(recursive=True)
    servers = [
        each for each in family if "sdk_server.py" in " ".join(each.cmdline()) and "guardian" not in str(each.cmdline())
    ]
    assert len(servers) == 2
    async with httpx.AsyncClient(base_url=fleet.url, timeout=PATIENCE) as http:
        agents = [each["pid"] for each in (await http.get("/v1/agents")).json()["data"]]
    killed = psutil.Process(agents[0])
    orphans = killed.children(recursive=True)
    killed.kill()
    await polled(lambda: not any(each.is_running() for each in orphans), "its servers are gone", PATIENCE)
