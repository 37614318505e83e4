"""Tasks that are sent again: what the budget pays for, what is said when it does not, pauses, trees, and who failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from anywire import errors, events
from anywire.caller import Caller
from anywire.failure_settings import BreakerConfig, RetryConfig
from anywire.identity import hub_info
from anywire.messages import AgentInfo, TaskRequest
from anywire.pipeline.attempts.decide import Decision, Requeue, Resume, Retry
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import PipelineConfig
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL, fifo, least_loaded
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

Make = Callable[..., Any]

NO_BUDGET = {"share": 0, "floor": 0}
USED_UP = rf"; not sent again: the budget for retries of {MODEL} is used up \(pipeline\.retries\)$"


def chat(pipeline: Orchestrator, *, stream: bool = True, tenant: str = "", **more: Any) -> Any:
    caller = Caller("key", tenant)
    return pipeline.submit(Submission("chat", MODEL, "{}", stream, caller=caller, **more))


def fail(wire: PuppetTransport, request: TaskRequest, error: errors.AnywireError | None = None, used: int = 0) -> None:
    """Let the agent that has the attempt end it with an error."""
    failure = error or errors.EngineFailed("broken", status=500)
    wire.sink.chunk_received(*wire.receiver(request), wire.final(request, failure, attempts_used=used))


def counts(pipeline: Orchestrator, *names: str) -> tuple[int, ...]:
    told = pipeline.stats()["events"]
    return tuple(told.get(name, 0) for name in names)


def told(pipeline: Orchestrator, *kinds: type[events.Event]) -> list[Any]:
    found: list[Any] = []
    pipeline.events.subscribe("test", found.append, *kinds)
    return found


async def ended(stream: Any) -> errors.AnywireError:
    with pytest.raises(errors.AnywireError) as caught:
        await read(stream)
    return caught.value


# The budget


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_says_that_the_budget_is_used_up_after_what_failed(
    pipeline_of: Make, wire: PuppetTransport, stream: bool
) -> None:
    pipeline = await pipeline_of(wire, retries=NO_BUDGET)
    wire.join("a")
    wire.join("b")
    asked = chat(pipeline, stream=stream)
    agent_id = wire.requests[0][0]
    wire.lose(agent_id, reason="it crashed")
    error = await ended(asked)
    with pytest.raises(errors.AgentLost, match=rf"^agent {agent_id} was lost .*: it crashed{USED_UP}"):
        raise error
    assert error.exhausted
    assert len(wire.requests) == 1
    assert counts(pipeline, "retries", "retries_denied") == (0, 1)


async def test_models_and_tenants_do_not_use_up_each_others_budget(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, retries={"share": 0, "floor": 1, "base": 0})
    wire.join("a", models=(MODEL, "other"))
    wire.join("b", models=(MODEL, "other"))

    async def retried(tenant: str, model: str) -> bool:
        before = len(wire.requests)
        asked = pipeline.submit(Submission("chat", model, "{}", False, caller=Caller("key", tenant)))
        fail(wire, wire.requests[-1][1])
        again = len(wire.requests) - before - 1
        if again:
            wire.answer(wire.requests[-1][1])
            await read(asked)
        else:
            assert "is used up" in str(await ended(asked))
        return bool(again)

    assert [await retried("x", MODEL), await retried("x", MODEL)] == [True, False]
    assert [await retried("y", MODEL), await retried("y", MODEL)] == [True, False]
    assert [await retried("x", "other"), await retried("x", "other")] == [True, False]


async def test_the_budget_is_there_again_when_its_window_is_over(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, retries={"share": 0, "floor": 1, "base": 0, "window": 10}, breaker={"errors": 0})
    wire.join("a")
    wire.join("b")
    for seconds, attempts in ((0, 2), (5, 1), (10, 2)):
        clock.advance(seconds)
        before = len(wire.requests)
        asked = chat(pipeline)
        fail(wire, wire.requests[-1][1])
        assert len(wire.requests) - before == attempts
        if attempts == 2:
            fail(wire, wire.requests[-1][1])
        await ended(asked)


async def test_retries_of_hundreds_stay_within_share_and_floor(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    """Every engine answers 500, and all at once."""
    pipeline = await pipeline_of(
        wire, retries={"share": 0.2, "floor": 20, "base": 0.05}, breaker={"errors": 0}, max_attempts=5
    )
    for agent_id in ("a", "b", "c"):
        wire.join(agent_id, slots=1000)
    asked = [chat(pipeline, stream=number % 2 == 0) for number in range(400)]
    answered = 0
    while answered < len(wire.requests):
        for _, request in wire.requests[answered:]:
            answered += 1
            fail(wire, request)
        clock.advance(2.0)
    assert {(await ended(each)).code for each in asked} == {"engine_failed"}
    retries, denied = counts(pipeline, "retries", "retries_denied")
    assert len(wire.requests) == 400 + retries
    assert 80 <= retries <= 100
    assert denied > 0


async def test_streams_of_a_lost_agent_go_on_whatever_the_budget(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, retries=NO_BUDGET)
    able = ("chat", "resume")
    wire.join("a", capabilities=able, slots=64)
    asked = [chat(pipeline) for _ in range(40)]
    for _, request in wire.requests:
        wire.chunk(request, 0, "one ")
    wire.join("b", capabilities=able, slots=64)
    wire.lose("a")
    for _, request in wire.requests[40:]:
        wire.chunk(request, 0, "two", final=True)
    assert [await read(each) for each in asked] == ["one two"] * 40
    assert counts(pipeline, "resumes", "retries", "retries_denied") == (40, 0, 0)


@pytest.mark.parametrize(("floor", "told"), [(0, 1), (1, 3)])
async def test_an_engine_is_told_that_it_may_send_a_request_again_while_the_budget_pays_for_that(
    pipeline_of: Make, wire: PuppetTransport, floor: int, told: int
) -> None:
    pipeline = await pipeline_of(wire, retries={"share": 0, "floor": floor})
    wire.join("a")
    chat(pipeline)
    assert wire.requests[0][1].attempts_left == told


async def test_refused_tasks_cost_nothing(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, retries=NO_BUDGET, max_attempts=1)
    wire.join("a")
    wire.join("b")
    asked = chat(pipeline)
    fail(wire, wire.requests[0][1], errors.Refused("full"))
    wire.answer(wire.requests[1][1])
    assert await read(asked) == "answer"
    assert counts(pipeline, "retries", "refused") == (0, 1)


async def test_a_decision_that_the_budget_does_not_pay_for_is_not_carried_out(
    wire: PuppetTransport, clock: SimulatedClock
) -> None:
    config = PipelineConfig(retries=RetryConfig(share=0, floor=0))
    pipeline = Orchestrator(
        hub_info(), [wire], fifo(), least_loaded(), config=config, clock=clock, decide=lambda *_: Retry()
    )
    await pipeline.start()
    wire.join("a")
    wire.join("b")
    asked = chat(pipeline)
    fail(wire, wire.requests[0][1])
    assert "is used up" in str(await ended(asked))
    assert len(wire.requests) == 1
    assert pipeline.stats()["plugin_failures"] == {"decide.<lambda>": 1}
    await pipeline.close()


@pytest.mark.parametrize("decision", [Requeue(), Retry(), Resume()], ids=str)
@pytest.mark.parametrize("shown", [False, True], ids=["nothing shown", "text shown"])
async def test_a_decision_that_never_ends_is_bounded_by_the_attempts_of_a_task(
    wire: PuppetTransport, clock: SimulatedClock, decision: Decision, shown: bool
) -> None:
    config = PipelineConfig(max_attempts=4, breaker=BreakerConfig(errors=0))
    pipeline = Orchestrator(
        hub_info(), [wire], fifo(), least_loaded(), config=config, clock=clock, decide=lambda *_: decision
    )
    await pipeline.start()
    wire.join("a", capabilities=("chat", "resume"))
    wire.join("b", capabilities=("chat", "resume"))
    asked = chat(pipeline)
    if shown:
        wire.chunk(wire.requests[0][1], 0, "one ")
    for _ in range(9):
        fail(wire, wire.requests[-1][1])
        clock.advance(1)
    error = await ended(asked)
    assert error.code == "engine_failed"
    assert len(wire.requests) <= 4
    assert pipeline.stats()["plugin_failures"]["decide.<lambda>"] > 0
    await pipeline.close()


async def test_a_refusal_may_be_queued_again_by_any_decision(wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline = Orchestrator(hub_info(), [wire], fifo(), least_loaded(), clock=clock, decide=lambda *_: Requeue())
    await pipeline.start()
    wire.join("a")
    wire.join("b")
    asked = chat(pipeline)
    fail(wire, wire.requests[0][1], errors.Refused("full"))
    wire.answer(wire.requests[1][1])
    assert await read(asked) == "answer"
    assert pipeline.stats()["plugin_failures"] == {}
    await pipeline.close()


# What may have been executed


@pytest.mark.parametrize(("phase", "sent"), [("not_sent", 2), ("maybe_sent", 1)])
async def test_what_may_have_been_executed_is_sent_again_only_where_its_kind_allows_it(
    pipeline_of: Make, wire: PuppetTransport, phase: errors.Phase, sent: int
) -> None:
    pipeline = await pipeline_of(wire, retries={"base": 0, "repeat": ["embedding"]})
    wire.join("a")
    wire.join("b")
    asked = chat(pipeline)
    agent_id, request = wire.requests[0]
    wire.sink.send_failed(agent_id, 1, request.task_id, 1, errors.AgentLost("gone", phase=phase))
    assert len(wire.requests) == sent
    if sent == 1:
        assert (await ended(asked)).code == "agent_lost"
    assert counts(pipeline, "retries", "repeated") == (sent - 1, 0)


async def test_what_may_have_been_executed_is_counted(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    wire.join("b")
    chat(pipeline)
    wire.lose(wire.requests[0][0])
    assert counts(pipeline, "retries", "repeated") == (1, 1)
    wire.join("c")
    fail(wire, wire.requests[1][1], errors.EngineFailed("busy", status=503))
    assert counts(pipeline, "retries", "repeated") == (2, 1), "who has too much to do has done nothing"


# Pauses


async def test_a_lost_agents_task_goes_at_once_where_another_one_is_free(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire, retries={"base": 1000, "longest": 1000})
    for agent_id in ("a", "b", "c"):
        wire.join(agent_id)
    requeued = told(pipeline, events.TaskRequeued)
    chat(pipeline)
    wire.lose(wire.requests[0][0])
    assert len(wire.requests) == 2
    wire.lose(wire.requests[1][0])
    assert len(wire.requests) == 2
    assert requeued[0].after_ms == 0 < requeued[1].after_ms


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_a_short_retry_after_is_waited_for(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, status: int
) -> None:
    pipeline = await pipeline_of(wire, retries={"base": 0, "longest": 2}, breaker={"errors": 0})
    wire.join("a")
    asked = chat(pipeline)
    fail(wire, wire.requests[0][1], errors.EngineFailed("busy", status=status, retry_after=1.5))
    clock.advance(1.49)
    assert len(wire.requests) == 1
    clock.advance(0.02)
    assert len(wire.requests) == 2
    wire.answer(wire.requests[1][1])
    assert await read(asked) == "answer"


async def test_a_failed_task_waits_for_an_agent_that_is_well_and_busy(pipeline_of: Make, wire: PuppetTransport) -> None:
    """However free the one is that has failed: the next attempt would fail there too."""
    pipeline = await pipeline_of(wire, retries={"base": 0})
    wire.join("well", slots=1)
    first = chat(pipeline)
    wire.join("ill", slots=8)
    second = chat(pipeline)
    assert [agent_id for agent_id, _ in wire.requests] == ["well", "ill"]
    fail(wire, wire.requests[1][1])
    assert len(wire.requests) == 2
    wire.answer(wire.requests[0][1])
    assert await read(first) == "answer"
    assert wire.requests[2][0] == "well"
    wire.answer(wire.requests[2][1])
    assert await read(second) == "answer"


async def test_a_long_retry_after_is_passed_on(pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline = await pipeline_of(wire, retries={"base": 0, "longest": 2})
    wire.join("a")
    for deadline, asked_for in ((600.0, 2.5), (1.0, 1.5)):
        asked = chat(pipeline, deadline_s=deadline)
        fail(wire, wire.requests[-1][1], errors.EngineFailed("busy", status=429, retry_after=asked_for))
        error = await ended(asked)
        assert (error.status, error.retry_after, error.exhausted) == (429, asked_for, False)
        clock.advance(10)
    assert len(wire.requests) == 2


async def test_another_agent_is_asked_at_once_for_one_that_has_too_much_to_do(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    wire.join("b")
    asked = chat(pipeline)
    fail(wire, wire.requests[0][1], errors.EngineFailed("busy", status=429, retry_after=30))
    assert len(wire.requests) == 2
    wire.answer(wire.requests[1][1])
    assert await read(asked) == "answer"


# What clients are told


async def test_a_client_may_try_again_what_one_agent_alone_has_failed_and_the_budget_pays_for_that(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire, retries={"share": 0, "floor": 2}, breaker={"errors": 0})
    wire.join("a")
    may = []
    for _ in range(5):
        asked = chat(pipeline)
        fail(wire, wire.requests[-1][1])
        may.append(not (await ended(asked)).exhausted)
    assert may == [True, True, False, False, False]


async def test_after_the_last_attempt_or_several_a_client_is_told_not_to_try_again(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire, breaker={"errors": 0})
    wire.join("a")
    asked = chat(pipeline, attempts_left=1)
    fail(wire, wire.requests[-1][1])
    assert (await ended(asked)).exhausted
    wire.join("b")
    asked = chat(pipeline)
    fail(wire, wire.requests[-1][1])
    fail(wire, wire.requests[-1][1])
    assert (await ended(asked)).exhausted
    asked = chat(pipeline)
    fail(wire, wire.requests[-1][1], errors.InvalidRequest("no", status=400))
    assert not (await ended(asked)).exhausted


# Trees


def child(wire: PuppetTransport, name: str = "child") -> None:
    wire.join(name, slots=1000, info=AgentInfo(name, 1, engine="orchestrator", capabilities=("chat",)))


async def test_what_a_child_may_spend_is_kept_back_for_it(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, retries={"share": 0, "floor": 5, "base": 0}, breaker={"errors": 0})
    child(wire)
    asked = [chat(pipeline) for _ in range(6)]
    assert [request.attempts_left for _, request in wire.requests] == [3, 3, 2, 1, 1, 1]
    for (_, request), used in zip(wire.requests, (1, 3, 2, 1, 1, 1), strict=True):
        wire.sink.chunk_received("child", 1, final(wire, request, used))
    for each in asked:
        await read(each)
    chat(pipeline)
    assert wire.requests[-1][1].attempts_left == 3, "two of five are left: three were made"
    chat(pipeline)
    assert wire.requests[-1][1].attempts_left == 1


def final(wire: PuppetTransport, request: TaskRequest, used: int) -> Any:
    """The whole answer, of which a child says how many attempts it took."""
    failed = wire.final(request, errors.EngineFailed(""), attempts_used=used)
    return msgspec.structs.replace(failed, deltas=("answer",), error="")


async def test_what_a_child_keeps_is_given_back_however_its_attempt_ends(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, retries={"share": 0, "floor": 2, "base": 0}, breaker={"errors": 0})

    def left() -> int:
        asked = chat(pipeline)
        _, request = wire.requests[-1]
        asked.cancel("enough")
        wire.stop(request)
        return request.attempts_left - 1

    child(wire)
    assert left() == 2
    assert left() == 2, "a cancelled one has given it back"
    chat(pipeline, deadline_s=1.0)
    clock.advance(1.5)
    fail(wire, wire.requests[-1][1], errors.TaskCancelled("stopped"), used=2)
    assert left() == 1, "one that came too late says what it has spent"
    wire.fail_next = errors.Congested("full")
    chat(pipeline).cancel("enough")
    for _ in range(10):
        await asyncio.sleep(0)  # there is room again
    assert left() == 1
    chat(pipeline)
    wire.lose("child")
    child(wire)
    assert counts(pipeline, "retries") == (1,)
    assert left() == 0


async def test_a_child_is_taken_at_its_word_only_within_what_it_was_told(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire, retries={"share": 0, "floor": 4, "base": 0})
    child(wire)
    asked = chat(pipeline)
    wire.sink.chunk_received("child", 1, final(wire, wire.requests[0][1], 1_000_000))
    assert await read(asked) == "answer"
    assert asked.attempts == 3
    chat(pipeline)
    assert wire.requests[-1][1].attempts_left == 3


async def test_a_child_that_was_allowed_too_little_gets_the_task_again(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire, retries={"share": 0, "floor": 2, "base": 0}, breaker={"errors": 0})
    child(wire)
    first, second = chat(pipeline), chat(pipeline)
    assert [request.attempts_left for _, request in wire.requests] == [3, 1]
    wire.answer(wire.requests[0][1])
    assert await read(first) == "answer"
    fail(wire, wire.requests[1][1])
    assert len(wire.requests) == 3
    fail(wire, wire.requests[2][1], used=wire.requests[2][1].attempts_left)
    assert (await ended(second)).code == "engine_failed"
    assert len(wire.requests) == 3, "it had all that is left"


async def test_a_child_s_own_garbage_counts_against_it(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, breaker={"errors": 1})
    child(wire)
    asked = chat(pipeline)
    request = wire.requests[0][1]
    wire.chunk(request, 0, final=True, error="{no json")
    assert (await ended(asked)).origin == "agent"
    assert pipeline.agents()[0].failed == 1
    assert pipeline.agent_health("child").state == "open"


# Who failed


@pytest.mark.parametrize(
    ("error", "origin"),
    [
        (errors.EngineFailed("broken"), "engine"),
        (errors.EngineFailed("of the orchestrator below", origin="pipeline"), "pipeline"),
        (errors.AgentLost("said by a child"), "transport"),
        (errors.InvalidRequest("no"), "client"),
        (errors.InvalidRequest("no", origin="engine"), "engine"),
        (errors.StreamCorrupted("gap"), "agent"),
    ],
)
async def test_events_say_who_failed(
    pipeline_of: Make, wire: PuppetTransport, error: errors.AnywireError, origin: str
) -> None:
    pipeline = await pipeline_of(wire)
    found = told(pipeline, events.AttemptEnded, events.TaskEnded)
    wire.join("a")
    asked = chat(pipeline)
    fail(wire, wire.requests[0][1], error)
    assert (await ended(asked)).origin == origin
    assert [(type(each), each.error, each.origin) for each in found] == [
        (events.AttemptEnded, error.code, origin),
        (events.TaskEnded, error.code, origin),
    ]


async def test_an_answer_was_nobodys_failure_and_what_the_pipeline_ends_is_its_own(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire)
    found = told(pipeline, events.AttemptEnded, events.TaskEnded)
    wire.join("a")
    chat(pipeline)
    wire.answer(wire.requests[0][1])
    chat(pipeline, deadline_s=1.0)
    clock.advance(1.5)
    wire.stop(wire.requests[1][1])
    chat(pipeline).cancel("enough")
    wire.stop(wire.requests[2][1])
    wire.lose("a")
    assert [(type(each).__name__, each.error, each.origin) for each in found] == [
        ("AttemptEnded", "", ""),
        ("TaskEnded", "", ""),
        ("TaskEnded", "deadline_exceeded", "pipeline"),
        ("AttemptEnded", "cancelled", "pipeline"),
        ("TaskEnded", "cancelled", "client"),
        ("AttemptEnded", "cancelled", "pipeline"),
    ]


def test_every_error_says_all_that_is_said_of_it() -> None:
    for code, cls in errors.BY_CODE.items():
        if cls is errors.AnywireError:
            continue
        assert cls.__doc__, code
        assert "remedy" in vars(cls), code
        assert cls.arises in ("client", "pipeline", "transport", "agent", "engine")
        if cls.again:
            assert cls.arises not in ("client", "pipeline"), f"{code}: who sends it again may blame others alone"
