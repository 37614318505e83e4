"""Five members between real processes, asked by a tenant that may have one task at once: one is stuck, one talks
nonsense, one's agent is killed in the second round, a client goes away, the orchestrator is killed. Each ends as
documented."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.deliberation.process_fleet import MODEL, Fleet, lasts, seen
from tests.integration.anywire_processes import until_agents

from anywire.caller import Limits, Role
from anywire.errors import InvalidRequest, LimitReached
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from anywire.testing.patience import expect
from anywire_service_deliberation.client import DeliberationClient
from anywire_service_deliberation.views import Whole

OWN, BABBLE = "own", "babble"
TTFT_MS = 100
TIMEOUT = lasts(15)
"""Seconds that a deliberation with a stuck member may last."""
NOTICED_BY_NOBODY = {"timeout": 3600, "heartbeat_interval": 0.2}
"""The lease: an agent that stands still is not taken for lost, so that the deliberation itself has to go on without."""

pytestmark = pytest.mark.timeout(300)


class Keys:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "keys.json"

    def add(self, tenant: str, role: Role = "use", **limits: Any) -> str:
        """What its client shows."""
        key = new_key()
        add_key(self.path, record_of(key, label=tenant, tenant=tenant, role=role, limits=Limits(**limits)))
        return f"Bearer {key}"


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


@pytest.fixture
async def fleet(tmp_path: Path, keys: Keys, options_of: Callable[[str], dict[str, Any]]) -> AsyncIterator[Fleet]:
    made = Fleet(
        tmp_path,
        "http",
        options_of("http"),
        engine={"ttft": TTFT_MS},
        lease=NOTICED_BY_NOBODY,
        access={"keys": str(keys.path)},
    )
    yield made
    await made.end()


async def test_five_members_and_what_befalls_them(fleet: Fleet, keys: Keys) -> None:
    one_at_once, other, operator = keys.add("lab", concurrency=1), keys.add("other"), keys.add("ops", "operate")
    await fleet.serve()
    await fleet.begin("ann", "bob", slots=2)
    await fleet.begin("own", slots=3, models=[MODEL, OWN])
    await fleet.begin("eve", slots=2, models=[BABBLE], features={"json": False})
    async with (
        fleet.http(authorization=operator) as ops,
        fleet.http(authorization=one_at_once) as http,
        fleet.client(authorization=one_at_once) as client,
        fleet.client(authorization=other) as stranger,
    ):
        await until_agents(ops, "ann", "bob", "own", "eve")
        stuck = await one_is_stuck(fleet, client)
        await until_agents(ops, "ann", "bob", "own", "eve")
        await one_talks_nonsense(client)
        await clients_go_away(http, client)
        await one_is_killed_in_the_second_round(fleet, client)
        await asked_for_after_a_restart(fleet, client, stranger, stuck)


def members(last: str = MODEL) -> list[dict[str, Any]]:
    """Five, of which the last one has a model of its own."""
    return [{"model": model} for model in (MODEL, MODEL, MODEL, MODEL, last)]


async def one_is_stuck(fleet: Fleet, client: DeliberationClient) -> Whole:
    """An agent stands still, and nobody else has the model of one of its members."""
    fleet.signal("own", signal.SIGSTOP)
    await client.submit("Who stands still?", id="stuck", members=members(OWN), timeout=TIMEOUT)
    with pytest.raises(LimitReached):
        await client.submit("May I have two?", id="second")
    found = await client.wait("stuck")
    fleet.signal("own", signal.SIGCONT)
    assert found.cost.seconds <= TIMEOUT
    assert found.status == "degraded"
    assert found.reason == "member-5: no proposal (late: no answer in time)"
    assert [(each.member, each.kind, each.code) for each in found.missing] == [("member-5", "proposal", "late")]
    hung = [(each.member, each.agent) for each in found.retried if each.code == "hanging"]
    assert ("member-5", "own") in hung
    assert len(hung) > 1, "what the others had there was asked of others"
    assert len(found.ranking) == 4
    assert found.answer
    return found


async def one_talks_nonsense(client: DeliberationClient) -> None:
    """Its scores are asked for once more and dropped; those of the others count."""
    found = await client.deliberate("Who babbles?", id="nonsense", members=members(BABBLE), timeout=TIMEOUT)
    assert found.cost.seconds <= TIMEOUT
    assert found.dropped
    assert {(each.member, each.kind, each.code) for each in [*found.missing, *found.retried]} == {
        ("member-5", "score", "nonsense")
    }
    assert "member-5" not in {each.member for each in found.scores}
    assert {each.member for each in found.ranking} == {f"member-{number}" for number in range(1, 6)}
    assert found.winner
    # Which of its scores were still needed depends on who was quicker.
    assert found.status == ("degraded" if found.missing else "completed")
    assert found.reason.startswith("member-5: ") == bool(found.missing)


async def clients_go_away(http: httpx.AsyncClient, client: DeliberationClient) -> None:
    """A chat is cancelled with its client; what was asked for by its id goes on without."""
    asked = {
        "model": "deliberate:DEV",
        "messages": [{"role": "user", "content": "Is anybody there?"}],
        "stream": True,
        "deliberation": {"members": members(), "rounds": 2},
    }
    async with http.stream("POST", "/v1/chat/completions", json=asked) as answer:
        assert answer.status_code == 200
        chunks = (json.loads(line[6:]) async for line in answer.aiter_lines() if line.startswith("data: {"))
        async for chunk in chunks:
            name = str(chunk["id"]).removeprefix("chatcmpl-")
            if chunk.get("deliberation", {}).get("event") == "answered":
                break
        await chunks.aclose()
    found = await expect(client.wait(name), "it is cancelled")
    assert (found.status, found.winner) == ("cancelled", "")
    assert found.reason == "its task was cancelled, or its client has gone"
    body = {"id": "waited", "task": "Does anybody wait?", "members": members()}
    waiting = asyncio.create_task(http.post("/v1/deliberations", json=body, headers={"Prefer": "wait=60"}))
    await until_stored(client, "waited")
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert (await client.wait("waited")).status == "completed"


async def until_stored(client: DeliberationClient, name: str) -> None:
    """Wait until it is known, and has an answer."""

    async def known() -> None:
        while True:
            try:
                await client.get(name)
                break
            except InvalidRequest:
                await asyncio.sleep(0.02)
        assert await seen(client, name, lambda update: update.name == "answered")

    await expect(known(), "it is under way")


async def one_is_killed_in_the_second_round(fleet: Fleet, client: DeliberationClient) -> None:
    await client.submit("Who is killed?", id="killed", members=members(), rounds=2)
    second = {"status": "critiquing", "round": 2}
    assert await seen(client, "killed", lambda update: update.name == "stage" and update.data == second)
    await fleet.kill("bob")
    found = await client.wait("killed")
    assert (found.status, found.reason, len(found.ranking)) == ("completed", "", 5)
    assert "bob" in {agent for member in found.members for agent in member.agents}
    assert sum(each.attempts for each in found.members) + len(found.retried) > sum(
        each.answers for each in found.members
    ), "what it had under way was sent to another one"


async def asked_for_after_a_restart(
    fleet: Fleet, client: DeliberationClient, stranger: DeliberationClient, ended: Whole
) -> None:
    """What had ended is as it was, what was under way goes on, and what never was is unknown."""
    await client.submit("Who is there afterwards?", id="restarted", members=members())
    assert await seen(client, "restarted", lambda update: update.name == "answered")
    before = await client.get("restarted")
    await fleet.kill_server()
    await fleet.serve()
    assert await client.get(ended.id) == ended
    found = await client.wait("restarted")
    assert found.status == "completed"
    first = {each.member: each.versions[0] for each in before.proposals}
    assert first
    assert {each.member: each.versions[0] for each in found.proposals}.items() >= first.items()
    for name, asks in (("never", client), (ended.id, stranger)):
        with pytest.raises(InvalidRequest, match="there is no deliberation") as refused:
            await asks.get(name)
        assert refused.value.status == 404
