"""Deliberations over the end of real processes: a killed orchestrator goes on where it was, with the same winner."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.anywire_processes import Process, until_agents
from tests.long_form import SOAK
from tests.patience import PATIENCE

from anywire_service_deliberation.database import Database
from anywire_service_deliberation.record import Deliberation

KILLS = 50 if SOAK else 2

pytestmark = pytest.mark.timeout(2000 if SOAK else 300)


@pytest.fixture
async def start(tmp_path: Path, options_of: Callable[[str], dict[str, Any]]) -> AsyncIterator[Callable[..., Any]]:
    settings = {
        "transports": {"zeromq": options_of("zeromq")},
        "server": {"port": 0},
        "services": {"deliberation": {"folder": str(tmp_path / "kept")}},
        "engine": {"name": "synthetic", "ttft": 60, "length": 5, "features": {"json": True}},
        "lease": {"timeout": 0.5, "heartbeat_interval": 0.1},
        "shutdown_grace": 0.1,
    }
    file = tmp_path / "anywire.yaml"
    file.write_text(json.dumps(settings))
    running: list[Process] = []

    async def begin(*arguments: str) -> Process:
        running.append(await Process.start(*arguments, "--config", str(file)))
        return running[-1]

    yield begin
    for process in running:
        await process.end(signal.SIGKILL)


def client_of(server: Process) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, timeout=PATIENCE)


async def submitted(client: httpx.AsyncClient, question_id: str, tenant: str, wait: int = 0) -> dict[str, Any]:
    """The deliberation of this id, begun if it is a new one, and ended if ``wait`` is long enough."""
    body = {"id": question_id, "task": f"Task {question_id}", "members": 3, "rubric": "answer", "timeout": 120}
    headers = {"x-anywire-tenant": tenant, "Prefer": f"wait={wait}"}
    answer = await client.post("/v1/deliberations", json=body, headers=headers)
    assert answer.status_code in (200, 202), answer.text
    told: dict[str, Any] = answer.json()
    return told


async def ended(client: httpx.AsyncClient, question_id: str, tenant: str) -> dict[str, Any]:
    while (told := await submitted(client, question_id, tenant, wait=30))["status"] not in ("completed", "degraded"):
        assert told["status"] in ("submitted", "generating", "critiquing", "revising", "scoring"), told
    return told


async def answered(client: httpx.AsyncClient, question_id: str, tenant: str, count: int) -> set[str]:
    """The first works that were answered, as the events tell it."""
    works: set[str] = set()
    path, headers = f"/v1/deliberations/{question_id}/events", {"x-anywire-tenant": tenant}
    async with client.stream("GET", path, headers=headers) as events:
        async for line in events.aiter_lines():
            told = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if isinstance(told, dict) and "seconds" in told:
                works.add(told["work"])
            if len(works) >= count:
                break
    return works


async def test_who_is_killed_changes_nothing(start: Any, tmp_path: Path) -> None:
    """The orchestrator at a moment of each deliberation, and at last one of its agents before it."""
    drawn = random.Random(3)
    await start("agent", "--agent-id", "a1", "--slots", "8")
    other = await start("agent", "--agent-id", "a2", "--slots", "8")
    server = await start("serve")
    kept: list[tuple[str, set[str]]] = []
    async with client_of(server) as client:
        await until_agents(client, "a1", "a2")
        for number in range(KILLS):
            await ended(client, f"q-{number}", "calm")
    for number in range(KILLS):
        async with client_of(server) as client:
            await until_agents(client, "a1", "a2")
            await submitted(client, f"q-{number}", "storm")
            before = await answered(client, f"q-{number}", "storm", drawn.randrange(16))
            if number == KILLS - 1:
                await other.end(signal.SIGKILL)
                before |= await answered(client, f"q-{number}", "storm", len(before) + 2)
            kept.append((f"q-{number}", before))
        await server.end(signal.SIGKILL)
        server = await start("serve")
        async with client_of(server) as client:
            await ended(client, f"q-{number}", "storm")
    await server.end(signal.SIGKILL)
    database = Database(tmp_path / "kept")
    assert await database.open()
    try:
        for question_id, before in kept:
            calm, storm = await database.get("calm", question_id), await database.get("storm", question_id)
            assert calm is not None
            assert storm is not None
            compare(calm, storm, before)
    finally:
        await database.close()


def compare(calm: Deliberation, storm: Deliberation, before: set[str]) -> None:
    assert (storm.status, storm.winner) == (calm.status, calm.winner) == ("completed", calm.winner)
    assert not storm.retried
    assert not storm.failures
    assert before <= storm.answers.keys()
    for work in calm.answers.keys() & storm.answers.keys():
        assert storm.answers[work].text == calm.answers[work].text
