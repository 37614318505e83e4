"""The tasks that are kept and that the pipeline has not: those that had not ended when the process before this one did,
and those for which there was no agent. They are given to it as soon as somebody can take them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from anywire import errors
from anywire.access import KEY_GONE
from anywire.context import Context
from anywire.errors import AnywireError, to_wire
from anywire.task_stream import TaskStream
from anywire_service_background.config import BackgroundConfig
from anywire_service_background.records import Answer, Kept, Left
from anywire_service_background.store import Store

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds until those that were refused are tried again, if no agent changes before and no refusal says when."""
_NOT_YET = (errors.QueueFull, errors.NoAgent, errors.ModelNotFound, errors.ModelStopped, errors.LimitReached)


def is_not_yet(error: AnywireError) -> bool:
    """Whether a task that ends or is refused so may be taken later. All of them were taken in once: an agent that
    has the model, or what the task needs of it, is still to come back."""
    return isinstance(error, _NOT_YET) or (isinstance(error, errors.InvalidRequest) and error.param == "model")


class Backlog:
    """Gives tasks to the pipeline in the order in which they came. ``started`` is called for each that is taken,
    ``ended`` awaited for each that never will be."""

    def __init__(
        self,
        context: Context,
        store: Store,
        config: BackgroundConfig,
        started: Callable[[TaskStream, Left], None],
        ended: Callable[[str, Answer], Awaitable[None]],
    ) -> None:
        self._context, self._store, self._config = context, store, config
        self._waiting: dict[str, Left] = {}
        self._earlier: set[str] = set()
        """Of an earlier process, and not given to the pipeline by this one."""
        self._started, self._ended = started, ended
        self._changed = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    def start(self, tasks: Iterable[Left]) -> None:
        """Run those that an earlier process has left."""
        self._waiting |= {each.task_id: each for each in tasks}
        self._earlier |= self._waiting.keys()
        if self._waiting:
            log.info("%d background tasks had not ended, and are run again", len(self._waiting))
            self._work = asyncio.ensure_future(self._run())

    def add(self, task: Left) -> None:
        """Run this one again: it had no agent."""
        self._waiting[task.task_id] = task
        if self._work is None or self._work.done():
            self._work = asyncio.ensure_future(self._run())
        else:
            self._changed.set()

    def drop(self, task_id: str) -> None:
        """Do not run this one."""
        self._waiting.pop(task_id, None)

    def stop(self) -> None:
        """Give nothing more to the pipeline."""
        if self._work is not None:
            self._work.cancel()

    async def close(self) -> None:
        self.stop()
        if self._work is not None:
            await asyncio.gather(self._work, return_exceptions=True)

    async def _run(self) -> None:
        end = self._context.listen(self._changed.set)
        try:
            backoff = FIRST_PAUSE
            while self._waiting:
                self._changed.clear()
                some, told = await self._round()
                backoff = FIRST_PAUSE if some else min(2 * backoff, LONGEST_PAUSE)
                if self._waiting:
                    await self._change(min(max(told, FIRST_PAUSE), LONGEST_PAUSE) if told else backoff)
        except Exception:
            log.exception("background tasks that are left are not run again before the next start")
        finally:
            end()

    async def _change(self, pause: float) -> None:
        """Until an agent has changed, at most ``pause`` seconds."""
        try:
            async with asyncio.timeout(pause):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _round(self) -> tuple[bool, float]:
        """Try each once: whether one was taken, and the seconds after which another is worth a try, 0 when nobody
        knows. Of a caller's for a model that cannot be taken now only the first is tried."""
        refused: set[tuple[str, str]] = set()
        some, told = False, 0.0
        for each in list(self._waiting.values()):
            is_late = 0 < each.due <= time.time()
            which = (each.model, each.caller_id)
            if each.task_id not in self._waiting or (which in refused and not is_late):
                continue
            try:
                kept = await self._store.get(each.task_id)
                if kept is None or kept.ended:
                    self._waiting.pop(each.task_id, None)
                    continue
                if each.task_id not in self._waiting:  # dropped meanwhile
                    continue
                refusal = await self._try(kept, each)
            except errors.PluginFailed as error:
                log.error("the background task %s cannot be run again yet: %s", each.task_id, error)
                break
            if refusal is None:
                some = True
                continue
            refused.add(which)
            if refusal.retry_after:
                told = min(told, refusal.retry_after) if told else refusal.retry_after
        return some, told

    async def _try(self, kept: Kept, left: Left) -> AnywireError | None:
        """Why a task cannot be taken yet; None when it is taken, or has ended."""
        task_id, submission = kept.task_id, kept.submission
        fault: AnywireError | None = self._fault(kept, left)
        caller = self._context.access.still(submission.caller)
        if caller is None:
            fault = errors.Unauthenticated(KEY_GONE)
        elif fault is None:
            if left.due:
                submission = msgspec.structs.replace(submission, deadline_s=left.due - time.time())
            try:
                submission = msgspec.structs.replace(submission, caller=caller)
                stream = self._context.submit(submission, task_id, left.attempts)
            except errors.ShuttingDown as error:
                return error
            except AnywireError as error:
                if is_not_yet(error) and time.time() - kept.received < self._config.keep_hours * 3600:
                    return error
                fault = error
        self._waiting.pop(task_id, None)
        if fault is not None:
            await self._ended(task_id, Answer(error=to_wire(fault)))
            return None
        self._started(stream, left)
        if task_id in self._earlier:
            self._earlier.discard(task_id)
            await self._store.started(task_id)
        return None

    def _fault(self, kept: Kept, left: Left) -> AnywireError | None:
        """Why a task is not run any more, if it is not."""
        if 0 < left.due <= time.time():
            return errors.DeadlineExceeded("the deadline passed before an agent was found")
        if kept.task_id in self._earlier and kept.starts >= self._config.max_starts:
            return errors.TaskError(
                f"the orchestrator was killed {kept.starts} times while this task was under way: it is not started "
                "again (services.background.max_starts)"
            )
        return None
