"""Deliberations over the end of real processes: a killed orchestrator goes on where it was, with the same winner, and
agents that are killed or stand still are replaced and told."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.deliberation.noted_engine import Note
from tests.deliberation.process_fleet import Fleet, any_moment, lasts, seen
from tests.integration.anywire_processes import until_agents
from tests.long_form import SOAK

from anywire_service_deliberation.record import Deliberation, WorkId
from anywire_service_deliberation.request import works_of
from anywire_service_deliberation.views import Whole

KILLS = 50 if SOAK else 5
TROUBLES = 20 if SOAK else 2
TTFT = 0.06
"""Seconds that an answer takes."""
MEMBERS, ROUNDS = 3, 1
ASKED: dict[str, Any] = {"members": MEMBERS, "rounds": ROUNDS, "rubric": "answer"}
WORKS = works_of(MEMBERS, ROUNDS)
PATIENT = {"timeout": 3, "heartbeat_interval": 0.1}
"""The lease of a test that loses no agent: none is taken for lost because the machine is busy."""
QUICK = {"timeout": 1, "heartbeat_interval": 0.1}

pytestmark = pytest.mark.timeout(2000 if SOAK else 300)


@pytest.fixture
async def fleet(
    request: pytest.FixtureRequest, tmp_path: Path, options_of: Callable[[str], dict[str, Any]]
) -> AsyncIterator[Fleet]:
    transport, lease = request.param
    made = Fleet(tmp_path, transport, options_of(transport), engine={"ttft": TTFT * 1000}, lease=lease)
    yield made
    await made.end()


@pytest.mark.parametrize("fleet", [("zeromq", PATIENT)], indirect=True, ids=["zeromq"])
async def test_an_orchestrator_that_is_killed_at_any_moment_changes_nothing(fleet: Fleet) -> None:
    drawn = random.Random(None if SOAK else 3)
    await fleet.begin("a1", "a2", slots=1)  # so that most moments have a stage that is half done
    await fleet.serve()
    before: dict[str, Deliberation] = {}
    hubs: dict[str, set[str]] = {}
    shown: dict[str, tuple[Whole, Whole]] = {}
    async with fleet.client(tenant="calm") as calm, fleet.client(tenant="storm") as storm, fleet.http() as http:
        for number in range(KILLS):
            name = f"q-{number}"
            await until_agents(http, "a1", "a2")
            undisturbed = await calm.deliberate(f"Task {number}", id=name, **ASKED)
            await storm.submit(f"Task {number}", id=name, **ASKED)
            await any_moment(storm, name, drawn, WORKS, TTFT)
            await fleet.kill_server()
            (before[name],) = await fleet.stored(("storm", name))
            hubs[name] = {note.hub for note in fleet.notes()}
            await fleet.serve()
            shown[name] = undisturbed, await storm.wait(name)
    await fleet.kill_server()
    after = {state.question.id: state for state in await fleet.stored(*(("storm", name) for name in before))}
    for name, (undisturbed, disturbed) in shown.items():
        assert undisturbed.winner
        assert (disturbed.status, disturbed.winner) == ("completed", undisturbed.winner)
        assert disturbed.answer == undisturbed.answer
        later = [note for note in fleet.notes(name, "storm") if note.hub not in hubs[name]]
        asked_once(before[name], after[name], later)
    assert len({note.hub for note in fleet.notes()}) >= KILLS, "each life of the orchestrator has asked"


def asked_once(before: Deliberation, after: Deliberation, later: list[Note]) -> None:
    """What was stored at the end of one orchestrator is as it was, and the next one did not ask for it."""
    assert not after.retried
    assert not after.failures
    for work, answer in before.answers.items():
        assert after.answers[work] == answer
    asked = Counter(member for member, _ in {(note.member, note.task) for note in later})
    had = Counter(WorkId.of(work).member for work in before.answers)
    for member in before.question.members:
        assert asked[member.name] <= WORKS // MEMBERS - had[member.name], member.name


@pytest.mark.parametrize("fleet", [("dds", QUICK)], indirect=True, ids=["dds"])
async def test_agents_that_are_killed_or_stand_still_are_told_and_hold_nothing_up(fleet: Fleet) -> None:
    drawn = random.Random(None if SOAK else 5)
    names = ["a1", "a2", "a3"]
    await fleet.serve()
    await fleet.begin(*names, slots=2)
    lost = 0
    async with fleet.client() as client, fleet.http() as http:
        for number in range(TROUBLES):
            await until_agents(http, *names)
            name, timeout = f"q-{number}", lasts(60)
            await client.submit(f"Task {number}", id=name, timeout=timeout, **ASKED)
            await any_moment(client, name, drawn, WORKS - MEMBERS, TTFT)
            victim = drawn.choice(sorted(busy(fleet, name)) or names)
            pid, stops = fleet.agents[victim].process.pid, number % 2 == 1
            if stops:
                fleet.signal(victim, signal.SIGSTOP)
            else:
                await fleet.kill(victim)
            found = await client.wait(name)
            assert (found.status, found.reason) == ("completed", ""), found
            assert found.cost.seconds <= timeout
            left = len(under_way(fleet.notes(name), pid))
            lost += left
            assert told(found) >= left
            if stops:
                fleet.signal(victim, signal.SIGCONT)
            else:
                await fleet.begin(victim, slots=2)
        assert lost, "something was under way at one that was lost"
        await until_agents(http, *names)
        await all_are_killed(fleet)


def busy(fleet: Fleet, question: str) -> set[str]:
    """Agents that have something of it under way."""
    notes = fleet.notes(question)
    return {name for name, process in fleet.agents.items() if under_way(notes, process.process.pid)}


def under_way(notes: list[Note], pid: int) -> set[str]:
    """Tasks that an agent has begun and not ended."""
    states = {note.task: note.what for note in notes if note.pid == pid}
    return {task for task, what in states.items() if what == "begun"}


def told(found: Whole) -> int:
    """How many tries the result tells of that came to nothing, by themselves or because nobody waited for them."""
    again = sum(each.attempts - each.answers for each in found.members)
    return again + len(found.retried) + len(found.missing) + found.spared


async def all_are_killed(fleet: Fleet) -> None:
    """Nobody is left to ask: it ends all the same, within its time, and says why."""
    timeout = lasts(8)
    async with fleet.client() as client:
        await client.submit("Who is left?", id="last", timeout=timeout, **ASKED | {"rounds": 10})
        assert await seen(client, "last", lambda update: update.data.get("status") == "critiquing")
        for name in list(fleet.agents):
            await fleet.kill(name)
        found = await client.wait("last")
    assert found.status in ("timed_out", "failed")
    assert found.cost.seconds <= timeout
    for member in found.members:
        assert member.name in found.reason
    assert found.missing
    assert len(found.proposals) == MEMBERS, "what there was is kept"
