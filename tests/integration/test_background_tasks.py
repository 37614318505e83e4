"""The service ``background`` beside an orchestrator: what is taken in is run, kept, and answered once."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
from tests.integration.background_bench import ANN, BOB, Fleet, answered, bench, joined, opened, task, text

from anywire import errors
from anywire.access import Presented
from anywire.boundary import Boundary
from anywire.builtin.memory import MemoryTransport
from anywire.caller import ANYBODY, OPERATOR
from anywire.engine import EngineStatus
from anywire.event_bus import EventBus
from anywire.identity import agent_info
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of, revoke_keys
from anywire.keys.key_text import new_key
from anywire.offers import Offer
from anywire.roles.agent import Agent
from anywire.roles.told_access import told_access
from anywire.submission import Submission
from anywire.testing.doubles import MODEL, Script
from anywire.testing.patience import expect, polled
from anywire.testing.service_kit import ServiceConformance
from anywire_service_background import backlog
from anywire_service_background.records import encoded_submission, left


class TestBackground(ServiceConformance):
    service = "background"


async def test_a_task_is_answered_whenever_somebody_comes(tmp_path: Path) -> None:
    async with bench(tmp_path) as (_, tasks):
        task_id, is_new = await tasks.submit(task(chunks=3))
        assert is_new
        for _ in range(2):
            assert await text(tasks, task_id) == Script("a", 3).text()
        found = await answered(tasks, task_id)
        assert (found.agent_id, found.transport, found.attempts) == ("agent", "memory", 1)
    async with bench(tmp_path) as (_, tasks):
        assert await text(tasks, task_id) == Script("a", 3).text()
        assert await tasks.get("0" * 24, ANN) is None


async def test_a_failed_task_tells_its_error_to_whoever_comes(tmp_path: Path) -> None:
    async with bench(tmp_path) as (_, tasks):
        task_id, _ = await tasks.submit(task(fail_after=0))
        found = await answered(tasks, task_id)
    async with bench(tmp_path) as (_, tasks):
        for each in (found, await answered(tasks, task_id)):
            assert isinstance(each.error, errors.EngineFailed)
            assert each.chunk is None


async def test_what_is_refused_is_refused_at_once_and_not_kept(tmp_path: Path) -> None:
    async with bench(tmp_path, max_bytes=2000) as (served, tasks):
        for wrong, error in (
            (task(stream=True), errors.InvalidRequest),
            (task(parent="x"), errors.InvalidRequest),
            (task(filler="x" * 3000), errors.PayloadTooLarge),
            (Submission("chat", "unknown", "{}"), errors.ModelNotFound),
            (Submission("chat", MODEL, "\ud800"), errors.InvalidRequest),
        ):
            with pytest.raises(error):
                await tasks.submit(wrong)
        assert served.orchestrator.tasks() == []
        served.orchestrator.close_gate()
        served.host.gate_closed()
        with pytest.raises(errors.ShuttingDown):
            await tasks.submit(task())


async def test_a_task_is_seen_and_ended_by_its_own_tenant_alone(tmp_path: Path) -> None:
    async with bench(tmp_path) as (served, tasks):
        running, _ = await tasks.submit(task(hold_after=0))
        ended, _ = await tasks.submit(task())
        await answered(tasks, ended)
        for task_id in (running, ended):
            assert await tasks.get(task_id, BOB, 0) is None
            assert not await tasks.forget(task_id, BOB)
            assert await tasks.get(task_id, OPERATOR) is not None
            assert await tasks.forget(task_id, ANN)
            assert await tasks.get(task_id, ANN) is None
            assert not await tasks.forget(task_id, ANN)
        assert served.orchestrator.tasks() == []
    async with bench(tmp_path) as (_, tasks):
        assert await tasks.get(running, ANN) is None


async def test_a_cancelled_task_stays_cancelled(tmp_path: Path) -> None:
    async with bench(tmp_path) as (served, tasks):
        task_id, _ = await tasks.submit(task(hold_after=0))
        assert served.orchestrator.cancel(task_id, "enough", ANN)
        assert isinstance((await answered(tasks, task_id)).error, errors.TaskCancelled)
        late, _ = await tasks.submit(task(hold_after=0))
        served.orchestrator.close_gate()
        served.host.gate_closed()
        assert served.orchestrator.cancel(late, "enough", ANN)
    async with bench(tmp_path) as (_, tasks):
        for each in (task_id, late):
            assert isinstance((await answered(tasks, each)).error, errors.TaskCancelled)


# Over the end of the process


async def test_what_an_orchestrator_leaves_is_run_by_the_next_one(tmp_path: Path) -> None:
    engine = Fleet(holds=True)
    async with bench(tmp_path, engine=engine, slots=1) as (_, tasks):
        running, _ = await tasks.submit(task("run", hold_after=1))
        queued = [(await tasks.submit(task(str(number), hints={"urgency": 1.0})))[0] for number in range(3)]
        await engine.recorder.until(lambda: engine.recorder.named("holding"), "it runs")
        waits = asyncio.ensure_future(tasks.get(queued[0], ANN, 60))
        await asyncio.sleep(0)
    found = await expect(waits, "who waits for an answer is let go at the end")
    assert found is not None
    assert not found.ended
    async with bench(tmp_path, engine=(engine := Fleet()), slots=1) as (_, tasks):
        assert await text(tasks, running) == Script("run").text()
        for number, task_id in enumerate(queued):
            assert await text(tasks, task_id) == Script(str(number)).text()
    assert engine.began == ["run", "0", "1", "2"], "in the order in which they came, each once"
    async with bench(tmp_path, engine=(engine := Fleet())) as (_, tasks):
        assert await text(tasks, running) == Script("run").text()
        assert engine.began == []


async def test_it_waits_for_agents_that_are_still_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "FIRST_PAUSE", 1000.0)
    monkeypatch.setattr(backlog, "LONGEST_PAUSE", 1000.0)
    late = [Submission("chat", "other", Script(tag).body(), caller=ANN) for tag in "ab"]
    async with bench(tmp_path) as (served, tasks):
        holding = await joined(served, Fleet("other", holds=True))
        hold = Submission("chat", "other", Script("hold", hold_after=0).body(), caller=ANN)
        ids = [(await tasks.submit(each))[0] for each in (hold, *late)]
        await holding.close()
    async with bench(tmp_path, engine=(engine := Fleet())) as (served, tasks):
        # An agent is here, and none with the model: a new task for it is refused.
        with pytest.raises(errors.ModelNotFound):
            await tasks.submit(late[0])
        ended, _ = await tasks.submit(task())
        await answered(tasks, ended)
        assert await tasks.forget(ids[2], ANN)
        agent = await joined(served, Fleet("other"))
        assert await text(tasks, ids[0]) == Script("hold").text()
        assert await text(tasks, ids[1]) == Script("a").text()
        assert await tasks.get(ids[2], ANN) is None
        await agent.close()
    assert engine.began == ["a"]


async def test_a_task_whose_agents_are_lost_waits_for_the_next_one(tmp_path: Path) -> None:
    async with bench(tmp_path, agent_wait=0.01) as (served, tasks):
        task_id = ""
        for number in range(1, 3):
            lost = Fleet("other", holds=True)
            agent = await joined(served, lost)
            if not task_id:
                submission = Submission("chat", "other", Script("o", hold_after=0).body(), caller=ANN)
                task_id, _ = await tasks.submit(submission)
            await lost.recorder.until(partial(lost.recorder.named, "holding"), "it runs")
            assert lost.recorder.named("started") == [("started", "o", number)], "no attempt's number is used twice"
            await agent.close()
        agent = await joined(served, Fleet("other"))
        assert await text(tasks, task_id) == Script("o").text()
        assert (await answered(tasks, task_id)).attempts == 3
        await agent.close()


async def test_an_agent_without_the_features_does_not_end_what_is_left(tmp_path: Path) -> None:
    body = '{"tools": [{"type": "function", "function": {"name": "f"}}], "tag": "t", "hold_after": 0}'
    plain, able = Fleet("m"), Fleet("m")
    plain.status = lambda: EngineStatus("ready", (Offer("m", features={"tools": False}),))  # type: ignore[method-assign]
    submission = Submission("chat", "m", body, caller=ANN)
    async with bench(tmp_path, engine=Fleet("m", holds=True), slots=1) as (_, tasks):
        left, _ = await tasks.submit(submission)
    async with bench(tmp_path, engine=plain) as (served, tasks):
        with pytest.raises(errors.InvalidRequest):
            await tasks.submit(submission)
        for _ in range(2):  # the first is behind the service's own look, the second behind what that would write
            found = await tasks.get(left, ANN)
        assert found is not None
        assert not found.ended
        network = served.orchestrator.transports[0].config
        agent = Agent(agent_info("able", engine=able), able, [MemoryTransport(network)], slots=1)
        await agent.start()
        assert await text(tasks, left) == "t:0;"
        await agent.close()


async def test_the_deadline_goes_on_over_the_end(tmp_path: Path) -> None:
    now, database = time.time(), opened(tmp_path)
    for tag, received in (("late", now - 600), ("early", now)):
        submission = task(tag, deadline_s=500.0)
        database.add(left(tag, submission, received), "lab", "", b"", encoded_submission(submission), 0.0)
    database.close()
    async with bench(tmp_path, engine=(engine := Fleet())) as (_, tasks):
        assert isinstance((await answered(tasks, "late")).error, errors.DeadlineExceeded)
        assert await text(tasks, "early") == Script("early").text()
    assert engine.began == ["early"]


async def test_who_may_be_taken_in_is_asked_again(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    own, gone = new_key(), new_key()
    for key in (own, gone):
        add_key(keys, record_of(key, tenant="lab"))
    callers = [KeyAccess(keys).caller(Presented(token=str(key))) for key in (own, gone)]
    async with bench(tmp_path, engine=Fleet(holds=True), slots=1) as (_, tasks):
        ids = [(await tasks.submit(task(each.id, each, hold_after=0)))[0] for each in (*callers, ANYBODY)]
    revoke_keys(keys, [gone.id])
    access = told_access(KeyAccess(keys), EventBus(Boundary()))
    async with bench(tmp_path, engine=(engine := Fleet()), access=access) as (_, tasks):
        for task_id in ids:
            await answered(tasks, task_id, OPERATOR)
        assert isinstance((await answered(tasks, ids[1], callers[0])).error, errors.Unauthenticated)
    assert sorted(engine.began) == sorted([own.id, ""])


async def test_a_task_that_ends_the_orchestrator_again_and_again_is_given_up(tmp_path: Path) -> None:
    async with bench(tmp_path, engine=Fleet(holds=True), slots=1) as (_, tasks):
        deadly, _ = await tasks.submit(task("deadly", hold_after=0))
        idle, _ = await tasks.submit(task("idle", hold_after=0))
    for end in ("in good order", *["by a signal"] * 3):
        database = opened(tmp_path)
        database.started(deadly)
        if end == "in good order":
            database.forgive_starts()
        database.close()
    async with bench(tmp_path, engine=(engine := Fleet()), max_starts=3) as (_, tasks):
        error = (await answered(tasks, deadly)).error
        assert "killed 3 times" in str(error)
        assert await text(tasks, idle) == Script("idle").text()
    assert engine.began == ["idle"]


async def test_a_folder_is_taken_over_once_the_process_that_has_it_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with AsyncExitStack() as first:
        _, tasks = await first.enter_async_context(bench(tmp_path, engine=Fleet(holds=True)))
        ended, _ = await tasks.submit(task())
        await answered(tasks, ended)
        left, _ = await tasks.submit(task("left", hold_after=0))
        async with bench(tmp_path) as (_, others):
            assert "another orchestrator has the background tasks" in caplog.text
            for refused in (others.submit(task()), others.get(ended, ANN), others.forget(ended, ANN)):
                with pytest.raises(errors.ShuttingDown) as refusal:
                    await refused
                assert refusal.value.retry_after
            await first.aclose()
            await polled(lambda: "the background tasks are taken over" in caplog.text, "the tasks are taken over")
            assert await text(others, ended) == Script("a").text()
            assert await others.get(left, ANN) is not None


# Requests that are sent again, and clients that go


async def test_a_request_that_is_sent_again_is_one_task(tmp_path: Path) -> None:
    async with bench(tmp_path) as (_, tasks):
        at_once = [tasks.submit(task(), "k", b"d") for _ in range(3)]
        taken = await asyncio.gather(*at_once)
        (task_id,) = {each for each, _ in taken}
        assert sorted(is_new for _, is_new in taken) == [False, False, True]
        await answered(tasks, task_id)
        other, _ = await tasks.submit(task(), "another", b"d")
        assert other != task_id
        differing = [tasks.submit(task(), "k", b"e"), tasks.submit(task(), "l", b"d"), tasks.submit(task(), "l", b"e")]
        results = await asyncio.gather(*differing, return_exceptions=True)
        assert [getattr(each, "status", 0) for each in results] == [422, 0, 422]
    async with bench(tmp_path) as (_, tasks):
        assert await tasks.submit(task(), "k", b"d") == (task_id, False)
        assert await tasks.forget(task_id, ANN)
        again, is_new = await tasks.submit(task(), "k", b"d")
        assert is_new
        assert again != task_id


async def test_the_key_of_a_failed_task_is_free_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as (_, tasks):
        failed, _ = await tasks.submit(task(fail_after=0), "k", b"d")
        await answered(tasks, failed)
        again, is_new = await tasks.submit(task(fail_after=0), "k", b"d")
        assert is_new
        await answered(tasks, again)
        assert (await answered(tasks, failed)).error is not None


async def test_a_client_that_goes_before_it_has_the_id_takes_its_task_back(tmp_path: Path) -> None:
    async with bench(tmp_path, engine=(engine := Fleet(holds=True))) as (served, tasks):
        for key in ("", "k"):
            going = asyncio.ensure_future(tasks.submit(task(f"go{key}", hold_after=0), key, b"d"))
            await asyncio.sleep(0)
            going.cancel()
            with pytest.raises(asyncio.CancelledError):
                await going
        await engine.recorder.until(lambda: engine.recorder.named("cancelled"), "the task is cancelled")
        task_id, is_new = await tasks.submit(task("gok", hold_after=0), "k", b"d")
        assert not is_new
        assert [each.task_id for each in served.orchestrator.tasks()] == [task_id]
    database = opened(tmp_path)
    assert [each.task_id for each in database.not_ended()] == [task_id]
    database.close()
