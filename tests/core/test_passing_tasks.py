"""A task that need not wait its turn is not queued, where the scheduler lets it pass; nothing else is different."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from anywire import errors
from anywire.builtin.fifo import Fifo
from anywire.events import TaskAdmitted
from anywire.messages import TaskRequest
from anywire.scheduler import QueuedTask, Ready, SchedulerConfig
from anywire.selector import AgentView, Candidates, Selector, SelectorConfig
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.doubles import MODEL
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

Make = Callable[..., Any]


class _Asked(Fifo):
    """Notes what it is asked."""

    lets_pass: ClassVar[bool] = True

    def __init__(self, size: int = 1000) -> None:
        super().__init__(SchedulerConfig(max_queue_size=size))
        self.calls: list[str] = []

    def put(self, task: QueuedTask) -> None:
        self.calls.append("put")
        super().put(task)

    def put_back(self, task: QueuedTask) -> None:
        self.calls.append("put_back")
        super().put_back(task)

    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        self.calls.append("take")
        return super().take(ready, now_ns)


class _SaysNothing(_Asked):
    """Extends one that lets tasks pass, and does not say it for itself."""


class _Holds(Selector):
    """Chooses nobody as long as ``holds``."""

    name: ClassVar[str] = "holds"

    def __init__(self) -> None:
        super().__init__(SelectorConfig())
        self.holds = True

    def select(self, task: QueuedTask, candidates: Candidates) -> AgentView | None:
        return None if self.holds else next(candidates.by_load())


def chat(pipeline: Any, **settings: Any) -> TaskStream:
    stream: TaskStream = pipeline.submit(Submission("chat", MODEL, "{}", **settings))
    return stream


def tasks_sent(wire: PuppetTransport) -> list[str]:
    return [request.task_id for _, request in wire.requests]


async def test_it_is_not_put_while_nobody_waits(pipeline_of: Make, wire: PuppetTransport) -> None:
    scheduler = _Asked()
    pipeline = await pipeline_of(wire, scheduler=scheduler)
    wire.join("a", slots=1)
    first = chat(pipeline)
    assert (len(wire.requests), scheduler.calls) == (1, [])
    second, third = chat(pipeline), chat(pipeline)
    assert (len(wire.requests), len(scheduler)) == (1, 2)
    for stream in (first, second, third):
        wire.answer(wire.requests[-1][1], stream.task_id)
        assert await read(stream) == stream.task_id
    assert tasks_sent(wire) == [first.task_id, second.task_id, third.task_id]
    assert scheduler.calls.count("put") == 2
    chat(pipeline)
    assert (len(wire.requests), scheduler.calls.count("put")) == (4, 2)


async def test_each_class_says_it_for_itself(pipeline_of: Make, wire: PuppetTransport) -> None:
    scheduler = _SaysNothing()
    pipeline = await pipeline_of(wire, scheduler=scheduler)
    wire.join("a")
    chat(pipeline)
    assert (len(wire.requests), scheduler.calls) == (1, ["put", "take"])


async def test_nobody_passes_those_who_wait(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, scheduler=_Asked())
    wire.join("a", slots=1, models=("one",))
    wire.join("b", slots=1, models=("other",))
    waits = [pipeline.submit(Submission("chat", "one", "{}")) for _ in range(3)]
    other = pipeline.submit(Submission("chat", "other", "{}"))
    assert tasks_sent(wire) == [waits[0].task_id, other.task_id]
    wire.answer(wire.requests[0][1])
    assert tasks_sent(wire) == [waits[0].task_id, other.task_id, waits[1].task_id]


async def test_what_is_held_by_the_selector_is_put_back_and_sent_later(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    selector, scheduler = _Holds(), _Asked()
    pipeline = await pipeline_of(wire, selector=selector, scheduler=scheduler)
    wire.join("a")
    held, given_up = chat(pipeline), chat(pipeline)
    assert not wire.requests
    assert [task.place for task in pipeline.tasks()] == ["held", "held"]
    given_up.cancel("not wanted")
    selector.holds = False
    wire.join("b")
    assert tasks_sent(wire) == [held.task_id]
    assert len(scheduler) == 0
    with pytest.raises(errors.TaskCancelled):
        await given_up.result()


async def test_who_is_told_of_it_may_still_end_it(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, scheduler=_Asked())
    wire.join("a")
    stop = pipeline.events.subscribe("test", lambda event: pipeline.cancel(event.task_id), TaskAdmitted)
    stream = chat(pipeline)
    with pytest.raises(errors.TaskCancelled):
        await stream.result()
    assert not wire.requests
    stop()
    chat(pipeline)
    assert len(wire.requests) == 1


async def test_who_is_told_of_it_may_send_others_which_come_after_it(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, scheduler=_Asked())
    wire.join("a")
    made: list[TaskStream] = []

    def answer(event: TaskAdmitted) -> None:
        if len(made) < 3:
            made.append(chat(pipeline))

    pipeline.events.subscribe("test", answer, TaskAdmitted)
    first = chat(pipeline)
    assert tasks_sent(wire)[0] == first.task_id
    assert sorted(tasks_sent(wire)[1:]) == sorted(each.task_id for each in made)


async def test_an_answer_within_the_send_lets_what_waits_go_on(pipeline_of: Make) -> None:
    class _Quick(PuppetTransport):
        """Answers before ``send`` returns, after another task was submitted."""

        more: list[TaskStream]

        def send(self, agent_id: str, message: Any) -> None:
            super().send(agent_id, message)
            if isinstance(message, TaskRequest):
                if len(self.more) < 3:
                    self.more.append(chat(pipeline))
                self.answer(message, message.task_id)

    wire = _Quick()
    wire.more = []
    pipeline = await pipeline_of(wire, scheduler=_Asked())
    wire.join("a", slots=1)
    first = chat(pipeline)
    for stream in (first, *wire.more):
        assert await read(stream) == stream.task_id
    assert len(wire.more) == 3
