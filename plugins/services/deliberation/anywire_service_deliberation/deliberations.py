"""The deliberations of one orchestrator, as gateways and other services see them: under way here, or kept."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from anywire import errors
from anywire.caller import Caller
from anywire.clock import Timer
from anywire.context import Context
from anywire.errors import InvalidRequest
from anywire_service_deliberation.checks import ProposalCheck
from anywire_service_deliberation.config import DeliberationConfig
from anywire_service_deliberation.councils import Councils
from anywire_service_deliberation.history import history
from anywire_service_deliberation.offered import LONGEST_WAIT, MAX_LISTED, Council, Update
from anywire_service_deliberation.question import Question
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.request import Requests
from anywire_service_deliberation.roles_and_rubrics import Library
from anywire_service_deliberation.running import Run
from anywire_service_deliberation.runs import Runs
from anywire_service_deliberation.statistics import NEWEST, statistics
from anywire_service_deliberation.store import Store, tenant_of

if TYPE_CHECKING:
    from anywire_service_deliberation.offered import Deliberations

log = logging.getLogger(__name__)

LOCK_PAUSE = 0.5
"""Seconds between attempts to take over the folder of a process that still ends."""
LEAST_PURGE_S, PURGE_S = 1.0, 60.0
"""Seconds after which what has expired is looked for: `retention` within these."""


class KeptDeliberations:
    """Implements `anywire_service_deliberation.offered.Deliberations` over ``store``, which it opens and closes."""

    def __init__(
        self,
        context: Context,
        store: Store,
        config: DeliberationConfig,
        library: Library,
        checks: Sequence[ProposalCheck] = (),
    ) -> None:
        self._context, self._store, self._config, self.library = context, store, config, library
        # The clock goes on from the time of day at which this began: a simulated one moves all of it.
        began = time.time() - context.clock.now()
        self.now: Callable[[], float] = lambda: began + context.clock.now()
        """Seconds since 1970."""
        self._checks = checks
        self.runs = self._new_runs()
        self._councils = Councils(store, lambda tenant, name: self.runs.of_council(tenant, name))
        self._requests = Requests(context, config, library, self._councils.get)
        self._opening: asyncio.Task[None] | None = None
        self._opened: list[Callable[[], object]] = []
        self._purges: set[asyncio.Task[None]] = set()
        self._purging: Timer | None = None
        self._owns = self._is_open = self._closing = False

    @property
    def is_open(self) -> bool:
        """Whether deliberations are taken in here, and not by another orchestrator."""
        return self._is_open and not self._closing

    async def start(self) -> None:
        """Go on with what an earlier process has left; where that still runs, once it has ended. Raises
        `ConfigError`."""
        self._owns = await self._store.open(self._lost)
        if self._owns:
            with suppress(errors.PluginFailed):  # it is tried again, and told
                await self._open()
        if not self._is_open:
            self._opening = asyncio.ensure_future(self._take_over())

    def stop(self) -> None:
        """Nothing is taken in any more, and nothing new is asked: what has not ended is left to the next process."""
        self._closing = True
        self.runs.leave()

    async def close(self) -> None:
        """Safe to call twice."""
        self.stop()
        if self._purging is not None:
            self._purging.cancel()
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        await asyncio.gather(*self._purges, return_exceptions=True)
        await self.runs.close()
        self._is_open = False
        await self._store.close()

    # What gateways call

    def question(self, request: Mapping[str, Any], caller: Caller) -> Question:
        return self._requests.question(request, caller)

    async def submit(self, question: Question) -> Deliberation:
        self._check_open()
        found = await self.runs.take(question)
        return found.shown if isinstance(found, Run) else found

    async def get(self, question_id: str, caller: Caller, wait: float = 0.0) -> Deliberation | None:
        run, found = await self._find(question_id, caller)
        if run is None:
            return found
        if wait > 0 and not run.ended.done():
            await asyncio.wait((run.ended,), timeout=min(wait, LONGEST_WAIT))
        return run.shown

    async def list(
        self, caller: Caller, *, status: str = "", role: str = "", limit: int = 100
    ) -> Sequence[Deliberation]:
        self._check_open()
        tenant = tenant_of(caller) if caller.role == "use" else None
        found = await self._store.list(tenant, status, role, max(1, min(limit, MAX_LISTED)))
        now = self.now()
        return [state for state in found if caller.sees(state.question.caller) and not 0 < state.expires <= now]

    async def cancel(self, question_id: str, caller: Caller, reason: str = "cancelled") -> Deliberation | None:
        run, found = await self._find(question_id, caller)
        if run is None:
            return found
        if not caller.may_end(run.shown.question.caller):
            raise errors.Forbidden("this needs a key with the role operate: the deliberation is another tenant's")
        self.runs.cancel(run, reason)
        await asyncio.wait((run.ended,), timeout=LONGEST_WAIT)
        return run.shown

    async def updates(self, question_id: str, caller: Caller, after: int = 0) -> AsyncGenerator[Update, None]:
        run, found = await self._find(question_id, caller)
        after = max(0, after)
        if run is not None:
            async with aclosing(run.updates(after)) as updates:
                async for update in updates:
                    yield update
        elif found is not None:
            told = history(found)
            for update in told[min(after, len(told) - 1) if after > len(told) else after :]:
                yield update
        else:
            raise InvalidRequest(f"there is no deliberation {question_id!r}", param="id", status=404)

    def listen(self, changed: Callable[[Deliberation, bool], object]) -> Callable[[], None]:
        return self.runs.listen(changed)

    def listen_opened(self, opened: Callable[[], object]) -> Callable[[], None]:
        self._opened.append(opened)

        def end() -> None:
            with suppress(ValueError):
                self._opened.remove(opened)

        return end

    async def councils(self, caller: Caller) -> Sequence[Council]:
        self._check_open()
        return self._councils.all(caller)

    async def put_council(self, council: Council, caller: Caller) -> Council:
        self._check_open()
        return await self._councils.put(self._requests.check_council(council), caller, self.now())

    async def delete_council(self, name: str, caller: Caller) -> Council | None:
        self._check_open()
        return await self._councils.delete(name, caller)

    async def statistics(self, caller: Caller) -> dict[str, Any]:
        # With hundreds of them it takes longer than anybody else could wait.
        return await asyncio.to_thread(statistics, await self.list(caller, limit=NEWEST), self.now())

    # Inside

    async def _find(self, question_id: str, caller: Caller) -> tuple[Run | None, Deliberation | None]:
        """The run of one that is under way here, else what is kept: the caller's own first; who sees all also finds
        another tenant's."""
        self._check_open()
        tenant = tenant_of(caller)
        sees_all = caller.role != "use"
        run = self.runs.get(tenant, question_id)
        if run is not None:
            return run, None
        found = await self._store.get(tenant, question_id)
        if found is None and sees_all:
            run = self.runs.anybodys(question_id)
            if run is not None:
                return run, None
            found = await self._store.get(None, question_id)
        # It may have been taken in, or have ended, while the disk was read.
        run = self.runs.get(tenant_of(found.question.caller) if found is not None else tenant, question_id)
        if run is not None:
            return run, None
        return None, found if found is not None and not 0 < found.expires <= self.now() else None

    def _check_open(self) -> None:
        if not self.is_open:
            raise errors.ShuttingDown(
                "deliberations are with another orchestrator, or with one that is shutting down: try again",
                retry_after=1,
            )

    async def _take_over(self) -> None:
        told = ""
        while not self._is_open:
            try:
                self._owns = self._owns or await self._store.open(self._lost)
                if self._owns:
                    await self._open()
                    log.info("the deliberations are taken over")
                    return
                reason = self._store.waits_for
            except errors.PluginFailed as error:
                reason = str(error)
            except errors.ConfigError as error:
                log.error("no deliberations are taken in: %s", error)
                return
            if reason != told:
                log.warning("no deliberations are taken in yet, and will be once that is over: %s", reason)
                told = reason
            await self._context.clock.sleep(LOCK_PAUSE)  # nobody tells that a process of others has ended

    def _lost(self, reason: str) -> None:
        """The store is another process's now, which goes on with everything."""
        self._owns = False
        if self._closing or not self._is_open:
            return
        log.error("the deliberations here are left: %s", reason)
        self._is_open = False
        if self._purging is not None:
            self._purging.cancel()
        left, self.runs = self.runs, self._new_runs(self.runs)
        left.leave()
        self._opening = asyncio.ensure_future(self._stand_by(left))

    async def _stand_by(self, left: Runs) -> None:
        try:
            await left.close()
        except Exception:
            log.exception("deliberations that are left here have not ended")
        await self._take_over()

    def _new_runs(self, before: Runs | None = None) -> Runs:
        roles = frozenset(role.name for role in self.library.roles.values())
        return Runs(self._context, self._store, self._config, roles, self._checks, self.now, before)

    async def _open(self) -> None:
        await self._store.purge(self.now())
        await self._councils.load()
        left = await self._store.unfinished()
        if self._closing:
            return
        if not self._owns:
            raise errors.PluginFailed("the deliberations were taken by another orchestrator again")
        self._is_open = True
        if left:
            log.info("%d deliberations had not ended, and go on", len(left))
        for state in left:
            self.runs.resume(state)
        self._purge_later()
        for opened in list(self._opened):
            try:
                opened()
            except Exception:
                log.exception("a listener could not deal with the deliberations that are taken in")

    def _purge_later(self) -> None:
        pause = min(PURGE_S, max(LEAST_PURGE_S, self._config.retention))
        self._purging = self._context.clock.call_later(pause, self._purge)

    def _purge(self) -> None:
        async def purge() -> None:
            with suppress(errors.PluginFailed):  # it is logged
                await self._store.purge(self.now())

        task = asyncio.ensure_future(purge())
        self._purges.add(task)
        task.add_done_callback(self._purges.discard)
        self._purge_later()


if TYPE_CHECKING:

    def _is_deliberations(kept: KeptDeliberations) -> Deliberations:
        return kept
