"""The deliberations that are under way here: taken in, each with a task that stands for it, and resumed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from anywire import errors
from anywire.access import KEY_GONE
from anywire.caller import Caller
from anywire.context import Context
from anywire.errors import AnywireError, InvalidRequest
from anywire.submission import MAX_NAME_CHARS, Submission
from anywire_service_deliberation.checks import ProposalCheck
from anywire_service_deliberation.config import DeliberationConfig
from anywire_service_deliberation.question import Question
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.request import MODEL, check_models, is_made_here
from anywire_service_deliberation.running import Run
from anywire_service_deliberation.store import Store, tenant_of
from anywire_service_deliberation.turns import Turns

log = logging.getLogger(__name__)

GRACE = 5.0
"""Seconds that the task of a deliberation has beyond the promise, which the deliberation itself holds."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds until a deliberation that is left is offered again, where no refusal says when."""
CLIENT_GONE = "its task was cancelled, or its client has gone"
SHOWN_CHARS = 200
"""Characters of the question in the task that stands for it: whoever looks at the tasks sees what it is about."""

Key = tuple[str, str]
"""A tenant, and the id that it has given."""


class Runs:
    """`take` what is new and `resume` what is left. ``roles`` are those that have a model of their own. ``before`` are
    the runs of the time before the store was lost: whoever listens, and what is counted, stays."""

    def __init__(
        self,
        context: Context,
        store: Store,
        config: DeliberationConfig,
        roles: frozenset[str],
        checks: Sequence[ProposalCheck],
        now: Callable[[], float],
        before: Runs | None = None,
    ) -> None:
        self._context, self._store, self._config, self._roles, self._checks = context, store, config, roles, checks
        self._now, self._turns = now, Turns()
        self._runs: dict[Key, Run] = {}
        self._by_task: dict[str, Run] = {}
        self._taking: dict[Key, asyncio.Task[Run | Deliberation]] = {}
        self._work: set[asyncio.Task[Any]] = set()
        self._listeners: list[Callable[[Deliberation, bool], object]] = before._listeners if before is not None else []
        self._closing = False
        self.ended: dict[str, int] = before.ended if before is not None else {}
        """How many have ended here, by status."""

    @property
    def running(self) -> int:
        return len(self._runs)

    @property
    def closing(self) -> bool:
        """Whether what ends now ends for this process alone."""
        return self._closing or self._context.closing

    @property
    def _is_full(self) -> bool:
        return len(self._runs) >= self._config.max_running

    def get(self, tenant: str, question_id: str) -> Run | None:
        return self._runs.get((tenant, question_id))

    def of_task(self, task_id: str) -> Run | None:
        """The one that this task stands for."""
        return self._by_task.get(task_id)

    def anybodys(self, question_id: str) -> Run | None:
        """The newest with this id, of any tenant."""
        return next((run for (_, known), run in reversed(self._runs.items()) if known == question_id), None)

    def of_council(self, tenant: str, name: str) -> int:
        return sum(run.shown.question.council == name for (owner, _), run in self._runs.items() if owner == tenant)

    async def take(self, question: Question, task_id: str = "") -> Run | Deliberation:
        """Keep a new one and begin it, as children of ``task_id`` or of a task of its own. The same id and request is
        the one that there is: its run, or how it has ended. Once it is begun it is taken in, also where the caller is
        cancelled; the one of a ``task_id`` is cancelled then, before anybody is asked. Raises what `Context.submit`
        raises, `InvalidRequest` for another request, `QueueFull`, and `PluginFailed` when it cannot be kept."""
        key = _key(question)
        found: Run | Deliberation | None = self._runs.get(key)
        if found is None or key in self._taking:
            taking = self._taking.get(key)
            if taking is None:
                taking = self._taking[key] = self._begin(self._take(key, question, task_id))
                taking.add_done_callback(lambda _: self._taking.pop(key, None))
            try:
                found = await asyncio.shield(taking)
            except asyncio.CancelledError:
                if task_id and not self.closing:
                    taking.add_done_callback(partial(self._end_without_client, task_id))
                raise
        theirs = found.shown.question if isinstance(found, Run) else found.question
        if theirs.digest != question.digest:
            raise InvalidRequest(
                f"there is a deliberation {question.id!r} that asked for something else: use a new id",
                param="id",
                status=409,
                detail_code="id_reused",
            )
        return found

    def listen(self, changed: Callable[[Deliberation, bool], object]) -> Callable[[], None]:
        """See `anywire_service_deliberation.offered.Deliberations.listen`."""
        self._listeners.append(changed)

        def end() -> None:
            with suppress(ValueError):
                self._listeners.remove(changed)

        return end

    def resume(self, state: Deliberation) -> None:
        """Go on with one that an earlier process has left."""
        run = self._new(state, resumed=True)
        self._runs[_key(state.question)] = run
        self._begin(self._resume(run))

    def cancel(self, run: Run, reason: str) -> None:
        run.cancel(reason)
        key = _key(run.shown.question)
        if not run.started and self._runs.get(key) is run and key not in self._taking:  # it waits for being resumed
            self._start(run, "", run.shown.question.caller)

    def leave(self) -> None:
        """Begin nothing more; what is under way is left to the next process, with the answers that still come."""
        self._closing = True
        for run in self._runs.values():
            run.leave()

    async def close(self) -> None:
        self.leave()
        for task in list(self._work):
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        await asyncio.gather(*[run.close() for run in self._runs.values()])

    # Inside

    async def _take(self, key: Key, question: Question, task_id: str) -> Run | Deliberation:
        # An id that was made here is known to nobody yet, but by whom it was told: it is looked up where it is refused.
        is_new = is_made_here(question.id) and not self._is_full and all(each.model for each in question.members)
        found = None if is_new else await self._store.get(*key)
        if found is not None and not 0 < found.expires <= self._now():
            return found
        if self._closing:
            raise errors.ShuttingDown("the orchestrator is shutting down")
        check_models(question)
        if self._is_full:
            raise errors.QueueFull(
                f"{len(self._runs)} deliberations are under way already (services.deliberation.max_running)",
                retry_after=5,
            )
        now = self._now()
        state = Deliberation(question, "submitted", now, now + question.timeout, of_chat=bool(task_id))
        run = self._new(state, resumed=False)
        stream = None
        if not task_id:
            # First to the pipeline, which refuses at once what it refuses.
            stream = self._context.submit(self._envelope(state, question.caller))
            task_id = stream.task_id
        self._runs[key], self._by_task[task_id] = run, run
        kept: Deliberation | None = None
        try:
            kept = await self._store.add(state)
        finally:
            if kept is not state:
                self._forget(run, task_id)
                run.abandon()
                if stream is not None:
                    stream.cancel("there is such a deliberation" if kept else "the deliberation is not kept")
        if kept is not state:
            return kept
        self._start(run, task_id, question.caller)
        return run

    def _end_without_client(self, task_id: str, taking: asyncio.Task[Run | Deliberation]) -> None:
        if taking.cancelled() or taking.exception() is not None:
            return
        found = taking.result()
        if isinstance(found, Run) and found.parent == task_id:
            self.cancel(found, CLIENT_GONE)

    async def _resume(self, run: Run) -> None:
        state, pause = run.shown, FIRST_PAUSE
        await self._turns.turn()  # there may be hundreds of them
        while not run.started and not self._closing:
            caller = self._context.access.still(state.question.caller)
            if caller is None:
                self.cancel(run, KEY_GONE)
                return
            if self._now() >= state.deadline:
                self._start(run, "", caller)
                return
            try:
                stream = self._context.submit(self._envelope(state, caller))
            except errors.ShuttingDown:
                return
            except AnywireError as error:
                log.info("the deliberation %s cannot go on yet: %s", state.question.id, error)
                wait = min(max(error.retry_after, pause), LONGEST_PAUSE, state.deadline - self._now() + 0.01)
                pause = min(2 * pause, LONGEST_PAUSE)
                await self._context.clock.sleep(wait)
                continue
            self._by_task[stream.task_id] = run
            self._start(run, stream.task_id, caller)

    def _new(self, state: Deliberation, *, resumed: bool) -> Run:
        return Run(
            self._context,
            self._store,
            self._checks,
            self._turns,
            self._now,
            state,
            self._config.retention,
            resumed=resumed,
            told=partial(self._tell, resumed),
        )

    def _start(self, run: Run, task_id: str, caller: Caller) -> None:
        drives = run.start(task_id, caller)
        drives.add_done_callback(lambda _: self._left(run, task_id))

    def _left(self, run: Run, task_id: str) -> None:
        """Nothing is left to be done for it here."""
        self._forget(run, task_id)
        if run.shown.is_final:
            self.ended[run.shown.status] = self.ended.get(run.shown.status, 0) + 1

    def _tell(self, resumed: bool, state: Deliberation) -> None:
        for changed in list(self._listeners):
            try:
                changed(state, resumed)
            except Exception:
                log.exception("a listener could not deal with the deliberation %s", state.question.id)

    def _forget(self, run: Run, task_id: str) -> None:
        key = _key(run.shown.question)
        if self._runs.get(key) is run:
            del self._runs[key]
        self._by_task.pop(task_id, None)

    def _envelope(self, state: Deliberation, caller: Caller) -> Submission:
        """The task that stands for a deliberation: for its limits, for whoever looks at the tasks, and to cancel it."""
        question = state.question
        role = question.members[0].role
        model = f"{MODEL}:{role}" if role in self._roles else MODEL
        text = question.task[:SHOWN_CHARS]
        shown = {"model": model, "messages": [{"role": "user", "content": text}], "metadata": {"id": question.id}}
        return Submission(
            "chat",
            model,
            msgspec.json.encode(shown).decode(),
            deadline_s=max(0.0, state.deadline - self._now()) + GRACE,
            caller=caller,
            session=question.id[:MAX_NAME_CHARS],
            trace=question.trace,
            priority=question.priority,
        )

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._work_ended)
        return task

    def _work_ended(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, AnywireError):
            log.error("a deliberation could not be begun: %s", error, exc_info=error)


def _key(question: Question) -> Key:
    return tenant_of(question.caller), question.id
