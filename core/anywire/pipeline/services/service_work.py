"""What a service does for one task: answer it, or be asked before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from typing import Protocol

from anywire import errors
from anywire.boundary import Boundary, label
from anywire.clock import Clock, Timer
from anywire.engine import Delta
from anywire.errors import AnywireError
from anywire.messages import Chunk
from anywire.pipeline.tasks.task import Task
from anywire.pipeline_settings import PipelineConfig
from anywire.service import Answered, Service
from anywire.task_stream import TaskStream

PATIENCE = 5.0
"""Seconds after which it is noted that an answer has not ended after its cancel."""


class ServiceSink(Protocol):
    """The pipeline, as it is told how tasks with services go on."""

    def service_answered(self, task: Task, final: Chunk) -> None:
        """End a task with this final chunk."""
        ...

    def release(self, task: Task) -> None:
        """Queue a held task: no service answers it."""
        ...

    def fail_task(self, task: Task, error: AnywireError) -> None: ...
    def reader_stalled(self, task: Task) -> None: ...
    def end_child(self, task_id: str, reason: str) -> None:
        """Cancel a task whose parent has ended without an answer, if it has not ended itself."""
        ...


class Owner(Protocol):
    """Who has this work done."""

    sink: ServiceSink
    boundary: Boundary
    clock: Clock
    config: PipelineConfig

    def done(self, task: Task) -> None:
        """Nothing is done for this task any more."""
        ...


class Answer:
    """One task that a service answers: its deltas to the reader, no faster than that one reads."""

    def __init__(self, owner: Owner, task: Task, service: Service) -> None:
        self._owner, self._task, self._service = owner, task, service
        self.runner: asyncio.Task[None] | None = None
        self._stopped = False
        self._room: asyncio.Future[None] | None = None
        self._seq = 0

    def was_read(self, stream: TaskStream, chunks: int) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def stop(self) -> None:
        self._stopped = True
        if self.runner is not None:
            self.runner.cancel()
            self._owner.clock.call_later(PATIENCE, self._note_running)

    async def run(self) -> None:
        owner, task = self._owner, self._task
        task.stream.stages.engine_started = owner.clock.now_ns()
        try:
            final = await self._deliver()
        except AnywireError as error:
            self._end()
            owner.sink.fail_task(task, error)
        except Exception as error:
            self._end()
            owner.boundary.failed(task.why, "answer", error, task.task_id)
            # Its own words are for the log: they may name tasks of other clients.
            owner.sink.fail_task(task, errors.PluginFailed(f"the {task.why} failed: it raised {type(error).__name__}"))
        except asyncio.CancelledError:
            if self._stopped:
                return
            self._end()
            owner.sink.fail_task(task, errors.PluginFailed(f"the {task.why} failed: what it waited for was cancelled"))
        else:
            if not self._stopped:
                self._end()
                owner.sink.service_answered(task, final)

    async def _deliver(self) -> Chunk:
        """Push what comes, and return the final chunk."""
        task, stages = self._task, self._task.stream.stages
        streaming = task.submission.stream
        held: list[str] = []
        extra = usage = finish = ""
        deltas = self._service.answer(task.task_id, task.submission)
        try:
            async for delta in deltas:
                _check(delta)
                stages.first_chunk = stages.first_chunk or self._owner.clock.now_ns()
                usage, finish = delta.usage or usage, delta.finish_reason or finish
                if not streaming:
                    held.append(delta.text)
                    extra = delta.extra or extra
                elif delta.text or delta.extra:
                    await self._wait_for_room()
                    task.stream.push(Chunk("", task.task_id, 0, self._seq, (delta.text,), delta.extra))
                    self._seq += 1
                    task.chunks += 1
                await asyncio.sleep(0)
        finally:
            if isinstance(deltas, AsyncGenerator):
                await deltas.aclose()
        stages.last_chunk = self._owner.clock.now_ns()
        texts = () if streaming else ("".join(held),)
        task.chunks += 1
        return Chunk("", task.task_id, 0, self._seq, texts, extra, True, finish or "stop", usage)

    async def _wait_for_room(self) -> None:
        owner = self._owner
        while self._task.stream.waiting >= owner.config.window:
            self._room = asyncio.get_running_loop().create_future()
            stalled = owner.clock.call_later(owner.config.reader_timeout, owner.sink.reader_stalled, self._task)
            try:
                await self._room
            finally:
                stalled.cancel()

    def _end(self) -> None:
        self._owner.done(self._task)

    def _note_running(self) -> None:
        if self.runner is not None and not self.runner.done():
            self._owner.boundary.failed(self._task.why, "answer", "does not end after a cancel", self._task.task_id)
            self.runner.cancel()


class Asked:
    """One held task, and the services that are still to be asked about it, one after the other: before it goes to the
    queue, or in place of ``error``, with which it ends when none has an answer."""

    def __init__(
        self, owner: Owner, task: Task, services: tuple[Service, ...], error: AnywireError | None = None
    ) -> None:
        self._owner, self._task, self._left, self._error = owner, task, list(services), error
        self._call = "before" if error is None else "after_failure"
        self._asking: asyncio.Task[Answered | None] | None = None
        self._timer: Timer | None = None

    def ask(self) -> None:
        """Ask the next service; when there is none, release the task, or fail it."""
        if not self._left:
            self._owner.done(self._task)
            if self._error is None:
                self._owner.sink.release(self._task)
            else:
                self._owner.sink.fail_task(self._task, self._error)
            return
        service = self._left.pop(0)
        self._task.why = name = label("service", service)
        timeout = service.before_timeout if self._error is None else service.after_failure_timeout
        asked = _asked(service, self._task, self._error)
        self._asking = asking = asyncio.get_running_loop().create_task(asked)
        self._timer = self._owner.clock.call_later(timeout, self._late, asking, name)
        asking.add_done_callback(partial(self._told, name))

    def stop(self) -> None:
        asking, self._asking = self._asking, None
        if self._timer is not None:
            self._timer.cancel()
        if asking is not None:
            asking.cancel()

    def _late(self, asking: asyncio.Task[Answered | None], name: str) -> None:
        if asking is self._asking:
            self.stop()
            self._owner.boundary.failed(name, self._call, f"took longer than its {self._call}_timeout",
                                        self._task.task_id)  # fmt: skip
            self.ask()

    def _told(self, name: str, asking: asyncio.Task[Answered | None]) -> None:
        if asking is not self._asking:
            if not asking.cancelled():
                asking.exception()  # stopped, or too late: what it raises interests nobody any more
            return
        self.stop()
        task = self._task
        answer: tuple[Delta, ...] = ()
        try:
            answer = _deltas(asking.result())
        except (Exception, asyncio.CancelledError) as error:
            self._owner.boundary.failed(name, self._call, error, task.task_id)
        if not answer:
            self.ask()
            return
        self._owner.done(task)
        if self._error is not None:
            task.stream.notes = {**task.stream.notes, "fallback": name.removeprefix("service ")}
        self._owner.sink.service_answered(task, _delivered(task, answer))


async def _asked(service: Service, task: Task, error: AnywireError | None) -> Answered | None:
    if error is None:
        return await service.before(task.task_id, task.submission)
    return await service.after_failure(task.task_id, task.submission, error)


def _deltas(answer: object) -> tuple[Delta, ...]:
    """The deltas of an answer, none for None. Raises TypeError for what is no answer."""
    deltas = () if answer is None else answer if isinstance(answer, tuple) else (answer,)
    for each in deltas:
        _check(each)
    if answer is not None and not deltas:
        raise TypeError("gave an answer without any delta")
    return deltas


def _delivered(task: Task, answer: tuple[Delta, ...]) -> Chunk:
    """Give a stream's reader all but the last of the deltas, and return the final chunk."""
    usage = next((each.usage for each in reversed(answer) if each.usage), "")
    finish = next((each.finish_reason for each in reversed(answer) if each.finish_reason), "stop")
    *earlier, last = answer
    if not task.submission.stream:
        text = "".join([each.text for each in answer])
        extra = next((each.extra for each in reversed(answer) if each.extra), "")
        task.chunks += 1
        return Chunk("", task.task_id, 0, 0, (text,), extra, True, finish, usage)
    for seq, each in enumerate(earlier):
        task.stream.push(Chunk("", task.task_id, 0, seq, (each.text,), each.extra))
    task.chunks += len(answer)
    return Chunk("", task.task_id, 0, len(earlier), (last.text,), last.extra, True, finish, usage)


def _check(delta: object) -> None:
    """Raises TypeError for what is no `Delta` of texts."""
    if not isinstance(delta, Delta) or not all(
        isinstance(text, str) for text in (delta.text, delta.extra, delta.finish_reason, delta.usage)
    ):
        raise TypeError(f"gave {str(delta)[:80]!r}, which is no Delta of texts")
