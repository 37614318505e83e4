"""``anywire up --on-demand``: real agents that come for a deliberation and go when they are idle."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.integration.anywire_processes import Process, until_agents
from tests.patience import FACTOR, PATIENCE

from anywire_service_deliberation.client import DeliberationClient

pytestmark = pytest.mark.timeout(150)

ANSWER_MS = 1000.0 * FACTOR
"""What an agent's answer takes: longer than it takes until one more is started."""


@pytest.fixture
async def server(tmp_path: Path, options_of: Callable[[str], dict[str, Any]]) -> AsyncIterator[Process]:
    settings = {
        "transports": {"zeromq": options_of("zeromq")},
        "server": {"port": 0},
        "services": {"deliberation": {"folder": str(tmp_path / "kept")}},
        "engine": {"name": "synthetic", "ttft": ANSWER_MS, "length": 3, "features": {"json": True}},
        "agent": {"id": "a"},
        "lease": {"timeout": 3 * FACTOR, "heartbeat_interval": 0.1},
        "on_demand": {"after": 0.3, "idle": 8 * FACTOR},
        "shutdown_grace": 0.5,
    }
    file = tmp_path / "anywire.yaml"
    file.write_text(json.dumps(settings))
    process = await Process.start("up", "--config", str(file), "--agents", "1", "--on-demand", "3")
    yield process
    family = psutil.Process(process.process.pid).children(recursive=True)
    await process.end(signal.SIGTERM)
    assert not psutil.wait_procs(family, PATIENCE)[1], "nothing is left behind"


async def test_a_deliberation_of_four_has_four_agents_of_which_one_stays(server: Process) -> None:
    wanted = {"types": "agent.on_demand,agent.joined"}
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
        await until_agents(http, "a-1")
        async with http.stream("GET", "/v1/events", params=wanted) as events:
            told = asyncio.create_task(what_is_told(events))
            client = DeliberationClient(http=http, patience=PATIENCE)
            await client.submit("How many agents?", id="q", members=4, rounds=0, rubric="answer")
            found = await client.wait("q")
            assert found.status == "completed", found
            states, pids = await asyncio.wait_for(told, PATIENCE)
        assert states == {f"a-{number}": ["starting", "ready", "leaving", "ended"] for number in range(2, 5)}
        assert pids.keys() == states.keys()
        assert not [name for name, pid in pids.items() if psutil.pid_exists(pid)]
        await until_agents(http, "a-1")
        metrics = (await http.get("/metrics")).text
        for line in ("agents 0.0", "most_agents 3.0", "started_total 3.0", "ended_total 3.0", "failed_total 0.0"):
            assert f"anywire_on_demand_{line}" in metrics.splitlines(), metrics


async def what_is_told(events: httpx.Response) -> tuple[dict[str, list[str]], dict[str, int]]:
    """The states of each agent on demand, and the process of each that joins, until three have ended."""
    states: dict[str, list[str]] = {}
    pids: dict[str, int] = {}
    async for line in events.aiter_lines():
        if not line.startswith("data: {"):
            continue
        event = json.loads(line.removeprefix("data: "))
        if event["type"] == "agent.joined":
            pids[event["agent_id"]] = event["info"]["pid"]
            continue
        states.setdefault(event["agent_id"], []).append(event["state"])
        if sum("ended" in each for each in states.values()) == 3:
            break
    return states, pids
