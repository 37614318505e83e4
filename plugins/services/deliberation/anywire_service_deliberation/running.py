"""One deliberation that is under way here: its course, and the effects that this asks for, carried out in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import msgspec

from anywire.caller import Caller
from anywire.clock import Timer
from anywire.context import Context
from anywire.errors import PluginFailed
from anywire_service_deliberation.checks import ProposalCheck
from anywire_service_deliberation.course import Course
from anywire_service_deliberation.effects import Ask, Effect, Finished, Keep, Stop, WakeAt
from anywire_service_deliberation.errands import Errand, Failed
from anywire_service_deliberation.record import Answer, Deliberation, Failure, WorkId
from anywire_service_deliberation.store import Store
from anywire_service_deliberation.turns import Turns
from anywire_service_deliberation.watched import Watched

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds between attempts to keep a state on a disk that fails."""
MOMENT = 1e-6
"""Seconds by which two events of a deliberation differ at least, so that their order can be told from their times."""
LAST_WRITES_S = 2.0
"""Seconds that answers which are there at the end have for being written."""
AT_ONCE = 8
"""Events that are taken in, and tasks that are submitted, in one turn."""

_Event = Callable[[float], list[Effect]]


class Run(Watched):
    """`start` it once. What happens to it is taken in one after the other; a state is on the disk before anything that
    follows from it is done. The state that is kept is the one that is shown.

    A disk that fails holds everything up until it works again, but not beyond the promise: from the deadline on what
    there is is shown, and kept later.
    """

    def __init__(
        self,
        context: Context,
        store: Store,
        checks: Sequence[ProposalCheck],
        turns: Turns,
        now: Callable[[], float],
        state: Deliberation,
        retention: float,
        *,
        resumed: bool = False,
    ) -> None:
        super().__init__(state)
        self._context, self._store, self._checks, self._turns = context, store, checks, turns
        self._clock_now, self._retention, self._resumed = now, retention, resumed
        self._course = Course(state, self._agent_of)
        self._caller: Caller = state.question.caller
        self._priority = 0
        self.parent = ""
        """The task that stands for it, whose children all of its works are."""
        self._events: list[_Event] = []
        self._woken, self._idle = asyncio.Event(), asyncio.Event()
        self._errands: dict[WorkId, Errand] = {}
        self._had: dict[WorkId, list[str]] = {}
        """Agents that had tries of a work that is under way."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: Timer | None = None
        self._last = 0.0
        self._leaving = False
        self._drives: asyncio.Task[None] | None = None

    # From outside

    @property
    def started(self) -> bool:
        return self._drives is not None

    def start(self, parent: str, caller: Caller, priority: int = 0) -> asyncio.Task[None]:
        """Begin, as tasks of ``caller`` and children of the task ``parent``. What is returned is done when nothing is
        left to be kept."""
        self.parent, self._caller, self._priority = parent, caller, priority
        self._drives = self._begin(self._drive())
        return self._drives

    def cancel(self, reason: str) -> None:
        """End it as cancelled. Nothing happens once it has ended."""
        self._happens(lambda now: self._course.cancel(reason, now))

    def abandon(self) -> None:
        """It is not kept and never begins: nobody waits for it any more."""
        self._leaving = True
        self._tell(ended=True)

    def leave(self) -> None:
        """Ask for nothing more: the next process goes on with it. What is under way may still be answered; then it is
        over here, and the task that stands for it holds up no shutdown."""
        self._leaving = True
        self._woken.set()

    async def close(self) -> None:
        """Keep the answers that have come, and stop."""
        self._leaving = True
        if self._timer is not None:
            self._timer.cancel()
        if self._drives is not None and not self._drives.done():
            idle = asyncio.ensure_future(self._idle.wait())
            await asyncio.wait((idle, self._drives), timeout=LAST_WRITES_S, return_when=asyncio.FIRST_COMPLETED)
            idle.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tell(ended=True)

    # One event after the other

    def _happens(self, event: _Event) -> None:
        self._events.append(event)
        self._woken.set()

    async def _drive(self) -> None:
        try:
            # It may have been cancelled before it begins.
            await self._carry_out(self._take_events())
            await self._carry_out(self._course.begin(self._now()))
            while not self.ended.done():
                if not self._events:
                    self._woken.clear()
                    self._idle.set()
                    await self._woken.wait()
                    self._idle.clear()
                await self._turns.turn()
                await self._carry_out(self._take_events())
                if self._leaving and not self._errands and not self._events:
                    self._tell(ended=True)
        except Exception as error:
            log.exception("the deliberation %s goes on no more", self.shown.question.id)
            if not self.ended.done():
                await self._carry_out(self._course.cancel(f"a fault here: {type(error).__name__}", self._now()))

    def _take_events(self) -> list[Effect]:
        events, self._events = self._events[:AT_ONCE], self._events[AT_ONCE:]
        return [effect for event in events for effect in event(self._now())]

    async def _carry_out(self, effects: list[Effect]) -> None:
        """The newest state is kept first: it holds what the ones before it do."""
        kept = [effect.state for effect in effects if isinstance(effect, Keep)]
        if kept:
            await self._keep(kept[-1])
        asked = 0
        for effect in effects:
            match effect:
                case Ask():
                    self._ask(effect)
                    asked += 1
                    if asked % AT_ONCE == 0:
                        await self._turns.turn()
                case Stop(work):
                    self._stop(work)
                case WakeAt(at):
                    self._wake_at(at)
                case Finished():
                    self._finish()
                case Keep():
                    pass

    def _now(self) -> float:
        self._last = max(self._clock_now(), self._last + MOMENT)
        return self._last

    # Effects

    async def _keep(self, state: Deliberation) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                await self._store.keep(self._with_expiry(state))
                break
            except PluginFailed:
                if self._clock_now() >= state.deadline:
                    state = self._out_of_time()
            await self._context.clock.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        self._show(self._with_expiry(state))

    def _out_of_time(self) -> Deliberation:
        """The promise is over and the disk still fails: end, and say so."""
        for effect in [*self._take_events(), *self._course.wake(self._now())]:
            if isinstance(effect, Stop):
                self._stop(effect.work)
        if self._course.state.is_final and not self.ended.done():
            log.error("the deliberation %s has ended and is not on the disk yet", self.shown.question.id)
            self._show(self._with_expiry(self._course.state))
            self._finish()
        return self._course.state

    def _ask(self, ask: Ask) -> None:
        if self._leaving or self.ended.done():
            return
        avoid = [*ask.avoid, *self._had.get(ask.work, ())]
        if (before := self._errands.get(ask.work)) is not None:
            avoid.append(before.agent)
        errand = Errand(
            self._context,
            self._checks,
            self._clock_now,
            self._course.state,
            ask,
            self.parent,
            [*(self._others_agents(ask.work) if ask.work.kind == "proposal" else ()), *avoid],
            priority=self._priority,
            patient=self._resumed,
        )
        self._errands[ask.work] = errand
        errand.submit(self._caller)
        self._begin(self._do(errand))

    async def _do(self, errand: Errand) -> None:
        work = errand.ask.work
        outcome: Answer | Failed | None
        try:
            outcome = await errand.outcome(self._caller)
        except Exception as error:
            log.exception("the work %s of the deliberation %s failed", work, self.shown.question.id)
            message = f"its answer could not be dealt with: {type(error).__name__}"
            outcome = Failed(Failure(PluginFailed.code, message, errand.agent, errand.ask.tries), again=False)
        if self._errands.get(work) is errand:
            del self._errands[work]
        match outcome:
            case Answer():
                self._happens(partial(self._answered, work, outcome))
            case Failed() if not (errand.stopped or self._leaving):
                self._happens(partial(self._failed, work, outcome))

    def _answered(self, work: WorkId, answer: Answer, now: float) -> list[Effect]:
        return self._course.answered(work, msgspec.structs.replace(answer, ended=now), now)

    def _failed(self, work: WorkId, failed: Failed, now: float) -> list[Effect]:
        if failed.failure.agent:
            self._had.setdefault(work, []).append(failed.failure.agent)
        failure = msgspec.structs.replace(failed.failure, at=now)
        return self._course.failed(work, failure, now, again=failed.again)

    def _agent_of(self, work: WorkId) -> str:
        errand = self._errands.get(work)
        return errand.agent if errand is not None else ""

    def _others_agents(self, work: WorkId) -> list[str]:
        """Agents that have, or have had, the proposal of another member with the same model."""
        model = next(member.model for member in self.shown.question.members if member.name == work.member)
        same = [each.name for each in self.shown.question.members if each.model == model and each.name != work.member]
        found: list[str] = []
        for name in same:
            other = WorkId("proposal", 0, name)
            answer = self._course.state.answers.get(str(other))
            if answer is not None:
                found.append(answer.agent)
            elif (errand := self._errands.get(other)) is not None:
                found.append(errand.agent)
        return [agent for agent in found if agent]

    def _stop(self, work: WorkId) -> None:
        errand = self._errands.get(work)
        if errand is not None:
            self._had.setdefault(work, []).append(errand.agent)
            errand.stop("its deliberation does not wait for it any more")

    def _stop_all(self) -> None:
        for work in list(self._errands):
            self._stop(work)

    def _wake_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, at - self._clock_now())
        self._timer = self._context.clock.call_later(delay, self._wake)

    def _wake(self) -> None:
        if not self._leaving:  # what was not asked any more is not late
            self._happens(self._course.wake)

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stop_all()
        self._tell(ended=True)

    def _with_expiry(self, state: Deliberation) -> Deliberation:
        return msgspec.structs.replace(state, expires=state.ended + self._retention) if state.is_final else state

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a piece of work of the deliberation %s failed", self.shown.question.id, exc_info=error)
