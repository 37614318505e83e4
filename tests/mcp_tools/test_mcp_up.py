"""MCP servers under ``anywire up``, over DDS and over HTTP: chats, routes, the command line, and a killed agent."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from tests.integration.anywire_processes import Process, start
from tests.integration.finished_commands import commands, commands_end
from tests.mcp_tools.servers import HERE
from tests.patience import PATIENCE

from anywire.testing.patience import polled

__all__ = ["commands_end", "start"]

TOOLS: Any = [{"type": "mcp", "server_label": "measures"}]
OTHER: Any = [{"type": "mcp", "server_label": "other"}]
MESSAGES: Any = [{"role": "user", "content": "Use temperature"}]


def arguments(transport: str, options: dict[str, Any], folder: Path) -> list[str]:
    """Two agents with the SDK's own server and a plain one; the engine ``synthetic`` calls the tool that a user
    names."""
    servers = {
        "measures": {"command": [sys.executable, str(HERE / "sdk_server.py")], "start_timeout": 120},
        "plain": {"command": [sys.executable, "-I", "-S", str(HERE / "plain_server.py")], "autostart": False},
    }
    settings = {
        "transports": {transport: options},
        "server": {"port": 0},
        "engine": {"name": "mcp", "inner": {"name": "synthetic"}, "servers": servers},
        "services": {"mcp": {}},
    }
    path = folder / "anywire.yaml"
    path.write_text(json.dumps(settings))
    return ["up", "--agents", "2", "--config", str(path)]


class Commands:
    """``anywire mcp`` of one fleet."""

    def __init__(self, fleet: Process) -> None:
        self._url = fleet.url

    async def __call__(self, *words: str, status: int = 0) -> str:
        """What a command prints, on standard error where it is to fail."""
        environment = os.environ | {"COLUMNS": "300", "NO_COLOR": "1"}
        done = await asyncio.to_thread(commands.finished, ["mcp", *words, "--url", self._url], environment)
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout if status == 0 else done.stderr


@pytest.mark.parametrize("transport", ["dds", "http"])
async def test_chats_call_tools_of_the_agents(start: Any, transport: str, tmp_path: Path, options_of: Any) -> None:
    fleet = await start(*arguments(transport, options_of(transport), tmp_path))
    mcp = Commands(fleet)
    assert (await mcp("start", "measures")).count(" is running with 4 tools") == 2
    async with openai.AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key="-", timeout=PATIENCE, max_retries=0) as client:
        asked: Any = {"model": "synthetic", "messages": MESSAGES, "max_tokens": 20}
        whole = await client.chat.completions.create(**asked, tools=TOOLS)
        assert whole.choices[0].message.content
        assert not whole.choices[0].message.tool_calls
        stream = await client.chat.completions.create(**asked, tools=TOOLS, stream=True)
        text = "".join([each.choices[0].delta.content or "" async for each in stream if each.choices])
        assert text == whole.choices[0].message.content
        with pytest.raises(openai.BadRequestError, match="has an MCP server 'other'; there are: "):
            await client.chat.completions.create(**asked, tools=OTHER)
    async with httpx.AsyncClient(base_url=fleet.url, timeout=PATIENCE) as http:
        measures = (await http.get("/v1/mcp/measures")).json()
        assert (measures["agents_running"], measures["agents_total"]) == (2, 2)
        models = (await http.get("/v1/models")).json()["data"]
        assert models[0]["features"]["mcp:measures"] is True
        assert (await http.post("/v1/mcp/other/start")).status_code == 404
        if transport == "dds":
            await the_command_line(mcp)
        else:
            await nothing_is_left_of_a_killed_agent(http)


async def the_command_line(mcp: Commands) -> None:
    listed = json.loads(await mcp("list", "--json"))
    assert [[each["server"] for each in told["servers"]] for told in listed.values()] == [["measures", "plain"]] * 2
    assert "stopped" in await mcp("list")
    agent = next(iter(listed))
    assert "temperature" in await mcp("tools", "measures", "--agent", agent)
    assert await mcp("call", "measures", "temperature", '{"room": "lab"}') == "lab: 21.5 degrees\n"
    assert "the sensor is broken" in await mcp("call", "measures", "broken", status=1)
    assert "an MCP server 'meassures'; there are: measures, plain" in await mcp("start", "meassures", status=1)
    assert "must be a JSON object" in await mcp("call", "measures", "temperature", "[1]", status=1)
    assert await mcp("call", "plain", "echo", '{"text": "x"}', "--agent", agent) == "x\n"
    assert await mcp("logs", "plain", "--agent", agent) == "ready to listen\n"
    assert "plain at" in await mcp("stop", "plain")


async def nothing_is_left_of_a_killed_agent(http: httpx.AsyncClient) -> None:
    agents = (await http.get("/v1/agents")).json()["data"]
    killed = psutil.Process(agents[0]["pid"])
    orphans = killed.children(recursive=True)
    assert any("sdk_server.py" in " ".join(each.cmdline()) for each in orphans)
    killed.kill()
    await polled(lambda: not any(each.is_running() for each in orphans), "its servers are gone", PATIENCE)
