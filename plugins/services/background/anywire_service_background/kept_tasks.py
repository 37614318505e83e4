"""The background tasks of one orchestrator: taken in, run, and answered to whoever comes for them."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from anywire import errors
from anywire.background import BackgroundTask, key_reused
from anywire.caller import Caller
from anywire.clock import Timer
from anywire.context import Context
from anywire.errors import AnywireError, from_wire, to_wire
from anywire.files.database_thread import taken_over
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire_service_background.backlog import Backlog, is_not_yet
from anywire_service_background.config import BackgroundConfig
from anywire_service_background.records import Answer, Kept, Left, encoded_answer, encoded_submission, left
from anywire_service_background.store import Store

log = logging.getLogger(__name__)

LONGEST_WAIT = 60.0
"""Seconds that `KeptTasks.get` waits at most."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
"""Seconds between attempts to write an answer to a disk that fails."""
PURGE_S = 3600.0
"""Seconds after which what has expired is looked for, if no task comes before."""
LAST_WRITES_S = 2.0
"""Seconds that answers which are there at the end have for being written."""

Taken = tuple[str, bool]


class KeptTasks:
    """Implements `anywire.background.BackgroundTasks` over ``store``, which it opens."""

    def __init__(self, context: Context, store: Store, config: BackgroundConfig) -> None:
        self._context, self._store, self._config = context, store, config
        self._work: set[asyncio.Task[Any]] = set()
        """What takes tasks in, reads answers, and writes them."""
        self._waits: dict[str, asyncio.Future[None]] = {}
        """For each task that has not ended: done once it has, or once nobody here waits for that any more."""
        self._taking: dict[str, tuple[bytes, asyncio.Task[Taken]]] = {}
        """By key: what takes a task in, and the digest of what it asks for."""
        self._backlog = Backlog(context, store, config, self._started, self._ended)
        self._opening: asyncio.Task[None] | None = None
        self._purging: Timer | None = None
        self._is_open = self._closing = False

    async def start(self) -> None:
        """Run again what an earlier process has left; where that still runs, once it has ended. Raises
        `ConfigError`."""
        if await self._store.open():
            await self._open()
        else:
            folder = self._config.folder or "the fleet's state folder"
            log.warning(
                "another orchestrator has the background tasks in %s: they are taken over once it has ended. Where "
                "both are to run, set services.background.folder for one of them",
                folder,
            )
            self._opening = self._begin(self._take_over())

    def stop(self) -> None:
        """No task is taken in any more; those that end from now on without an answer are left to the next process."""
        self._closing = True
        self._backlog.stop()
        for wait in self._waits.values():
            _done(wait)

    async def close(self) -> None:
        """Safe to call twice."""
        self.stop()
        if self._purging is not None:
            self._purging.cancel()
        if self._opening is not None:
            self._opening.cancel()
        if self._work:
            await asyncio.wait(self._work, timeout=LAST_WRITES_S)
        for each in self._work:
            each.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        await self._backlog.close()
        if self._is_open:
            self._is_open = False
            with suppress(errors.PluginFailed):  # it is logged
                await self._store.forgive_starts()

    # What gateways call

    async def submit(self, submission: Submission, key: str = "", digest: bytes = b"") -> Taken:
        self._check_open()
        if submission.stream:
            raise errors.InvalidRequest("a background task is not streamed: leave `stream` out", param="stream")
        if submission.parent:
            raise errors.InvalidRequest("a background task has no parent: leave x-anywire-parent out", param="parent")
        if key:
            return await self._take_once(submission, key, digest)
        taking = self._begin(self._take(submission, key, digest))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            # Its client has gone and knows no id. What is being written is written first.
            taking.add_done_callback(self._withdraw)
            raise

    async def get(self, task_id: str, caller: Caller, wait: float = 0.0) -> BackgroundTask | None:
        kept = await self._found(task_id, caller)
        waited = self._waits.get(task_id)
        if kept is not None and not kept.ended and wait > 0 and waited is not None:
            await asyncio.wait((waited,), timeout=min(wait, LONGEST_WAIT))
            if not self._is_open:  # let go at the end
                return BackgroundTask(task_id, kept.submission)
            kept = await self._found(task_id, caller)
        if kept is None or 0 < kept.ended < self._expired():
            return None
        answer = kept.answer
        if answer is None:
            return BackgroundTask(task_id, kept.submission)
        error = from_wire(answer.error, phase="streaming", task_id=task_id) if answer.error else None
        return BackgroundTask(
            task_id,
            kept.submission,
            answer.chunk,
            error,
            answer.model,
            answer.agent_id,
            answer.transport,
            answer.attempts,
            answer.ignored,
            kept.ended,
        )

    async def forget(self, task_id: str, caller: Caller) -> bool:
        if await self._found(task_id, caller) is None:
            return False
        self._backlog.drop(task_id)
        self._context.cancel(task_id, "its answer is not wanted any more", caller)
        await self._store.remove(task_id)
        self._tell_end(task_id)
        return True

    # Taking in

    async def _take_once(self, submission: Submission, key: str, digest: bytes) -> Taken:
        """Requests with one key that come at once are one: the first takes the task in for all of them, also when its
        own client goes away."""
        under_way = self._taking.get(key)
        if under_way is not None:
            first, taking = under_way
            if not hmac.compare_digest(first, digest):
                raise key_reused()
            task_id, _ = await asyncio.shield(taking)
            return task_id, False
        taking = self._begin(self._found_or_taken(submission, key, digest))
        self._taking[key] = (digest, taking)
        taking.add_done_callback(lambda _: self._taking.pop(key, None))
        return await asyncio.shield(taking)

    async def _found_or_taken(self, submission: Submission, key: str, digest: bytes) -> Taken:
        found = await self._store.by_key(key, self._expired())
        if found is None:
            return await self._take(submission, key, digest)
        if not hmac.compare_digest(found[1], digest):
            raise key_reused()
        return found[0], False

    async def _take(self, submission: Submission, key: str, digest: bytes) -> Taken:
        try:
            encoded = encoded_submission(submission)
        except UnicodeEncodeError as error:
            raise errors.InvalidRequest("the request holds half a character: send it as UTF-8") from error
        if len(encoded) > self._config.max_bytes:
            raise errors.PayloadTooLarge(
                f"the request has {len(encoded)} bytes, more than are kept (services.background.max_bytes)"
            )
        # First to the pipeline, which refuses at once what it refuses; nothing is told before the task is kept.
        stream = self._context.submit(submission)
        task = left(stream.task_id, submission, time.time())
        try:
            await self._store.add(task, submission.caller.tenant, key, digest, encoded, self._expired())
        except BaseException:
            stream.cancel("the background task is not kept")
            raise
        self._waits[task.task_id] = asyncio.get_running_loop().create_future()
        self._started(stream, task)
        return task.task_id, True

    def _withdraw(self, taking: asyncio.Task[Taken]) -> None:
        """Keep nothing of a task whose id nobody was told."""
        if taking.cancelled() or taking.exception() is not None or self._closing:
            return
        task_id, _ = taking.result()
        self._backlog.drop(task_id)
        self._context.cancel(task_id, "its client has gone")
        self._tell_end(task_id)
        self._begin(self._store.remove(task_id))

    # Running

    def _started(self, stream: TaskStream, task: Left) -> None:
        """Read the answer of a task that runs."""
        self._begin(self._read(stream, task))

    async def _read(self, stream: TaskStream, task: Left) -> None:
        try:
            chunk = await stream.result()
            answer = Answer(chunk, "", stream.model, stream.agent_id, stream.transport, stream.attempts, stream.ignored)
        except AnywireError as error:
            is_cancelled = isinstance(error, errors.TaskCancelled)
            if isinstance(error, errors.ShuttingDown) or (self._closing and not is_cancelled):
                return  # the next process runs it again
            if is_not_yet(error):
                if task.task_id in self._waits:
                    self._backlog.add(task._replace(attempts=stream.attempts))
                return
            agent_id = error.agent_id or stream.agent_id
            answer = Answer(None, to_wire(error), "", agent_id, stream.transport, stream.attempts)
        except BaseException:
            stream.cancel("the service background ends")
            raise
        await self._ended(task.task_id, answer)

    async def _ended(self, task_id: str, answer: Answer) -> None:
        """Keep how a task has ended, however long the disk does not take it."""
        try:
            encoded = encoded_answer(answer)
        except UnicodeEncodeError:
            answer = Answer(error=to_wire(errors.EngineFailed("the answer holds half a character")))
            encoded = encoded_answer(answer)
        ended, pause = time.time(), FIRST_PAUSE
        while True:
            try:
                await self._store.end(task_id, encoded, ended, bool(answer.error))
                break
            except errors.PluginFailed:
                await self._context.clock.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        self._tell_end(task_id)

    def _tell_end(self, task_id: str) -> None:
        _done(self._waits.pop(task_id, None))

    # Inside

    async def _open(self) -> None:
        await self._purge()
        tasks = await self._store.not_ended()
        loop = asyncio.get_running_loop()
        self._waits |= {each.task_id: loop.create_future() for each in tasks}
        self._is_open = True
        if not self._closing:
            self._backlog.start(tasks)

    async def _take_over(self) -> None:
        try:
            await taken_over(self._store.open, self._context.clock)
            await self._open()
            log.info("the background tasks are taken over")
        except errors.ConfigError as error:
            log.error("no background tasks are taken in: %s", error)

    async def _purge(self) -> None:
        """Remove what has expired, now and from time to time: nobody may come who would notice."""
        with suppress(errors.PluginFailed):  # it is logged
            await self._store.remove_expired(self._expired())
        if not self._closing:
            pause = min(PURGE_S, self._config.keep_hours * 3600)
            self._purging = self._context.clock.call_later(pause, lambda: self._begin(self._purge()))

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._work_ended)
        return task

    def _work_ended(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, AnywireError):
            log.error("a background task's work failed: %s", error, exc_info=error)

    def _check_open(self) -> None:
        if self._closing or not self._is_open:
            raise errors.ShuttingDown(
                "background tasks are with an orchestrator that is shutting down: try again", retry_after=1
            )

    async def _found(self, task_id: str, caller: Caller) -> Kept | None:
        """A task that ``caller`` may see and end."""
        if not self._is_open:
            self._check_open()
        kept = await self._store.get(task_id)
        return kept if kept is not None and caller.may_end(kept.submission.caller) else None

    def _expired(self) -> float:
        """The Unix time of the oldest end that is kept."""
        return time.time() - self._config.keep_hours * 3600


def _done(wait: asyncio.Future[None] | None) -> None:
    if wait is not None and not wait.done():
        wait.set_result(None)
