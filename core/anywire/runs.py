"""One attempt on an agent: from the engine's deltas to chunks on the wire, within the reader's credit."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

from anywire.clock import Clock
from anywire.engine import Delta, Engine
from anywire.errors import AnywireError, Congested, EngineFailed, to_wire
from anywire.messages import Chunk, TaskRequest
from anywire.transport import Reply

log = logging.getLogger(__name__)

MAX_DELTAS = 32
"""So many deltas at most travel in one chunk, and an engine that never waits lets others run after so many."""


class Run:
    """Runs one `TaskRequest` on an engine and sends what comes.

    Deltas are sent when the event loop comes round: those an engine yields without waiting in between travel
    together, and none is held back by a timer. With no credit left the engine is not iterated.
    """

    def __init__(self, task: TaskRequest, reply: Reply, link: int, engine: Engine, clock: Clock) -> None:
        self.task, self.reply, self.link = task, reply, link
        self.runner: asyncio.Task[None] | None = None
        self._engine, self._clock = engine, clock
        self._received_ns = clock.now_ns()
        self._started_ns = self._first_ns = self._last_ns = 0
        self._credit = task.credit
        self._more_credit: asyncio.Future[None] | None = None
        self._pending: list[str] = []
        self._seq = 0
        self._flush_scheduled = False
        self._draining: asyncio.Future[None] | None = None
        self._fault: AnywireError | None = None

    def credit(self, chunks: int) -> None:
        self._credit += chunks
        if self._more_credit is not None and not self._more_credit.done():
            self._more_credit.set_result(None)

    async def answer(self) -> Chunk:
        """Run the engine; return the final chunk, which the caller sends once the slot is free."""
        self._started_ns = self._clock.now_ns()
        try:
            return await (self._stream() if self.task.stream else self._unary())
        except AnywireError as error:
            return self._final(error=to_wire(error))
        except asyncio.CancelledError:
            if self._fault is None or self.runner is None:
                raise
            self.runner.uncancel()
            return self._final(error=to_wire(self._fault))
        except Exception as error:
            log.exception("engine %s failed on task %s", self._engine.name, self.task.task_id)
            failure = EngineFailed(f"the engine {self._engine.name} failed: {type(error).__name__}: {error}")
            return self._final(error=to_wire(failure))

    async def _unary(self) -> Chunk:
        texts: list[str] = []
        extra = usage = finish = ""
        async with aclosing(self._engine.run(self.task)) as deltas:
            async for delta in deltas:
                if not self._first_ns:
                    self._first_ns = self._clock.now_ns()
                if delta.text:
                    texts.append(delta.text)
                extra, usage, finish = delta.extra or extra, delta.usage or usage, delta.finish_reason or finish
                if len(texts) % MAX_DELTAS == MAX_DELTAS - 1:
                    await asyncio.sleep(0)
        self._last_ns = self._clock.now_ns()
        return self._final(("".join(texts),), extra=extra, usage=usage, finish=finish)

    async def _stream(self) -> Chunk:
        usage = finish = ""
        loop = asyncio.get_running_loop()
        async with aclosing(self._engine.run(self.task)) as deltas:
            async for delta in deltas:
                if not self._first_ns:
                    self._first_ns = self._clock.now_ns()
                usage, finish = delta.usage or usage, delta.finish_reason or finish
                if delta.extra:
                    await self._send_pending()
                    await self._send_extra(delta)
                elif delta.text:
                    self._pending.append(delta.text)
                    if not self._flush_scheduled:
                        self._flush_scheduled = True
                        loop.call_soon(self._flush)
                if len(self._pending) >= MAX_DELTAS:
                    await asyncio.sleep(0)
                if self._credit - bool(self._pending) <= 0 or len(self._pending) >= MAX_DELTAS:
                    await self._send_pending()
                    await self._wait_for_credit()
        self._last_ns = self._clock.now_ns()
        texts, self._pending = tuple(self._pending), []
        return self._final(texts, usage=usage, finish=finish)

    def _flush(self) -> None:
        """Send what waits, now: the event loop or `_send_pending` calls it. Nothing else takes from ``_pending``."""
        self._flush_scheduled = False
        if not self._pending or self._credit <= 0 or self.runner is None or self.runner.done():
            return
        chunk = self._chunk(tuple(self._pending))
        try:
            self.reply.send(chunk)
        except Congested:
            self._retry_when_drained()
        except AnywireError as error:
            self._fault = error
            self.runner.cancel()
        else:
            self._pending.clear()
            self._sent(chunk)

    def _retry_when_drained(self) -> None:
        if self._draining is None or self._draining.done():
            self._draining = asyncio.ensure_future(self.reply.drain())
            self._draining.add_done_callback(lambda _: self._flush())

    async def _send_pending(self) -> None:
        while self._pending:
            await self._wait_for_credit()
            await self.reply.drain()
            self._flush()

    async def _send_extra(self, delta: Delta) -> None:
        while True:
            await self._wait_for_credit()
            await self.reply.drain()
            chunk = self._chunk((delta.text,), delta.extra)
            try:
                self.reply.send(chunk)
            except Congested:
                continue
            self._sent(chunk)
            return

    async def _wait_for_credit(self) -> None:
        while self._credit <= 0:
            self._more_credit = asyncio.get_running_loop().create_future()
            await self._more_credit

    def _chunk(self, texts: tuple[str, ...], extra: str = "") -> Chunk:
        task = self.task
        return Chunk(task.hub_id, task.task_id, task.attempt, self._seq, texts, extra)

    def _sent(self, chunk: Chunk) -> None:
        self._seq += len(chunk.deltas)
        self._credit -= 1

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
        )
