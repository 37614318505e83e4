"""Deliberations asked over the client plane of real processes: the orchestrator is killed in the middle."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.anywire_processes import Process, until_agents
from tests.patience import PATIENCE

from anywire import Client
from anywire.deliberation_views import Whole
from anywire.roles.client import ClientConfig
from anywire.testing.patience import expect

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def settings(tmp_path: Path, options_of: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return {
        "transports": {"zeromq": options_of("zeromq")},
        "server": {"port": 0},
        "services": {"deliberation": {"folder": str(tmp_path / "kept")}},
        "engine": {"name": "synthetic", "ttft": 150, "length": 5, "features": {"json": True}},
        "lease": {"timeout": 0.5, "heartbeat_interval": 0.1},
        "shutdown_grace": 0.1,
    }


@pytest.fixture
async def start(tmp_path: Path, settings: dict[str, Any]) -> AsyncIterator[Callable[..., Any]]:
    file = tmp_path / "anywire.yaml"
    file.write_text(json.dumps(settings))
    running: list[Process] = []

    async def begin(*arguments: str) -> Process:
        running.append(await Process.start(*arguments, "--config", str(file)))
        return running[-1]

    yield begin
    for process in running:
        await process.end(signal.SIGKILL)


async def test_a_killed_orchestrator_is_waited_for_and_each_update_is_told_once(
    start: Any, settings: dict[str, Any]
) -> None:
    await start("agent", "--agent-id", "a1", "--slots", "8")
    server = await start("serve")
    async with httpx.AsyncClient(base_url=server.url) as http:
        await until_agents(http, "a1")
    numbers: list[int] = []
    answered: set[str] = set()
    options = settings["transports"]["zeromq"]
    async with Client("zeromq", config=ClientConfig(agent_wait=PATIENCE), key="", **options) as client:

        async def follow(killer: Callable[[], Any]) -> Whole:
            asked: dict[str, Any] = {"id": "q-1", "members": 3, "rubric": "answer", "timeout": 100}
            async with client.deliberate("Reverse a list.", **asked) as deliberation:
                async for update in deliberation:
                    numbers.append(update.number)
                    if update.name == "answered":
                        answered.add(update.data["work"])
                        if len(answered) == 4:
                            await killer()
                return await deliberation.result()

        async def kill() -> None:
            nonlocal server
            await server.end(signal.SIGKILL)
            server = await start("serve")

        result = await expect(follow(kill), "the result", 3 * PATIENCE)
        assert result.id == "q-1"
        assert result.status == "completed"
        assert not result.retried
        assert numbers == list(range(1, len(numbers) + 1))
        assert answered == _works(result)
        async with httpx.AsyncClient(base_url=server.url) as http:
            told = (await http.get("/v1/deliberations/q-1")).json()
        assert (told["winner"], told["answer"]) == (result.winner, result.answer)
        leaving = asyncio.ensure_future(_left(client))
        await expect(leaving, "it is left")
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
            told = (await http.get("/v1/deliberations/q-2", headers={"Prefer": "wait=30"})).json()
        assert told["status"] == "cancelled"


async def _left(client: Client) -> None:
    async with client.deliberate("Sort a list.", id="q-2", members=3) as deliberation:
        async for update in deliberation:
            if update.name == "answered":
                return


def _works(result: Whole) -> set[str]:
    """The names of all works that were answered in time."""
    works = {f"{'revision' if each.round else 'proposal'}/{each.round}/{proposal.member}"
             for proposal in result.proposals for each in proposal.versions}  # fmt: skip
    works |= {f"critique/{each.round}/{each.member}/{each.about}" for each in result.critiques}
    return works | {f"score/0/{each.member}/{each.about}" for each in result.scores}
