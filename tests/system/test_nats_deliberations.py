"""Deliberations kept in NATS, in processes: the server is killed, and orchestrators take over from each other."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.deliberation.process_fleet import Fleet, any_moment, lasts
from tests.integration.anywire_processes import until_agents
from tests.integration.nats_servers import NatsServer, needs_nats_server
from tests.long_form import SOAK
from tests.patience import PATIENCE
from tests.system.event_stream import events

from anywire_service_deliberation.request import works_of

KILLS = 20 if SOAK else 2
TTFT = 0.06
"""Seconds that an answer takes."""
MEMBERS, ROUNDS = 3, 1
ASKED: dict[str, Any] = {"members": MEMBERS, "rounds": ROUNDS, "rubric": "answer"}
WORKS = works_of(MEMBERS, ROUNDS)
LEASE = {"timeout": 1, "heartbeat_interval": 0.1}

pytestmark = [needs_nats_server, pytest.mark.timeout(2000 if SOAK else 300)]


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with NatsServer(tmp_path, f'jetstream {{ store_dir: "{tmp_path / "jetstream"}" }}') as server:
        yield server


class Fleets:
    """Orchestrators, each with a configuration of its own, that share their agents and the bucket."""

    def __init__(self, folder: Path, server: NatsServer) -> None:
        self._folder, self._server, self._fleets = folder, server, list[Fleet]()

    def another(self, **services: Any) -> Fleet:
        folder = self._folder / f"fleet-{len(self._fleets)}"
        folder.mkdir()
        made = Fleet(
            folder,
            "nats",
            {"servers": self._server.url, "local": True},
            services={
                "deliberation": {"store": {"name": "nats", "servers": self._server.url, "lease": lasts(2)}},
                **services,
            },
            engine={"ttft": TTFT * 1000},
            lease=LEASE,
        )
        self._fleets.append(made)
        return made

    async def end(self) -> None:
        for fleet in self._fleets:
            await fleet.end()


@pytest_asyncio.fixture
async def fleets(tmp_path: Path, server: NatsServer) -> AsyncIterator[Fleets]:
    made = Fleets(tmp_path, server)
    yield made
    await made.end()


async def test_deliberations_complete_however_often_the_server_is_killed(
    fleets: Fleets, server: NatsServer, tmp_path: Path
) -> None:
    """And each is told once."""
    drawn = random.Random(None if SOAK else 3)
    fleet = fleets.another(nats={"servers": server.url, "folder": str(tmp_path / "outbox")})
    await fleet.begin("a1", "a2")
    await fleet.serve()
    async with fleet.client() as client, fleet.client(tenant="calm") as calm, fleet.http() as http:
        await until_agents(http, "a1", "a2")
        for number in range(KILLS):
            name = f"q-{number}"
            undisturbed = await calm.deliberate("The task", id=name, **ASKED)
            await client.submit("The task", id=name, timeout=lasts(60), **ASKED)
            await any_moment(client, name, drawn, WORKS, TTFT)
            await server.stop()
            await asyncio.sleep(drawn.uniform(0, 2))
            await server.restart()
            found = await client.wait(name)
            assert (found.status, found.winner) == ("completed", undisturbed.winner), found
            assert found.answer == undisturbed.answer
            await until_agents(http, "a1", "a2")
    told = await events(server, "deliberation.completed", least=2 * KILLS)
    names = Counter(each.payload["task_id"] for each in told)
    assert names == Counter({f"q-{number}": 2 for number in range(KILLS)})


async def test_another_orchestrator_goes_on_with_what_a_killed_one_has_left(fleets: Fleets) -> None:
    drawn = random.Random(None if SOAK else 4)
    first, second = fleets.another(), fleets.another()
    await first.begin("a1", "a2", slots=1)
    await first.serve()
    async with first.client(tenant="storm") as client, first.client(tenant="calm") as calm, first.http() as http:
        await until_agents(http, "a1", "a2")
        undisturbed = await calm.deliberate("The task", id="q-1", **ASKED)
        await second.serve()
        await client.submit("The task", id="q-1", timeout=lasts(60), **ASKED)
        await any_moment(client, "q-1", drawn, WORKS - 4, TTFT)
    async with second.http(tenant="storm") as http:
        refused = await http.get("/v1/deliberations/q-1")
        assert (refused.status_code, "another orchestrator" in refused.text) == (503, True)
    before = len(first.notes("q-1", "storm"))
    await first.kill_server()
    async with second.client(tenant="storm") as client, second.client(tenant="calm") as calm, second.http() as http:
        await until_serves(http, "q-1")
        found = await client.wait("q-1")
        assert (found.status, found.winner, found.answer) == ("completed", undisturbed.winner, undisturbed.answer)
        assert (await calm.get("q-1")).answer == undisturbed.answer
    assert len(first.notes("q-1", "storm")) > before


async def test_what_one_has_published_the_next_one_does_not_publish_again(
    fleets: Fleets, server: NatsServer, tmp_path: Path
) -> None:
    def publishes(name: str) -> dict[str, Any]:
        return {"servers": server.url, "folder": str(tmp_path / name), "duplicate_window": 1}

    first, second = fleets.another(nats=publishes("first")), fleets.another(nats=publishes("second"))
    await first.begin("a1", "a2")
    await first.serve()
    await second.serve()
    async with first.client() as client, first.http() as http:
        await until_agents(http, "a1", "a2")
        await client.deliberate("The task", id="q-old", **ASKED)
        await events(server, "deliberation.completed", least=1)
        await client.submit("The task", id="q-new", timeout=lasts(60), **ASKED)
    await first.kill_server()
    async with second.client() as client, second.http() as http:
        await until_serves(http, "q-new")
        assert (await client.wait("q-new")).status == "completed"
    told = await events(server, "deliberation.completed", least=2)
    assert [each.payload["task_id"] for each in told] == ["q-old", "q-new"]
    answers = await events(server, "agent.response.completed", least=2 * MEMBERS)
    assert [each.payload["task_id"] for each in answers] == ["q-old"] * MEMBERS + ["q-new"] * MEMBERS


async def test_one_that_stood_still_leaves_them_and_stands_by(fleets: Fleets) -> None:
    first, second = fleets.another(), fleets.another()
    await first.begin("a1", "a2", slots=1)
    await first.serve()
    await second.serve()
    async with first.client() as client, second.client() as other, second.http() as http, first.http() as stopped:
        await until_agents(stopped, "a1", "a2")
        await client.submit("The task", id="q-1", timeout=lasts(60), **ASKED)
        assert first.server is not None
        first.server.process.send_signal(signal.SIGSTOP)
        await until_serves(http, "q-1")
        found = await other.wait("q-1")
        assert found.status == "completed"
        first.server.process.send_signal(signal.SIGCONT)
        await until_refused(stopped, "q-1")
        assert (await other.get("q-1")).answer == found.answer
        await second.kill_server()
        await until_serves(stopped, "q-1")
        assert (await client.get("q-1")).answer == found.answer


async def until_serves(http: httpx.AsyncClient, name: str) -> None:
    """Until this orchestrator has the deliberations."""
    await _until(http, name, 200)


async def until_refused(http: httpx.AsyncClient, name: str) -> None:
    await _until(http, name, 503)


async def _until(http: httpx.AsyncClient, name: str, status: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await http.get(f"/v1/deliberations/{name}")).status_code != status:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)
