"""Deliberations as tasks of a pipeline: who is asked what and when, and what comes of it."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.deliberation.deliberation_bench import (
    ANN,
    Council,
    answers,
    asked,
    bench,
    ended,
    kind_of,
    status,
)
from tests.long_form import SOAK

from anywire.builtin.memory import MemoryTransport
from anywire.caller import Caller, Limits
from anywire.errors import LimitReached, PluginFailed
from anywire.identity import agent_info
from anywire.roles.agent import Agent
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL
from anywire.testing.patience import expect, polled
from anywire.testing.service_bench import ServiceBench
from anywire_service_deliberation.budget import stage_ends
from anywire_service_deliberation.deliberations import KeptDeliberations
from anywire_service_deliberation.history import history
from anywire_service_deliberation.record import Deliberation, WorkId
from anywire_service_deliberation.running import Run


async def test_members_propose_criticise_revise_and_score_and_one_wins(tmp_path: Path) -> None:
    engine = Council()
    async with bench(tmp_path, engine=engine) as (served, kept):
        taken = await asked(kept)
        assert taken.status == "submitted"
        state = await ended(kept)
        assert (state.status, state.reason) == ("completed", "")
        assert state.winner == state.ranking[0].member
        assert [len(engine.asked(kind)) for kind in ("proposal", "critique", "revision")] == [3, 6, 3]
        answer = state.answers["proposal/0/member-1"]
        assert (answer.agent, answer.transport, answer.attempts) == ("agent", "memory", 1)
        assert (answer.prompt_tokens, answer.completion_tokens) == (10, 5)
        assert state.submitted <= answer.began <= answer.ended <= state.ended <= state.deadline
        assert not served.orchestrator.tasks()
        assert await kept.get("q-1", ANN) == state


async def test_all_of_a_stage_are_asked_before_the_first_answers(tmp_path: Path) -> None:
    engine = Council()
    counts = {"proposal": 5, "critique": 20, "revision": 5, "score": 20}
    for kind in counts:
        engine.hold(kind)
    async with bench(tmp_path, engine=engine) as (_, kept):
        await asked(kept, members=5)
        for kind, count in counts.items():
            await engine.all_asked(kind, count)
            assert not engine.named("answered", kind)
            engine.release(kind)
        assert (await ended(kept)).status == "completed"


async def test_what_a_member_is_asked_with(tmp_path: Path) -> None:
    engine = Council()
    member = {"name": "ada", "role": "QA", "model": MODEL, "temperature": 0.25, "seed": 7}
    async with bench(tmp_path, engine=engine) as (_, kept):
        await asked(kept, members=[member, {}], max_tokens=33)
        await ended(kept)
    task = next(event[3] for event in engine.recorder.named("asked") if event[1:3] == ("ada", "proposal"))
    assert task.tenant == "lab"
    assert task.session == "q-1/ada"
    assert task.parent
    assert 0 < task.time_left_ms <= 300_000
    for part in ('"temperature":0.25', '"seed":7', '"max_tokens":33', '"stream":false', "Reverse a list."):
        assert part in task.body


async def shown(kept: KeptDeliberations) -> Deliberation:
    state = await kept.get("q-1", ANN)
    assert state is not None
    return state


# What goes wrong


async def test_a_member_that_hangs_is_replaced_and_told(tmp_path: Path) -> None:
    clock = SimulatedClock()
    engine = Council(lambda member, kind, asked: "hang" if (member, kind) == ("member-2", "proposal") else "answer")
    async with bench(tmp_path, clock, engine=engine) as (_, kept):
        taken = await asked(kept, members=5)
        await answers(kept, 4)
        assert engine.asked("proposal").count("member-2") == 1
        share = stage_ends(msgspec.structs.replace(taken, status="generating"), taken.submitted) - taken.submitted
        clock.advance(0.95 * share)
        await engine.recorder.until(lambda: engine.asked("proposal").count("member-2") == 2, "it is asked again")
        clock.advance(0.1 * share)
        state = await ended(kept)
        assert state.status == "degraded"
        assert "member-2: no proposal (late" in state.reason
        assert [failure.code for failure in state.retried["proposal/0/member-2"]] == ["hanging"]
        assert state.winner
        assert state.ended <= taken.deadline
        await engine.recorder.until(lambda: engine.named("cancelled", "proposal") == ["member-2"] * 2, "both stop")


async def test_one_that_hangs_is_replaced_by_another_agent(tmp_path: Path) -> None:
    clock = SimulatedClock()
    tries: list[str] = []

    def hangs_first(member: str, kind: str, number: int) -> str:
        if (member, kind) != ("member-1", "proposal"):
            return "answer"
        tries.append(member)
        return "hang" if len(tries) == 1 else "answer"

    first, second = Council(hangs_first), Council(hangs_first)
    async with bench(tmp_path, clock, engine=first) as (served, kept):
        other = await joined(served, second)
        try:
            taken = await asked(kept, members=2, rounds=0)
            await answers(kept, 1)
            share = stage_ends(msgspec.structs.replace(taken, status="generating"), taken.submitted) - taken.submitted
            clock.advance(0.95 * share)
            state = await ended(kept)
        finally:
            await other.close()
    assert state.status == "completed"
    assert len(tries) == 2
    hung = "agent" if first.named("cancelled", "proposal") else MODEL
    assert [(each.code, each.agent) for each in state.retried["proposal/0/member-1"]] == [("hanging", hung)]
    assert state.answers["proposal/0/member-1"].agent == ({"agent", MODEL} - {hung}).pop()


async def test_a_judge_that_talks_nonsense_is_asked_again_and_then_left_out(tmp_path: Path) -> None:
    engine = Council(lambda member, kind, asked: "nonsense" if (member, kind) == ("member-3", "score") else "answer")
    async with bench(tmp_path, engine=engine) as (_, kept):
        await asked(kept, rounds=0)
        state = await ended(kept)
    assert state.winner
    assert state.status == ("degraded" if state.failures else "completed")
    assert state.dropped
    failed = state.failures.keys() | state.retried.keys()
    assert {(WorkId.of(text).member, WorkId.of(text).kind) for text in failed} == {("member-3", "score")}
    for text, (first,) in state.retried.items():
        assert first.code == "nonsense"
        assert "clarity" in first.message or "no points" in first.message
        assert text not in state.answers


async def test_a_member_that_fails_once_is_replaced(tmp_path: Path) -> None:
    def once(member: str, kind: str, number: int) -> str:
        return "fail" if (member, kind) == ("member-1", "proposal") and number == 1 else "answer"

    async with bench(tmp_path, engine=(engine := Council(once)), max_attempts=2) as (_, kept):
        await asked(kept, rounds=0)
        state = await ended(kept)
    assert state.status == "completed"
    assert [failure.code for failure in state.retried["proposal/0/member-1"]] == ["engine_failed"]
    again = [event[3] for event in engine.recorder.named("asked") if event[1:3] == ("member-1", "proposal")][-1]
    assert "agent" in again.avoid


@pytest.mark.parametrize(("quorum", "how"), [(1, "degraded"), (2, "failed")])
async def test_below_the_quorum_nobody_wins(tmp_path: Path, quorum: int, how: str) -> None:
    engine = Council(lambda member, kind, asked: "answer" if member == "member-2" else "fail")
    async with bench(tmp_path, engine=engine) as (_, kept):
        await asked(kept, quorum=quorum)
        state = await ended(kept)
    assert state.status == how
    assert state.winner == ("member-2" if how == "degraded" else "")
    for name in ("member-1", "member-3"):
        assert f"{name}: no proposal (engine_failed: the member says so" in state.reason
    assert state.answers.keys() == {"proposal/0/member-2"}


async def test_nobody_answers_and_the_promise_is_kept(tmp_path: Path) -> None:
    clock = SimulatedClock()
    engine = Council(lambda member, kind, asked: "hang")
    async with bench(tmp_path, clock, engine=engine) as (served, kept):
        taken = await asked(kept, timeout=100)
        await engine.all_asked("proposal", 3)
        clock.advance(100)
        state = await ended(kept)
        assert state.status == "timed_out"
        assert state.ended <= taken.deadline
        await engine.recorder.until(lambda: len(engine.named("cancelled", "proposal")) >= 3, "all are stopped")
        assert not served.orchestrator.tasks()


async def test_what_checks_say_is_kept_with_a_proposal(tmp_path: Path) -> None:
    checks = [{"kind": "policy", "forbid": ["by member-2"]}]
    async with bench(tmp_path, checks=checks) as (_, kept):
        await asked(kept)
        state = await ended(kept)
    for work, answer in state.answers.items():
        if work.startswith(("proposal", "revision")):
            assert [check.kind for check in answer.checks] == ["policy"]
            assert answer.checks[0].passed == ("member-2" not in work)
        else:
            assert not answer.checks


async def test_a_model_that_nobody_serves_fails_at_once_and_says_so(tmp_path: Path) -> None:
    async with bench(tmp_path) as (_, kept):
        await asked(kept, members=[{"model": "unknown"}, {}])
        state = await ended(kept)
    assert state.status == "degraded"
    assert "no agent serves the model 'unknown'" in state.reason


# Cancelling


async def test_cancel_reaches_every_task(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("critique")
    async with bench(tmp_path, engine=engine) as (served, kept):
        await asked(kept)
        await engine.all_asked("critique", 6)
        state = await expect(kept.cancel("q-1", ANN, "enough"), "it is cancelled")
        assert state is not None
        assert (state.status, state.reason) == ("cancelled", "enough")
        assert len(state.answers) == 3
        await engine.recorder.until(lambda: len(engine.named("cancelled", "critique")) == 6, "all are stopped")
        assert not served.orchestrator.tasks()
        assert await kept.cancel("q-1", ANN) == await ended(kept) == state


async def test_the_task_that_stands_for_it_cancels_it(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    async with bench(tmp_path, engine=engine) as (served, kept):
        await asked(kept)
        await engine.all_asked("proposal", 3)
        (task,) = [each for each in served.orchestrator.tasks() if each.place == "running" and not each.parent]
        assert task.model == "deliberate:DEV"
        assert served.orchestrator.cancel(task.task_id, "enough", ANN)
        assert (await ended(kept)).status == "cancelled"
        assert not served.orchestrator.tasks()


# Callers and agents


async def test_a_tenant_with_one_task_at_once_can_deliberate(tmp_path: Path) -> None:
    caller = Caller("ann", "lab", limits=Limits(concurrency=1, requests_per_minute=2))
    engine = Council()
    engine.hold("critique")
    async with bench(tmp_path, engine=engine) as (served, kept):
        await asked(kept, caller)
        await engine.all_asked("critique", 6)
        with pytest.raises(LimitReached):
            await asked(kept, caller, id="q-2")
        with pytest.raises(LimitReached):
            served.orchestrator.submit(Submission("chat", MODEL, "{}", caller=caller))
        engine.release("critique")
        assert (await ended(kept)).status == "completed"
        await asked(kept, caller, id="q-3")
        assert (await ended(kept, "q-3")).status == "completed"


async def joined(served: ServiceBench, engine: Council) -> Agent:
    """One more agent of the orchestrator."""
    network = served.orchestrator.transports[0].config
    agent = Agent(agent_info(MODEL, engine=engine), engine, [MemoryTransport(network)], slots=1)
    await agent.start()
    ready = served.orchestrator.agents_until(
        lambda agents: any(each.agent_id == MODEL and each.status.state == "ready" for each in agents)
    )
    await expect(ready, "the agent has joined")
    return agent


async def test_members_of_one_model_go_to_different_agents(tmp_path: Path) -> None:
    first, second = Council(), Council()
    for engine in (first, second):
        engine.hold("proposal")
    async with bench(tmp_path, engine=first, slots=8) as (served, kept):
        other = await joined(served, second)
        try:
            await asked(kept, members=2, rounds=0)
            await first.all_asked("proposal", 1)
            await second.all_asked("proposal", 1)
            for engine in (first, second):
                engine.release("proposal")
            state = await ended(kept)
        finally:
            await other.close()
    agents = [state.answers[f"proposal/0/member-{number}"].agent for number in (1, 2)]
    assert set(agents) == {"agent", MODEL}
    told = [event[3] for engine in (first, second) for event in engine.recorder.named("asked")]
    avoided = {task.session: task.avoid for task in told if kind_of(task.body) == "proposal"}
    assert avoided == {"q-1/member-1": (), "q-1/member-2": (agents[0],)}


# Over the end of the process


async def undisturbed(folder: Path) -> Deliberation:
    async with bench(folder) as (_, kept):
        await asked(kept, members=4)
        return await ended(kept)


async def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    """At every stage: what was answered and kept is not asked again, and the same one wins."""
    expected = await undisturbed(tmp_path / "undisturbed")
    for kind, count in (("proposal", 4), ("critique", 12), ("revision", 4), ("score", 12)):
        folder = tmp_path / kind
        folder.mkdir()
        engine = Council(
            lambda member, what, asked, kind=kind: "hang" if (member, what) == ("member-3", kind) else "answer"  # type: ignore[misc]
        )
        async with bench(folder, engine=engine) as (_, kept):
            taken = await asked(kept, members=4)
            await engine.all_asked(kind, count)
            await answers(kept, engine_answers(engine))
        engine = Council()
        async with bench(folder, engine=engine) as (_, kept):
            state = await ended(kept)
            assert state.winner == expected.winner
            assert state.status == "completed"
            assert (state.submitted, state.deadline) == (taken.submitted, taken.deadline)
            assert set(engine.asked(kind)) <= {"member-3"}
            for work in state.answers.keys() & expected.answers.keys():
                assert state.answers[work].text == expected.answers[work].text


async def test_a_crash_at_any_moment_changes_nothing(tmp_path: Path) -> None:
    """The folder as it was when each state had just been kept is what a killed process leaves."""
    expected = await undisturbed(tmp_path / "undisturbed")
    moments: list[tuple[Path, Deliberation]] = []
    async with bench(tmp_path / "first") as (_, kept):
        keep = kept._store.keep

        async def keep_and_copy(state: Deliberation) -> None:
            await keep(state)
            shutil.copytree(tmp_path / "first" / "kept", folder := tmp_path / f"{len(moments)}" / "kept")
            moments.append((folder.parent, state))

        kept._store.keep = keep_and_copy  # type: ignore[method-assign]
        await asked(kept, members=4)
        await ended(kept)
        await polled(lambda: not kept.runs.running, "all of it is kept")
    drawn = random.Random(7).sample(moments, len(moments) if SOAK else min(5, len(moments)))
    for folder, before in drawn:
        async with bench(folder, engine=(engine := Council())) as (_, kept):
            state = await ended(kept)
            assert (state.winner, state.status) == (expected.winner, "completed")
            for work, answer in before.answers.items():
                assert state.answers[work] == answer
            for kind, everything in (("proposal", 4), ("critique", 12), ("revision", 4), ("score", 12)):
                had = sum(text.startswith(kind) for text in before.answers)
                assert len(engine.asked(kind)) <= everything - had


def engine_answers(engine: Council) -> int:
    return len(engine.recorder.named("answered"))


async def test_at_the_end_what_is_under_way_is_kept_and_nothing_new_is_asked(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    async with bench(tmp_path, engine=engine) as (served, kept):
        await asked(kept)
        await engine.all_asked("proposal", 3)
        served.orchestrator.close_gate()
        served.host.gate_closed()
        assert len(served.orchestrator.tasks()) == 4
        engine.release("proposal")
        await polled(lambda: not served.orchestrator.tasks(), "the task that stands for it has ended too")
        assert not kept.runs.running
    async with bench(tmp_path, engine=(other := Council())) as (_, kept):
        assert (await ended(kept)).status == "completed"
        assert not engine.asked("critique")
        assert not other.asked("proposal")


async def test_events_have_the_same_numbers_while_it_runs_and_afterwards(tmp_path: Path) -> None:
    engine = Council(lambda member, kind, asked: "nonsense" if (member, kind) == ("member-3", "score") else "answer")
    async with bench(tmp_path, engine=engine) as (_, kept):
        await asked(kept, synthesis=True)

        async def live() -> list[Any]:
            return [update async for update in kept.updates("q-1", ANN)]

        seen = await expect(live(), "all events have come")
        state = await ended(kept)
        assert [update.number for update in seen] == list(range(1, len(seen) + 1))
        assert seen == history(state) == await expect(live(), "they come again")
        assert [update async for update in kept.updates("q-1", ANN, 5)] == seen[5:]
        assert [update async for update in kept.updates("q-1", ANN, len(seen))] == []
        assert [update async for update in kept.updates("q-1", ANN, 10_000)] == seen[-1:]
    names = [update.name for update in seen]
    assert names[:5] == ["stage", "stage", "asked", "asked", "asked"]
    assert names[-1] == "ended"
    stages = [update.data["status"] for update in seen if update.name == "stage"]
    assert stages == ["submitted", "generating", "critiquing", "revising", "scoring", "synthesis"]
    assert names.count("answered") == len(state.answers)
    assert names.count("asked") == names.count("answered") + names.count("failed") + state.spared
    async with bench(tmp_path) as (_, kept):
        assert [update async for update in kept.updates("q-1", ANN)] == seen


async def test_events_keep_their_order_where_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Council()
    engine.hold("revision")
    async with bench(tmp_path, engine=engine) as (_, kept):
        await asked(kept)
        await answers(kept, 9)
        await engine.all_asked("revision", 3)
        begun = history(await shown(kept))
    set_back = time.time() - 100
    monkeypatch.setattr(time, "time", lambda: set_back)
    async with bench(tmp_path) as (_, kept):
        seen = history(await ended(kept))
    assert seen[: len(begun)] == begun
    stages = [update.data["status"] for update in seen if update.name == "stage"]
    assert stages == ["submitted", "generating", "critiquing", "revising", "scoring"]


async def test_what_resumes_waits_for_its_agents(tmp_path: Path) -> None:
    clock = SimulatedClock()
    engine = Council()
    engine.hold("proposal")
    async with bench(tmp_path, engine=engine) as (_, kept):
        await asked(kept)
        await engine.all_asked("proposal", 3)
    later = Council(models=("another",))
    async with bench(tmp_path, clock, engine=later) as (served, kept):
        await status(kept, "generating")
        other = await joined(served, Council())
        try:
            for _ in range(20):
                clock.advance(1.0)
                await asyncio.sleep(0)
            state = await ended(kept)
        finally:
            await other.close()
    assert state.status == "completed"


# A disk that fails


async def test_a_disk_that_fails_holds_it_up_and_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimulatedClock()
    engine = Council()
    engine.hold("proposal")
    async with bench(tmp_path, clock, engine=engine) as (_, kept):
        await asked(kept, timeout=100)
        await engine.all_asked("proposal", 3)
        keep, fails = kept._store.keep, True

        async def failing(state: Deliberation) -> None:
            if fails:
                raise PluginFailed("the disk is full")
            await keep(state)

        monkeypatch.setattr(kept._store, "keep", failing)
        engine.release("proposal")
        await engine.recorder.until(lambda: len(engine.named("answered", "proposal")) == 3, "they have answered")
        for _ in range(200):
            clock.advance(1.0)
            await asyncio.sleep(0)
        run = kept.runs.get("lab", "q-1")
        assert isinstance(run, Run)
        await expect(asyncio.shield(run.ended), "the promise is kept")
        state = await ended(kept)
        assert state.status == "timed_out"
        assert not engine.asked("critique")
        fails = False
        for _ in range(30):
            clock.advance(1.0)
            await asyncio.sleep(0)
        await polled(lambda: kept.runs.get("lab", "q-1") is None, "it is kept at last")
    async with bench(tmp_path) as (_, kept):
        assert (await ended(kept)).status == "timed_out"
