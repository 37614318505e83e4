"""One attempt on an agent: from the engine's deltas to chunks on the wire, within the reader's credit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import aclosing
from types import coroutine
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from anywire.boundary import Boundary
from anywire.caller import Caller
from anywire.clock import Clock
from anywire.engine import Delta, Engine, EngineProgress
from anywire.errors import AnywireError, Congested, EngineFailed, TaskCancelled, TransportError, to_wire
from anywire.messages import Chunk, Progress, TaskRequest
from anywire.pipeline.fleet.claims import MAX_COUNT, MAX_DETAIL
from anywire.pipeline.queue.waiting_send import FIRST_PAUSE, LONGEST_PAUSE
from anywire.roles.engine_output import checked, is_plain
from anywire.transport import Reply

log = logging.getLogger(__name__)
_T = TypeVar("_T")

MAX_DELTAS = 32
"""So many deltas at most travel in one chunk, and an engine that never waits lets others run after so many."""


@runtime_checkable
class RunsForCallers(Protocol):
    """An engine that has a pipeline behind it: it is told whose each task is."""

    def run_for(self, task: TaskRequest, caller: Caller) -> AsyncGenerator[Delta | EngineProgress, None]:
        """In place of `Engine.run`."""
        ...


RunFor = Callable[[TaskRequest, Caller], AsyncGenerator[Delta | EngineProgress, None]]


def run_for(engine: Engine) -> RunFor:
    """How tasks are run on ``engine``; found out once, and not for each task."""
    if isinstance(engine, RunsForCallers):
        return engine.run_for
    return lambda task, caller: engine.run(task)


@coroutine
def _telling(work: Coroutine[Any, Any, _T], waits: Callable[[], None]) -> Generator[Any, Any, _T]:
    """Await ``work``; ``waits`` is called each time before it waits for something."""
    step: Callable[[Any], Any] = work.send
    given: Any = None
    try:
        while True:
            awaited = step(given)
            waits()
            try:
                given = yield awaited
                step = work.send
            except BaseException as error:
                step, given = work.throw, error
    except StopIteration as ended:
        return cast("_T", ended.value)
    finally:
        # An error that leaves through here must not be kept by this frame, which it refers to.
        awaited = given = None


class Run:
    """Runs one `TaskRequest` on an engine and sends what comes.

    What the engine yields without waiting in between travels together, and is sent as soon as it waits: nothing is held
    back by a timer or by a turn of the event loop. With no credit left the engine is not iterated. What the engine
    raises, or yields against its contract, is its failure, and this task's end. ``run`` is `run_for` of the engine.
    """

    def __init__(
        self,
        task: TaskRequest,
        caller: Caller,
        reply: Reply,
        link: int,
        engine: Engine,
        run: RunFor,
        clock: Clock,
        boundary: Boundary,
    ) -> None:
        self.task, self.caller, self.reply, self.link = task, caller, reply, link
        self.runner: asyncio.Task[None] | None = None
        self.cancelled = ""
        """Why it was asked to stop; empty while it was not."""
        self.ending: AnywireError | None = None
        """The error with which it ends once it was asked to stop; None: that it was cancelled."""
        self.ended = False
        """Whether its slot is free."""
        self.turn: asyncio.Future[None] | None = None
        """Done once a run that waits for a slot may begin, or is to stop; None for one that does not wait."""
        self._engine, self._run, self._clock, self._boundary = engine, run, clock, boundary
        self._received_ns = clock.now_ns()
        self._started_ns = self._first_ns = self._last_ns = 0
        self._credit = task.credit
        self._more_credit: asyncio.Future[None] | None = None
        self._pending: list[str] = []
        self._seq = 0
        self._told_accepted = False
        self._draining: asyncio.Future[None] | None = None
        self._fruitless = 0
        self._progress: tuple[str, str] = ("", "")
        self._resumable: bool | None = None
        self._fault: AnywireError | None = None
        self._attempts_used = 0

    @property
    def name(self) -> str:
        return self.task.task_id

    def credit(self, chunks: int) -> None:
        self._credit = min(self._credit + chunks, MAX_COUNT)
        if self._more_credit is not None and not self._more_credit.done():
            self._more_credit.set_result(None)

    def cancel(self, reason: str) -> None:
        """Ask the engine to stop; `answer` returns once its generator has ended. May be called again."""
        self.cancelled = self.cancelled or reason or "cancelled"
        if self.turn is not None and not self.turn.done():
            self.turn.set_result(None)
        # A runner that has not begun sees the flag; cancelled before its first step it would never run.
        if self._started_ns and self.runner is not None:
            self.runner.cancel()

    def tell_accepted(self) -> None:
        """Say that this agent has the attempt, unless a chunk has said so already."""
        if self._seq or self._told_accepted or self.cancelled:
            return
        self._told_accepted = True
        try:
            self.reply.send(self._chunk(()))
        except Congested:
            self._told_accepted = False
        except AnywireError as error:
            log.debug("acceptance of task %s not sent: %s", self.task.task_id, error)
        except Exception as error:
            self._boundary.failed("transport", "send", error, self.task.task_id)

    async def answer(self) -> Chunk:
        """Run the engine to its end; return the final chunk, which the caller sends once the slot is free."""
        self._started_ns = self._clock.now_ns()
        if self.cancelled:
            return self._stopped()
        try:
            final = await (_telling(self._stream(), self._flush) if self.task.stream else self._unary())
        except AnywireError as error:
            if error.blames in ("agent", "model"):
                log.warning("task %s failed: %s: %s", self.task.task_id, error.code, error)
            final = self._final(error=to_wire(error))
        except asyncio.CancelledError:
            if self.cancelled or self._fault is not None:
                final = self._final(error=to_wire(self._fault)) if self._fault is not None else self._stopped()
            elif self.runner is not None and not self.runner.cancelling():
                # Nobody cancelled this: something that the engine awaits was, and that is its failure.
                final = self._failed("CancelledError: what it waited for was cancelled")
            else:
                raise
        except Exception as error:
            final = self._failed(error)
        if (self.cancelled or self._fault is not None) and self.runner is not None:
            while self.runner.uncancel():
                pass
        if self._draining is not None:
            self._draining.cancel()
        return self._stopped() if self.cancelled else final

    def _failed(self, error: Exception | str) -> Chunk:
        self._boundary.failed(f"engine {self._engine.name}", "run", error, self.task.task_id)
        what = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        return self._final(error=to_wire(EngineFailed(f"the engine {self._engine.name} failed: {what}")))

    def _stopped(self) -> Chunk:
        return self._final(error=to_wire(self.ending or TaskCancelled(self.cancelled)))

    def tell_progress(self, progress: EngineProgress) -> None:
        """Send what is done for this task, where the request asks for it: best effort. What is waited for before the
        engine runs it (a slot, a model that loads) is no time of the engine's work."""
        task = self.task
        if progress.state == "running" and not self._first_ns:
            self._started_ns = self._clock.now_ns()
        if not task.progress or (progress.state, progress.detail) == self._progress:
            return
        self._progress = (progress.state, progress.detail)
        try:
            detail = str(progress.detail)[:MAX_DETAIL]
            self.reply.send(Progress(task.hub_id, task.task_id, task.attempt, progress.state, detail))
        except AnywireError as error:
            log.debug("progress of task %s not sent: %s", task.task_id, error)
        except Exception as error:
            self._boundary.failed("transport", "send", error, task.task_id)

    async def _unary(self) -> Chunk:
        texts: list[str] = []
        extra = usage = finish = ""
        came = 0
        async with aclosing(self._run(self.task, self.caller)) as deltas:
            async for delta in deltas:
                if self.cancelled:
                    break
                if type(delta) is EngineProgress:
                    self.tell_progress(delta)
                    continue
                if not is_plain(delta):
                    delta = checked(delta, self._engine.name, self._boundary, self.task.task_id)
                if not self._first_ns:
                    self._first_ns = self._clock.now_ns()
                if delta.text:
                    texts.append(delta.text)
                extra, usage, finish = delta.extra or extra, delta.usage or usage, delta.finish_reason or finish
                if delta.attempts_used:
                    self._attempts_used = delta.attempts_used
                came += 1
                if came % MAX_DELTAS == 0:
                    await asyncio.sleep(0)
        self._last_ns = self._clock.now_ns()
        return self._final(("".join(texts),), extra=extra, usage=usage, finish=finish)

    async def _stream(self) -> Chunk:
        usage = finish = ""
        empty = 0
        async with aclosing(self._run(self.task, self.caller)) as deltas:
            async for delta in deltas:
                if self.cancelled:
                    break
                if type(delta) is EngineProgress:
                    self.tell_progress(delta)
                    continue
                if not is_plain(delta):
                    delta = checked(delta, self._engine.name, self._boundary, self.task.task_id)
                if not self._first_ns:
                    self._first_ns = self._clock.now_ns()
                usage, finish = delta.usage or usage, delta.finish_reason or finish
                if delta.attempts_used:
                    self._attempts_used = delta.attempts_used
                if delta.extra:
                    await self._send_pending()
                    await self._send_extra(delta)
                elif delta.parts:
                    await self._add(delta.parts)
                elif delta.text:
                    self._pending.append(delta.text)
                else:
                    empty += 1
                    if empty % MAX_DELTAS == 0:
                        await asyncio.sleep(0)
                if self._credit - bool(self._pending) <= 0 or len(self._pending) >= MAX_DELTAS:
                    await self._make_room()
        self._last_ns = self._clock.now_ns()
        texts, self._pending = tuple(self._pending), []
        return self._final(texts, usage=usage, finish=finish)

    async def _add(self, parts: Sequence[str]) -> None:
        """Let tokens that came together wait to be sent, as many at a time as may travel together."""
        pending, at = self._pending, 0
        while at < len(parts):
            room = MAX_DELTAS - len(pending)
            pending += filter(None, parts[at : at + room])
            at += room
            if len(pending) >= MAX_DELTAS:
                await self._make_room()

    async def _make_room(self) -> None:
        """Send what waits, once there is credit for it, and wait until there is credit for more."""
        if len(self._pending) >= MAX_DELTAS:
            await asyncio.sleep(0)
        await self._send_pending()
        await self._wait_for_credit()

    def _flush(self) -> None:
        """Send what waits, now: called when the runner waits, as a rule for its engine, and when there is room again.
        Where that fails, the runner is cancelled, once: its engine cleans up then."""
        has_failed = self._fault is not None
        if self._pending and not has_failed and (self._draining is None or self._draining.done()):
            self._send_texts()
            if self._fault is not None and self.runner is not None:
                self.runner.cancel()

    def _send_texts(self) -> None:
        """Nothing else takes from ``_pending``."""
        if not self._pending or self._credit <= 0 or self.runner is None or self.runner.done() or self.cancelled:
            return
        chunk = self._chunk(tuple(self._pending))
        try:
            self.reply.send(chunk)
        except Congested:
            self._retry_when_drained()
        except Exception as error:
            if not isinstance(error, AnywireError):
                self._boundary.failed("transport", "send", error, self.task.task_id)
            self._fault = error if isinstance(error, AnywireError) else TransportError(f"not sent: {error}")
        else:
            self._pending.clear()
            self._sent(chunk)

    def _retry_when_drained(self) -> None:
        if self._draining is None or self._draining.done():
            self._draining = asyncio.ensure_future(self._drain())
            self._draining.add_done_callback(lambda _: self._flush())

    async def _drain(self) -> None:
        """Wait for room after the transport had none."""
        self._fruitless += 1
        try:
            await self.reply.drain()
        except Exception as error:
            self._boundary.failed("transport", "drain", error, self.task.task_id)
        if self._fruitless > 1:
            # There was none for the first chunk after it: without a pause this would go round and round.
            await self._clock.sleep(min(FIRST_PAUSE * 2**self._fruitless, LONGEST_PAUSE))

    async def _send_pending(self) -> None:
        while self._pending:
            await self._wait_for_credit()
            await (self._draining if self._draining is not None else self.reply.drain())
            self._send_texts()
            if self._fault is not None:
                raise self._fault

    async def _send_extra(self, delta: Delta) -> None:
        while True:
            await self._wait_for_credit()
            await self.reply.drain()
            chunk = self._chunk((delta.text,), delta.extra)
            try:
                self.reply.send(chunk)
            except Congested:
                await self._drain()
                continue
            self._sent(chunk)
            return

    async def _wait_for_credit(self) -> None:
        while self._credit <= 0:
            self._more_credit = asyncio.get_running_loop().create_future()
            await self._more_credit

    def _chunk(self, texts: tuple[str, ...], extra: str = "") -> Chunk:
        task = self.task
        if self._seq or not texts:
            return Chunk(task.hub_id, task.task_id, task.attempt, self._seq, texts, extra)
        return Chunk(task.hub_id, task.task_id, task.attempt, 0, texts, extra, resumable=self._can_resume())

    def _can_resume(self) -> bool:
        """Whether the engine says that this answer can be resumed; asked once, for the first chunk."""
        if self._resumable is None:
            name = f"engine {self._engine.name}"
            call = self._engine.resumable
            found = self._boundary.call(name, "resumable", call, self.task, otherwise=False, task_id=self.task.task_id)
            self._resumable = found is True
        return self._resumable

    def _sent(self, chunk: Chunk) -> None:
        self._seq += len(chunk.deltas)
        self._credit -= 1
        if self._fruitless or self._draining is not None:
            self._fruitless = 0
            self._draining = None

    def _final(
        self, texts: tuple[str, ...] = (), *, extra: str = "", usage: str = "", finish: str = "", error: str = ""
    ) -> Chunk:
        task = self.task
        return Chunk(
            task.hub_id,
            task.task_id,
            task.attempt,
            self._seq,
            texts,
            extra,
            True,
            finish,
            usage,
            error,
            self._received_ns,
            self._started_ns,
            self._first_ns,
            self._last_ns,
            attempts_used=self._attempts_used,
        )
