"""Preemption: streams of low priority that give their slot to urgent tasks, and go on later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pydantic
import pytest
from anywire_schedulers.attained_service import AttainedService
from anywire_schedulers.edf import Edf
from anywire_schedulers.fair import Fair
from anywire_schedulers.priority import Priority, PriorityConfig
from anywire_schedulers.wspt import Wspt

from anywire import errors, events
from anywire.builtin.fifo import Fifo
from anywire.failure_settings import PreemptionConfig
from anywire.messages import AgentStatus
from anywire.offers import Offer, offers_text
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.scheduler import Scheduler
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

Make = Callable[..., Any]
RESUMES = ("chat", "resume")
ON: dict[str, Any] = {"preemption": {"urgent": 5}}
TOOLS = '{"tools":[{"type":"function"}]}'


def ask(
    pipeline: Orchestrator, priority: int = 0, stream: bool = True, model: str = MODEL, body: str = "{}", **more: Any
) -> TaskStream:
    return pipeline.submit(Submission("chat", model, body, stream, priority, **more))


def offer(wire: PuppetTransport, agent_id: str, *offered: Offer, slots: int = 1) -> None:
    wire.join(agent_id, capabilities=RESUMES, slots=0)
    wire.sink.agent_reported(agent_id, 1, AgentStatus(agent_id, 1, "ready", offers_text(offered), slots))


def sent(wire: PuppetTransport) -> list[str]:
    """The tasks of the attempts so far."""
    return [request.task_id for _, request in wire.requests]


def cancelled(wire: PuppetTransport) -> list[str]:
    return [cancel.task_id for cancel in wire.cancels()]


def preemptions(pipeline: Orchestrator) -> int:
    number: int = pipeline.stats()["events"].get("preemptions", 0)
    return number


@pytest.mark.parametrize("scheduler", [Fifo, Priority, Edf, Fair, AttainedService, Wspt])
async def test_a_stream_gives_its_slot_once_it_has_ended_there_and_goes_on(
    pipeline_of: Make, wire: PuppetTransport, scheduler: type[Scheduler]
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, scheduler=scheduler(scheduler.Config()), **ON)
    told: list[Any] = []
    pipeline.events.subscribe("test", told.append, events.TaskPreempted, events.TaskEnded, events.AttemptEnded)
    wire.join("a", slots=1, capabilities=RESUMES)
    low = ask(pipeline)
    first = wire.requests[0][1]
    wire.chunk(first, 0, "one ")
    waits = [ask(pipeline) for _ in range(3)]
    urgent = ask(pipeline, 5)
    assert cancelled(wire) == [low.task_id]
    assert sent(wire) == [low.task_id]
    wire.chunk(first, 1, "late ")
    wire.stop(first)
    assert sent(wire) == [low.task_id, urgent.task_id]
    for task in waits:
        task.cancel("enough")
    wire.answer(wire.requests[1][1])
    agent_id, again = wire.requests[2]
    assert (agent_id, again.task_id, again.attempt, again.resume) == ("a", low.task_id, 2, "one ")
    assert again.attempts_left == first.attempts_left
    wire.chunk(again, 0, "late ")
    wire.chunk(again, 1, "two", final=True)
    assert (await read(low), await read(urgent)) == ("one late two", "answer")
    assert (low.attempts, low.spent) == (2, 1)
    counts = pipeline.stats()["events"]
    assert (counts["preemptions"], counts.get("retries", 0), counts.get("repeated", 0)) == (1, 0, 0)
    assert pipeline.health.all_ok
    of_low = [each for each in told if each.task_id == low.task_id]
    assert [type(each) for each in of_low] == [
        events.TaskPreempted,
        events.AttemptEnded,
        events.AttemptEnded,
        events.TaskEnded,
    ]
    assert (of_low[0].attempt, of_low[0].times, of_low[1].error, of_low[3].attempts) == (1, 1, "cancelled", 2)


async def test_without_the_setting_nobody_gives_a_slot(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire)
    wire.join("a", slots=1, capabilities=RESUMES)
    low, urgent = ask(pipeline), ask(pipeline, 100)
    assert cancelled(wire) == []
    assert urgent.ignored == ("priority",)
    low.cancel("enough")
    urgent.cancel("enough")


async def test_a_priority_is_not_ignored_where_it_takes_slots(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ON)
    wire.join("a")
    assert ask(pipeline, 5).ignored == ()


async def test_a_stream_that_has_shown_nothing_begins_again(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ON)
    wire.join("a", slots=1)
    low, urgent = ask(pipeline), ask(pipeline, 5)
    wire.stop(wire.requests[0][1])
    wire.answer(wire.requests[1][1])
    again = wire.requests[2][1]
    assert (again.task_id, again.resume) == (low.task_id, "")
    wire.answer(again, "whole")
    assert (await read(low), await read(urgent)) == ("whole", "answer")


async def test_who_cannot_go_on_keeps_its_slot(pipeline_of: Make, wire: PuppetTransport) -> None:
    """A unary answer, of which nobody knows how much was done; a stream that cannot be resumed; one whose priority is
    not low; and one of a kind that is not sent again."""
    pipeline: Orchestrator = await pipeline_of(wire, retries={"repeat": ["completion"]}, **ON)
    wire.join("a", slots=1, capabilities=RESUMES)
    low = ask(pipeline)
    wire.chunk(wire.requests[0][1], 0, "one ")
    first = ask(pipeline, 5)
    assert cancelled(wire) == []
    low.cancel("enough")
    first.cancel("enough")

    pipeline = await pipeline_of(other := PuppetTransport("other"), **ON)
    other.join("a", slots=4, capabilities=("chat",))
    keeping = [ask(pipeline, stream=False), ask(pipeline), ask(pipeline, 1), ask(pipeline, 5)]
    other.chunk(other.requests[1][1], 0, "shown")
    urgent = ask(pipeline, 5)
    assert cancelled(other) == []
    other.answer(other.requests[0][1])
    assert sent(other)[-1] == urgent.task_id
    for task in (*keeping, urgent):
        task.cancel("enough")


async def test_a_stream_gives_its_slot_so_often_at_most(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, preemption={"urgent": 5, "most": 2})
    wire.join("a", slots=1, capabilities=RESUMES)
    low = ask(pipeline)
    for number in range(2):
        running = wire.requests[-1][1]
        wire.chunk(running, 0, f"{number} ")
        ask(pipeline, 5)
        wire.stop(running)
        wire.answer(wire.requests[-1][1])
    last = wire.requests[-1][1]
    assert (last.task_id, last.attempt, last.resume) == (low.task_id, 3, "0 1 ")
    late = ask(pipeline, 5)
    assert preemptions(pipeline) == 2
    wire.answer(last, "2")
    assert await read(low) == "0 1 2"
    assert sent(wire)[-1] == late.task_id


async def test_the_lowest_and_least_shown_gives_and_an_avoided_agent_is_left_alone(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ON)
    for agent_id in ("a", "b", "c"):
        wire.join(agent_id, slots=1, capabilities=RESUMES)
    lower, shown, blank = ask(pipeline, -1), ask(pipeline), ask(pipeline)
    wire.chunk(wire.requests[1][1], 0, "text")
    receivers = {request.task_id: agent_id for agent_id, request in wire.requests}
    asking = [ask(pipeline, 5, avoid=(receivers[blank.task_id],)), ask(pipeline, 5), ask(pipeline, 5)]
    assert cancelled(wire) == [lower.task_id, blank.task_id, shown.task_id]
    assert len(set(asking)) == 3
    assert ask(pipeline, 5) is not None
    assert len(cancelled(wire)) == 3


async def test_of_two_urgent_tasks_and_one_stream_the_other_one_gets_what_the_first_does_not_need(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ON)
    wire.join("a", slots=1, capabilities=RESUMES)
    low, first, second = ask(pipeline), ask(pipeline, 5), ask(pipeline, 5)
    assert cancelled(wire) == [low.task_id]
    first.cancel("not needed")
    wire.stop(wire.requests[0][1])
    assert sent(wire) == [low.task_id, second.task_id]
    wire.answer(wire.requests[1][1])
    wire.answer(wire.requests[2][1], "low")
    assert await read(low) == "low"
    assert preemptions(pipeline) == 1


async def test_a_slot_that_nobody_needs_any_more_is_the_streams_again(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ON)
    wire.join("a", slots=1, capabilities=RESUMES)
    low, urgent = ask(pipeline), ask(pipeline, 5)
    wire.chunk(wire.requests[0][1], 0, "dropped")
    urgent.cancel("not needed")
    wire.stop(wire.requests[0][1])
    assert sent(wire) == [low.task_id] * 2
    wire.answer(wire.requests[1][1], "low")
    assert await read(low) == "low"


async def test_an_urgent_task_that_got_another_slot_leaves_the_one_that_was_given(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, scheduler=Priority(PriorityConfig()), **ON)
    wire.join("a", slots=1, capabilities=RESUMES)
    low, urgent = ask(pipeline), ask(pipeline, 5)
    wire.join("b", slots=1, capabilities=RESUMES)
    assert sent(wire) == [low.task_id, urgent.task_id]
    wire.stop(wire.requests[0][1])
    assert (wire.requests[2][0], wire.requests[2][1].task_id) == ("a", low.task_id)
    assert preemptions(pipeline) == 1


async def test_a_stream_that_ends_by_itself_just_then_is_shown_whole(pipeline_of: Make, wire: PuppetTransport) -> None:
    """Its last piece crosses the cancel: it is not shown, and asked for again."""
    pipeline: Orchestrator = await pipeline_of(wire, **ON)
    wire.join("a", slots=1, capabilities=RESUMES)
    low = ask(pipeline)
    first = wire.requests[0][1]
    wire.chunk(first, 0, "one ")
    urgent = ask(pipeline, 5)
    wire.chunk(first, 1, "two", final=True)
    assert sent(wire) == [low.task_id, urgent.task_id]
    wire.answer(wire.requests[1][1])
    again = wire.requests[2][1]
    assert again.resume == "one "
    wire.chunk(again, 0, "two", final=True)
    assert await read(low) == "one two"


async def test_a_stream_whose_client_leaves_just_then_leaves_its_slot_to_the_urgent_task(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ON)
    wire.join("a", slots=1, capabilities=RESUMES)
    low, _, urgent = ask(pipeline), ask(pipeline), ask(pipeline, 5)
    low.cancel("enough")
    wire.stop(wire.requests[0][1])
    assert sent(wire) == [low.task_id, urgent.task_id]


async def test_where_the_agent_is_lost_just_then_another_stream_gives_its_slot(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, scheduler=Priority(PriorityConfig()), **ON)
    wire.join("a", slots=2, capabilities=RESUMES)
    wire.join("b", slots=1, capabilities=RESUMES)
    lows = [ask(pipeline) for _ in range(3)]
    receivers = {request.task_id: agent_id for agent_id, request in wire.requests}
    on_b = next(task for task in lows if receivers[task.task_id] == "b")
    for _, request in wire.requests:
        if request.task_id == on_b.task_id:
            wire.chunk(request, 0, "shown ")
    urgent = ask(pipeline, 5)
    (given,) = cancelled(wire)
    assert receivers[given] == "a"
    wire.lose("a")
    assert cancelled(wire)[-1] == on_b.task_id
    wire.stop(next(request for _, request in wire.requests if request.task_id == on_b.task_id))
    assert sent(wire)[-1] == urgent.task_id
    wire.join("c", slots=3, capabilities=RESUMES)
    wire.answer(wire.requests[3][1])
    again = {request.task_id: request for _, request in wire.requests[4:]}
    assert set(again) == {task.task_id for task in lows}
    assert again[given].attempts_left == again[on_b.task_id].attempts_left == 3
    assert preemptions(pipeline) == 2


async def test_no_slot_is_given_where_one_is_free(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ON)
    wire.join("a", slots=2, capabilities=RESUMES)
    ask(pipeline)
    urgent = ask(pipeline, 5)
    assert sent(wire)[-1] == urgent.task_id
    assert cancelled(wire) == []


@pytest.mark.parametrize(
    "busy",
    [
        Offer("other"),
        Offer(MODEL, kinds=("completion",)),
        Offer(MODEL, features={"tools": False}),
        Offer(MODEL, state="starting"),
    ],
    ids=["model", "kind", "features", "state"],
)
async def test_only_a_slot_that_would_do_is_taken(pipeline_of: Make, wire: PuppetTransport, busy: Offer) -> None:
    """The urgent task waits for an agent that has no slots: whom it could not use anyway loses nothing."""
    pipeline: Orchestrator = await pipeline_of(wire, **ON)
    offer(wire, "full", Offer(MODEL), slots=0)
    offer(wire, "a", Offer("low"), busy)
    ask(pipeline, model="low")
    assert len(sent(wire)) == 1
    waiting = ask(pipeline, 5, body=TOOLS)
    assert cancelled(wire) == []
    waiting.cancel("enough")
    offer(wire, "b", Offer("low"), Offer(MODEL))
    low = ask(pipeline, model="low")
    ask(pipeline, 5, body=TOOLS)
    assert wire.requests[1][0] == "b"
    assert cancelled(wire) == [low.task_id]


@pytest.mark.parametrize("how", ["draining", "isolated", "drained"])
async def test_nothing_is_taken_of_an_agent_that_gets_no_further_task(
    pipeline_of: Make, wire: PuppetTransport, how: Any
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ON)
    offer(wire, "full", Offer(MODEL), slots=0)
    wire.join("a", slots=1, capabilities=RESUMES)
    ask(pipeline)
    if how == "draining":
        wire.report("a", slots=1, state="draining")
    else:
        pipeline.order_agent("a", how)
    before = len(cancelled(wire))
    ask(pipeline, 5)
    assert len(cancelled(wire)) == before
    assert preemptions(pipeline) == 0


async def test_an_urgent_task_whose_agent_is_lost_takes_a_slot_again(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ON)
    wire.join("a", slots=1, capabilities=RESUMES)
    urgent = ask(pipeline, 5)
    wire.join("b", slots=1, capabilities=RESUMES)
    low = ask(pipeline)
    wire.chunk(wire.requests[0][1], 0, "urgent ")
    wire.chunk(wire.requests[1][1], 0, "low ")
    wire.lose("a")
    assert cancelled(wire)[-1] == low.task_id
    wire.stop(wire.requests[1][1])
    assert (wire.requests[2][1].task_id, wire.requests[2][1].resume) == (urgent.task_id, "urgent ")


async def test_hooks_have_their_say_about_the_slot(pipeline_of: Make, wire: PuppetTransport) -> None:
    class Hook:
        from anywire.hookspecs import hookimpl

        @hookimpl
        def anywire_filter_candidates(self, task: Any, candidates: Any) -> Any:
            return [] if task.priority >= 5 else None

    plugins = Plugins()
    plugins.manager.register(Hook())
    pipeline: Orchestrator = await pipeline_of(wire, plugins=plugins, **ON)
    wire.join("a", slots=1, capabilities=RESUMES)
    low = ask(pipeline)
    urgent = ask(pipeline, 5)
    wire.stop(wire.requests[0][1])
    assert sent(wire) == [low.task_id] * 2
    assert urgent.task_id in {task.task_id for task in pipeline._dispatcher.waiting_tasks()}


async def test_a_long_wait_of_others_does_not_keep_an_urgent_task_out(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ON)
    wire.join("a", slots=1, capabilities=RESUMES)
    for _ in range(20):
        ask(pipeline)
    for _ in range(10):
        wire.accept(wire.requests[-1][1])
        clock.advance(5)
        wire.answer(wire.requests[-1][1])
    with pytest.raises(errors.DeadlineTooShort):
        ask(pipeline, deadline_s=2.0)
    urgent = ask(pipeline, 5, deadline_s=2.0)
    wire.stop(wire.requests[-1][1])
    assert sent(wire)[-1] == urgent.task_id


@pytest.mark.parametrize(("urgent", "below"), [(0, 0), (5, 5), (1, 2)])
def test_who_gives_must_be_lower_than_who_takes(urgent: int, below: int) -> None:
    with pytest.raises(pydantic.ValidationError, match="below must be lower"):
        PreemptionConfig(urgent=urgent, below=below)
    assert PreemptionConfig(below=below).urgent is None


async def test_an_agent_that_does_not_stop_keeps_no_urgent_task_waiting(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ON)
    for agent_id in ("mute", "good"):
        wire.join(agent_id, capabilities=RESUMES, slots=1, lease_ms=500)
    first, second = ask(pipeline), ask(pipeline)
    wire.chunk(wire.requests[0][1], 0, "one ")
    wire.chunk(wire.requests[1][1], 0, "one ")
    wire.chunk(wire.requests[1][1], 1, "two ")
    urgent = ask(pipeline, 5)
    assert cancelled(wire) == [first.task_id]
    clock.advance(0.9)
    assert cancelled(wire) == [first.task_id], "it has two leases"
    clock.advance(0.2)
    assert cancelled(wire) == [first.task_id, second.task_id]
    wire.stop(wire.requests[1][1])
    assert wire.requests[-1][0] == "good"
    assert sent(wire)[2:] == [urgent.task_id]
    wire.chunk(wire.requests[2][1], 0, "now ")
    clock.advance(5)
    assert preemptions(pipeline) == 2
    # Late as it is, the slot is still for who is urgent.
    another = ask(pipeline, 5)
    wire.stop(wire.requests[0][1])
    assert sent(wire)[3:] == [another.task_id]
    await pipeline.close()
    assert not clock.pending
