"""What is refused at once when tasks wait: a tenant's share, answers that are too long, deadlines that cannot be met;
and when those that are refused are told to come back."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.caller import Caller
from anywire.errors import DeadlineTooShort, InvalidRequest, NoAgent, QueueFull
from anywire.identity import hub_info
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline.tasks.model_queue import LEAST, LEAST_ANSWERS, LONGEST, STALE, TRIED_AGAIN, ModelQueue
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL, fifo, least_loaded
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

Make = Callable[..., Any]
SECOND = 1.0


def chat(orchestrator: Orchestrator, tenant: str = "", body: str = "{}", **fields: Any) -> str:
    fields = {"model": MODEL} | fields
    submission = Submission("chat", body=body, stream=True, caller=Caller(tenant, tenant), **fields)
    return orchestrator.submit(submission).task_id


def serve_one(wire: PuppetTransport, clock: SimulatedClock, took: float = SECOND) -> None:
    """The newest task that was sent is answered, so that the next one is sent."""
    clock.advance(took)
    wire.answer(wire.requests[-1][1])


async def one_slot(pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, **settings: Any) -> Any:
    """A pipeline that serves a task in a second, as it knows, with one task running and nobody waiting."""
    pipeline = await pipeline_of(wire, **settings)
    wire.join("a", slots=1, lease_ms=3_600_000)
    for _ in range(LEAST + 1):
        chat(pipeline)
    for _ in range(LEAST):
        serve_one(wire, clock)
    assert pipeline.waiting == 0
    return pipeline


# Shares of the queue


async def test_a_tenant_gets_its_share_of_the_queue_and_no_more(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, queue=10, tenant_queue_share=0.3)
    wire.join("a", slots=1)
    chat(pipeline, "greedy")
    waiting = [chat(pipeline, "greedy") for _ in range(3)]
    with pytest.raises(QueueFull, match=r"3 tasks of this tenant wait already.*tenant_queue_share"):
        chat(pipeline, "greedy")
    for _ in range(3):
        chat(pipeline, "other")
    pipeline.cancel(waiting[0])
    chat(pipeline, "greedy")
    with pytest.raises(QueueFull):
        chat(pipeline, "greedy")
    wire.answer(wire.requests[-1][1])
    chat(pipeline, "greedy")


async def test_a_share_is_of_the_queue_and_not_of_what_can_be_sent_at_once(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire, queue=10, tenant_queue_share=0.1)
    wire.join("a", slots=1)
    wire.join("b", slots=8, models=("other",))
    for _ in range(2):
        chat(pipeline, "t")
    with pytest.raises(QueueFull):
        chat(pipeline, "t")
    for _ in range(8):
        chat(pipeline, "t", model="other")
    with pytest.raises(QueueFull):
        chat(pipeline, "t", model="other")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["new", "serve", "cancel", "lose"])), max_size=60))
@settings(max_examples=examples(25))
async def test_what_waits_is_counted_exactly(steps: list[tuple[str, str]]) -> None:
    """Whatever happens to tasks, each tenant's count is that of its tasks that wait, and in the end nobody waits."""
    wire, clock = PuppetTransport(), SimulatedClock()
    pipeline = Orchestrator(hub_info("hub"), [wire], fifo(1000), least_loaded(), clock=clock)
    await pipeline.start()
    wire.join("x", slots=2, lease_ms=3_600_000)
    incarnation, answered = 1, 0
    for tenant, step in steps:
        if step == "new":
            chat(pipeline, tenant)
        elif step == "cancel" and (tasks := [each for each in pipeline.tasks() if each.caller.tenant == tenant]):
            pipeline.cancel(tasks[-1].task_id)
        elif step == "serve" and answered < len(wire.requests):
            wire.answer(wire.requests[answered][1])
            answered += 1
        elif step == "lose":
            wire.lose("x", incarnation=incarnation)
            incarnation += 1
            wire.join("x", slots=2, incarnation=incarnation, lease_ms=3_600_000)
        waits = Counter(each.caller.tenant for each in pipeline.tasks() if each.place != "running" and not each.attempt)
        assert pipeline._waiting.tenants == waits
        assert sum(queue.waiting for queue in pipeline._waiting._models.values()) == waits.total()
    for task in pipeline.tasks():
        pipeline.cancel(task.task_id)
    assert not pipeline._waiting.tenants
    await pipeline.close()


