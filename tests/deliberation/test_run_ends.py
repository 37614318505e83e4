"""How a run ends, whatever happens: at the end of its process, with a disk that hangs, after a fault of our own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.deliberation.deliberation_bench import ANN, Council, answers, asked, bench, ended

from anywire.errors import QueueFull, TaskCancelled
from anywire.testing.clock import SimulatedClock
from anywire.testing.patience import expect, polled
from anywire_service_deliberation.course import Course
from anywire_service_deliberation.deliberations import KeptDeliberations
from anywire_service_deliberation.record import Answer, Deliberation, WorkId
from anywire_service_deliberation.running import Run
from anywire_service_deliberation.runs import Runs


def run_of(kept: KeptDeliberations, question_id: str = "q-1") -> Run:
    run = kept.runs.get("lab", question_id)
    assert run is not None
    return run


async def passed(clock: SimulatedClock, seconds: int) -> None:
    """Let so many seconds pass, one after the other."""
    for _ in range(seconds):
        clock.advance(1.0)
        await asyncio.sleep(0)


# At the end of the process


async def test_answers_that_have_just_come_are_kept_at_the_end(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    names = [f"q-{number}" for number in range(5)]
    async with bench(tmp_path, engine=engine) as (_, kept):
        await asyncio.gather(*[asked(kept, id=name) for name in names])
        await engine.all_asked("proposal", 3 * len(names))
        runs = [run_of(kept, name) for name in names]
        for run in runs:
            await expect(run._idle.wait(), "nothing is left to be done")
        for run in runs:
            run._came_of(WorkId("proposal", 0, "member-2"), Answer("in the last moment"))
        await asyncio.gather(*[run.close() for run in runs])
        for name in names:
            found = await kept._store.get("lab", name)
            assert found is not None
            assert found.answers["proposal/0/member-2"].text == "in the last moment"


async def test_one_that_is_left_while_it_begins_is_over_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path) as (served, kept):
        keep, goes_on, writes = kept._store.keep, asyncio.Event(), asyncio.Event()

        async def slow(state: Deliberation) -> None:
            writes.set()
            await goes_on.wait()
            await keep(state)

        monkeypatch.setattr(kept._store, "keep", slow)
        await asked(kept)
        await expect(writes.wait(), "its first state is being kept")
        served.orchestrator.close_gate()
        served.host.gate_closed()
        goes_on.set()
        await polled(lambda: not served.orchestrator.tasks(), "the task that stands for it has ended")
        assert not kept.runs.running


async def test_work_that_fails_while_it_is_left_holds_up_no_shutdown(tmp_path: Path) -> None:
    engine = Council(lambda member, kind, asked: "fail")
    engine.hold("proposal")
    async with bench(tmp_path, engine=engine, max_attempts=1) as (served, kept):
        await asked(kept)
        await engine.all_asked("proposal", 3)
        served.orchestrator.close_gate()
        served.host.gate_closed()
        engine.release("proposal")
        await polled(lambda: not served.orchestrator.tasks(), "the task that stands for it has ended")
        assert not kept.runs.running
        found = await kept._store.get("lab", "q-1")
        assert found is not None
        assert not found.failures
        assert not found.retried, "the next process asks again"


async def test_work_that_waits_for_an_agent_holds_up_no_shutdown(tmp_path: Path) -> None:
    clock = SimulatedClock()
    engine = Council()
    engine.hold("proposal")
    async with bench(tmp_path, engine=engine) as (_, kept):
        await asked(kept)
        await engine.all_asked("proposal", 3)
    # What resumes waits for its model, by a clock that stands still.
    async with bench(tmp_path, clock, engine=Council(models=("another",))) as (served, kept):
        await polled(lambda: kept.runs.running and run_of(kept)._idle.is_set(), "it goes on")
        served.orchestrator.close_gate()
        served.host.gate_closed()
        await polled(lambda: not kept.runs.running, "it is left")


async def test_who_waits_for_one_that_could_not_go_on_yet_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Council()
    engine.hold("proposal")
    async with bench(tmp_path, engine=engine) as (_, kept):
        await asked(kept)
        await engine.all_asked("proposal", 3)

    def refused(*_: Any) -> Any:
        raise QueueFull("not yet")

    monkeypatch.setattr(Runs, "_envelope", refused)
    async with bench(tmp_path, SimulatedClock()) as (served, kept):
        run = run_of(kept)
        waiting = asyncio.ensure_future(kept.get("q-1", ANN, 60))
        await asyncio.sleep(0)
        served.host.gate_closed()
        found = await expect(waiting, "who waits for it is told")
        assert not run.started
        assert found is not None
        assert not found.is_final


# A disk that hangs


async def test_a_disk_that_hangs_holds_nothing_up_beyond_the_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimulatedClock()
    engine = Council()
    engine.hold("proposal")
    async with bench(tmp_path, clock, engine=engine) as (_, kept):
        taken = await asked(kept, timeout=100)
        await engine.all_asked("proposal", 3)
        run, keep, works = run_of(kept), kept._store.keep, asyncio.Event()

        async def hanging(state: Deliberation) -> None:
            await works.wait()
            await keep(state)

        monkeypatch.setattr(kept._store, "keep", hanging)
        engine.release("proposal")
        await polled(lambda: run._writing is not None, "the answers are being kept")
        await passed(clock, 101)
        assert run.ended.done()
        state = await ended(kept)
        assert (state.status, state.ended <= taken.deadline + 1e-3) == ("timed_out", True)
        assert not engine.asked("critique")
        assert kept.runs.running, "it is not kept yet"
        works.set()
        await polled(lambda: not kept.runs.running, "it is kept at last")
        assert await kept._store.get("lab", "q-1") == state
    assert not clock.pending


async def test_nothing_wakes_one_that_has_ended(tmp_path: Path) -> None:
    clock = SimulatedClock()
    async with bench(tmp_path, clock) as (_, kept):
        await asked(kept)
        run = run_of(kept)
        await ended(kept)
        await polled(lambda: not kept.runs.running, "all of it is kept")
        before = clock.pending
        run._wake_at(run.shown.deadline)
        assert clock.pending == before


# A fault of our own


async def test_a_fault_ends_it_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Even one of the course, which then cannot be asked to end it."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a fault")

    engine = Council()
    engine.hold("critique")
    async with bench(tmp_path, engine=engine) as (served, kept):
        await asked(kept)
        await engine.all_asked("critique", 6)
        for name in ("answered", "failed", "wake", "cancel"):
            monkeypatch.setattr(Course, name, broken)
        engine.release("critique")
        state = await ended(kept)
        assert (state.status, state.reason) == ("failed", "a fault here: RuntimeError")
        assert len(state.answers) >= 3
        await polled(lambda: not served.orchestrator.tasks(), "all its tasks have ended")
        await polled(lambda: not kept.runs.running, "it is kept")
        assert await kept._store.get("lab", "q-1") == state
    assert "goes on no more" in caplog.text


async def test_a_fault_of_the_store_leaves_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path) as (_, kept):
        goes_on = asyncio.Event()

        async def broken(state: Deliberation) -> None:
            await goes_on.wait()
            raise RuntimeError("a fault")

        monkeypatch.setattr(kept._store, "keep", broken)
        await asked(kept)
        waiting = asyncio.ensure_future(kept.get("q-1", ANN, 60))
        await asyncio.sleep(0)
        goes_on.set()
        found = await expect(waiting, "its end is told")
        assert found is not None
        assert (found.status, found.reason) == ("failed", "a fault here: RuntimeError")


# Taking in


async def test_many_at_once_are_no_more_than_may_be_under_way(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    async with bench(tmp_path, engine=engine, max_running=3) as (_, kept):
        taken = await asyncio.gather(*[asked(kept, id=f"q-{number}") for number in range(10)], return_exceptions=True)
        assert sum(isinstance(each, QueueFull) for each in taken) == 7
        assert kept.runs.running == 3
        assert len(await kept.list(ANN)) == 3
        engine.release("proposal")
        for state in taken:
            if isinstance(state, Deliberation):
                await answers(kept, 3, state.question.id)


async def test_a_chat_that_is_cancelled_while_it_is_taken_in_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Council()
    async with bench(tmp_path, engine=engine) as (served, kept):
        add, goes_on, adds = kept._store.add, asyncio.Event(), asyncio.Event()

        async def slow(state: Deliberation) -> Deliberation:
            adds.set()
            await goes_on.wait()
            return await add(state)

        monkeypatch.setattr(kept._store, "add", slow)
        body = '{"messages": [{"role": "user", "content": "Why?"}]}'
        stream = served.submit(body, model="deliberate:DEV", caller=ANN)
        await expect(adds.wait(), "it is being kept")
        stream.cancel("the client has gone")
        with pytest.raises(TaskCancelled):
            await expect(stream.result(), "the task has ended")
        await asyncio.sleep(0)
        goes_on.set()
        state = await ended(kept, stream.task_id)
        assert (state.status, state.reason) == ("cancelled", "its task was cancelled, or its client has gone")
        assert not engine.asked()