# Answers that are too long


async def test_an_answer_that_is_too_long_is_refused(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, max_tokens=100)
    wire.join("a")
    chat(pipeline, body='{"max_tokens": 100}')
    chat(pipeline)
    with pytest.raises(InvalidRequest, match=r"100 tokens \(pipeline.max_tokens\).*101") as refused:
        chat(pipeline, body='{"max_completion_tokens": 101}')
    assert refused.value.param == "max_tokens"


# Deadlines


async def test_a_deadline_that_cannot_be_met_is_refused_at_once_with_the_predicted_wait(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await one_slot(pipeline_of, wire, clock)
    for _ in range(4):
        chat(pipeline)
    with pytest.raises(DeadlineTooShort, match=r"wait some 5\.0 s .* take some 1\.0 s, .*deadline is 5 s") as refused:
        chat(pipeline, deadline_s=5.0)
    assert 1.0 < refused.value.retry_after <= 2.0 + SECOND
    chat(pipeline, deadline_s=6.0)
    assert pipeline.stats()["admission"]["refused"] == {"deadline_too_short": 1}


def test_a_short_answer_takes_its_part_of_the_time_of_those_before() -> None:
    queue = ModelQueue()
    for _ in range(LEAST_ANSWERS):
        assert queue.answer_time(0) == 0.0
        queue.answered(0.0, 4.0, 100)
    assert [queue.answer_time(most) for most in (0, 25, 100, 200)] == [4.0, 1.0, 4.0, 4.0]


def test_what_is_given_up_is_measured_as_far_as_it_ran_and_a_try_is_made_again() -> None:
    queue = ModelQueue()
    assert not queue.is_too_late(0.0, 0.1, 0)
    for _ in range(LEAST_ANSWERS):
        queue.given_up(0.0, 2.0)
    assert queue.answer_time(0) == 2.0
    queue.given_up(0.0, 1.0)
    assert queue.answer_time(0) == 2.0
    assert (queue.is_too_late(1.0, 1.9, 0), queue.is_too_late(1.0, 2.1, 0)) == (True, False)
    assert not queue.is_too_late(TRIED_AGAIN * 2.0, 1.9, 0)
    queue.answered(8.0, 1.0, 10)
    assert queue.answer_time(0) < 2.0


@pytest.mark.parametrize("early", [True, False])
async def test_a_task_that_has_waited_too_long_leaves_its_turn_to_one_that_can_be_answered(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, early: bool
) -> None:
    pipeline = await one_slot(pipeline_of, wire, clock, early_refusal=early)
    submission = Submission("chat", MODEL, "{}", True, deadline_s=3.0)
    late, other = pipeline.submit(submission), chat(pipeline)
    serve_one(wire, clock, 2.5)
    assert wire.requests[-1][1].task_id == (other if early else late.task_id)
    if early:
        with pytest.raises(DeadlineTooShort, match=r"would take some 1\.2 s, and 0\.5 s are left"):
            await read(late)
        assert pipeline.stats()["admission"]["refused"] == {"deadline_too_short": 1}


async def test_nothing_is_refused_early_where_nothing_is_measured(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a", slots=1)
    for _ in range(5):
        chat(pipeline, deadline_s=0.001)


async def test_early_refusal_can_be_left_out(pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline = await one_slot(pipeline_of, wire, clock, early_refusal=False)
    for _ in range(5):
        chat(pipeline, deadline_s=0.001)


async def test_a_task_that_can_be_sent_at_once_is_never_refused_early(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    """The queue is another model's."""
    pipeline = await one_slot(pipeline_of, wire, clock)
    chat(pipeline)
    wire.join("b", slots=2, models=("other",))
    chat(pipeline, body=f'{{"models": ["{MODEL}", "other"]}}', deadline_s=0.5)
    with pytest.raises(DeadlineTooShort):
        chat(pipeline, deadline_s=0.5)


async def test_the_error_of_predictions_is_counted(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await one_slot(pipeline_of, wire, clock)
    chat(pipeline)  # nobody waits: nothing is predicted
    chat(pipeline)  # 2 s
    chat(pipeline)  # 3 s
    serve_one(wire, clock)
    serve_one(wire, clock, 2.0)
    serve_one(wire, clock, 3.0)
    told = pipeline.stats()["admission"]
    assert told["wait_predictions"] == 2
    # They waited 3 and 6 seconds.
    assert told["wait_error_s"] == pytest.approx(1.0 + 3.0)
    assert told["wait_bias_s"] == pytest.approx(4.0)


def test_the_interval_is_measured_while_tasks_wait() -> None:
    queue, now = ModelQueue(), 0.0
    for _ in range(LEAST - 1):
        queue.entered(now, 0)
        now += 2.0
        queue.left(now, 0, sent=True)
        now += 100.0  # nobody waits
    assert queue.wait_of_next(0) is None
    queue.entered(now, 0)
    queue.left(now + 2.0, 0, sent=True)
    assert queue.wait_of_next(0) == pytest.approx(2.0)
    assert queue.wait_of_next(4) == pytest.approx(10.0)
    queue.entered(now + 2.0 + STALE + 1, 0)
    assert queue.wait_of_next(0) is None


def test_tasks_that_leave_unsent_say_nothing_of_the_pace() -> None:
    queue = ModelQueue()
    for _ in range(LEAST):
        queue.entered(0.0, 0)
    for _ in range(LEAST - 1):
        queue.left(0.001, 0, sent=False)
    assert queue.measured == 0
    queue.left(3.0, 0, sent=True)
    assert queue.interval == pytest.approx(3.0)


def test_where_the_scheduler_goes_by_priority_only_those_not_below_are_ahead() -> None:
    queue = ModelQueue()
    for priority in (0, 0, 0, 5, 9):
        queue.entered(0.0, priority)
    assert [queue.ahead(each, by_priority=True) for each in (-1, 0, 5, 6, 10)] == [5, 5, 2, 1, 0]
    assert queue.ahead(9, by_priority=False) == 5


# When to come back


def test_those_that_are_refused_are_told_to_come_back_one_after_the_other() -> None:
    queue, rng = ModelQueue(), random.Random(1)
    for _ in range(LEAST + 1):
        queue.entered(0.0, 0)
    for number in range(LEAST):
        queue.left((number + 1) * 0.1, 0, sent=True)
    told = [queue.come_back(0.8, 4, rng) for _ in range(200)]
    bins = Counter(int(each) for each in told)
    assert max(told) <= 20.0
    assert all(9 <= bins[second] <= 11 for second in range(20))


def test_where_too_many_are_refused_they_come_back_at_random_within_the_longest_wait() -> None:
    queue, rng = ModelQueue(), random.Random(1)
    told = [queue.come_back(0.0, 1, rng) for _ in range(3000)]
    bins = Counter(int(each) for each in told)
    assert 0 < min(told) < max(told) <= LONGEST
    assert max(bins.values()) < 3 * len(told) / LONGEST
    assert min(bins[second] for second in range(int(LONGEST))) > len(told) / LONGEST / 3


async def test_a_full_queue_tells_when_to_come_back(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await one_slot(pipeline_of, wire, clock, queue=LEAST + 1)
    for _ in range(LEAST + 1):
        chat(pipeline)
    waits = []
    for _ in range(3):
        with pytest.raises(QueueFull) as refused:
            chat(pipeline)
        waits.append(refused.value.retry_after)
    assert [int(each) for each in waits] == [0, 1, 2]


async def test_a_full_queue_that_nobody_can_make_shorter_is_no_matter_of_coming_back(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire, queue=1)
    wire.join("a", state="draining")
    chat(pipeline)
    with pytest.raises(NoAgent, match=r"every agent with the model .* is draining"):
        chat(pipeline)
    wire.join("b", state="starting")
    with pytest.raises(QueueFull):
        chat(pipeline)
