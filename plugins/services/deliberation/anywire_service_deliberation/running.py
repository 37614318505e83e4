"""One deliberation that is under way here: its course, and the effects that this asks for, carried out in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from anywire.caller import Caller
from anywire.clock import Timer
from anywire.context import Context
from anywire.errors import PluginFailed
from anywire_service_deliberation.checks import ProposalCheck
from anywire_service_deliberation.course import Course
from anywire_service_deliberation.effects import Ask, Effect, Finished, Keep, Stop, WakeAt
from anywire_service_deliberation.errands import Failed
from anywire_service_deliberation.record import Answer, Deliberation, WorkId
from anywire_service_deliberation.store import Store
from anywire_service_deliberation.turns import Turns
from anywire_service_deliberation.under_way import Outcome, UnderWay
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
    """`start` it once. What happens to it is taken in one after the other; a state is kept before anything that follows
    from it is done. The state that is kept is the one that is shown.

    A disk that fails, or hangs, holds everything up until it works again, but not beyond the promise: at the deadline
    what there is is shown, and kept later.
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
        told: Callable[[Deliberation], None] = lambda state: None,
    ) -> None:
        super().__init__(state, told)
        self._context, self._store, self._turns = context, store, turns
        self._clock_now, self._retention = now, retention
        self._works = UnderWay(context, checks, now, self._came_of, patient=resumed)
        self._course = Course(state, self._works.agent_of)
        self._resumed = resumed
        self._caller: Caller = state.question.caller
        self.parent = ""
        """The task that stands for it, whose children all of its works are."""
        self.followers: set[str] = set()
        """Chats that have asked for it again, by their tasks."""
        self._events: list[_Event] = []
        self._woken, self._idle = asyncio.Event(), asyncio.Event()
        """``idle``: no event waits to be taken in, and none is being taken in."""
        self._wakes: Timer | None = None
        self._promise: Timer | None = None
        self._writing: Deliberation | None = None
        """The state that must be on the disk before anything goes on."""
        self._last = state.newest  # the clock of the machine may have been set back since
        self._leaving = self._is_cancelled = False
        self._drives: asyncio.Task[None] | None = None

    # From outside

    @property
    def started(self) -> bool:
        return self._drives is not None

    def start(self, parent: str, caller: Caller) -> asyncio.Task[None]:
        """Begin, as tasks of ``caller`` and children of the task ``parent``. What is returned is done when nothing is
        left to be kept."""
        self.parent, self._caller = parent, caller
        self._told(self.shown)
        self._drives = asyncio.ensure_future(self._drive())
        return self._drives

    def ends_with(self, task_id: str) -> bool:
        """Whether it ends with this task: the one that stands for it, or its last chat after a restart."""
        return task_id not in self.followers or (self._resumed and self.shown.of_chat and self.followers == {task_id})

    def cancel(self, reason: str) -> None:
        """End it as cancelled, and ask for nothing more. Nothing happens once it has ended."""
        self._is_cancelled = True
        self._happens(lambda now: self._course.cancel(reason, now))

    def abandon(self) -> None:
        """It is not kept and never begins: nobody waits for it any more."""
        self._leaving = True
        self._tell(ended=True)

    def leave(self) -> None:
        """Ask for nothing more: the next process goes on with it. What is under way may still be answered; then it is
        over here, and the task that stands for it holds up no shutdown."""
        self._leaving = True
        self._works.leave()
        self._woken.set()
        if not self.started:
            self._tell(ended=True)

    async def close(self) -> None:
        """Keep the answers that have come, and stop."""
        self._leaving = True
        self._cancel_timers()
        if self._drives is not None:
            idle = asyncio.ensure_future(self._idle.wait())
            await asyncio.wait((idle, self._drives), timeout=LAST_WRITES_S, return_when=asyncio.FIRST_COMPLETED)
            idle.cancel()
            self._drives.cancel()
            await asyncio.gather(idle, self._drives, return_exceptions=True)
        await self._works.close()
        self._tell(ended=True)

    # One event after the other

    def _happens(self, event: _Event) -> None:
        self._events.append(event)
        self._idle.clear()
        self._woken.set()

    async def _drive(self) -> None:
        try:
            self._hold_promise()
            # It may have been cancelled before it begins.
            await self._carry_out(self._take_events())
            await self._carry_out(self._course.begin(self._now()))
            await self._go_on()
            if self.ended.done():
                await self._works.close()
        except Exception as error:
            log.exception("the deliberation %s goes on no more", self.shown.question.id)
            await self._end_after(error)
        finally:
            self._cancel_timers()
            self._tell(ended=True)

    async def _go_on(self) -> None:
        """Take in what happens until it has ended or, once it is left, nothing is under way any more."""
        while not self.ended.done():
            if self._events:
                await self._turns.turn()
                await self._carry_out(self._take_events())
            elif self._leaving and not self._works:
                return
            else:
                self._woken.clear()
                self._idle.set()
                await self._woken.wait()

    async def _end_after(self, error: Exception) -> None:
        """End it for a fault of this program, with what there is. Its course may be at fault: it is not asked again."""
        self._works.stop_all()
        state = self._course.state
        if not state.is_final:
            reason = f"a fault here: {type(error).__name__}"
            state = msgspec.structs.replace(state, status="failed", ended=self._now(), reason=reason)
        try:
            await self._keep(state)
        except Exception:
            log.exception("the deliberation %s has failed, which cannot be kept", state.question.id)
            self._show(self._with_expiry(state))

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
                    # Of many that were kept together, one goes on in each round of the event loop.
                    if asked % AT_ONCE == 0:
                        await self._turns.turn()
                    self._ask(effect)
                    asked += 1
                case Stop(work):
                    self._works.stop(work)
                case WakeAt(at):
                    self._wake_at(at)
                case Finished():
                    self._finish()
                case Keep():
                    pass

    def _now(self) -> float:
        self._last = max(self._clock_now(), self._last + MOMENT)
        return self._last

    # What is kept

    async def _keep(self, state: Deliberation) -> None:
        pause = FIRST_PAUSE
        self._writing = state
        try:
            while True:
                state = self._writing
                try:
                    await self._store.keep(self._with_expiry(state))
                except PluginFailed:
                    if self._clock_now() >= state.deadline:
                        self._show_unwritten()
                    await self._context.clock.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                else:
                    if state is self._writing:
                        break
        finally:
            self._writing = None
        self._show(self._with_expiry(state))

    def _hold_promise(self) -> None:
        left = self.shown.deadline - self._clock_now()
        if left > 0:
            self._promise = self._context.clock.call_later(left, self._show_unwritten)

    def _show_unwritten(self) -> None:
        """The time is over. Where a state is still not on the disk, end, and show that; else the course ends it."""
        state = self._writing
        if state is None or self._leaving or self.ended.done():
            return
        if not state.is_final:
            self._course.wake(self._now())
            state = self._writing = self._course.state
        if state.is_final:
            log.error("the deliberation %s has ended and is not on the disk yet", state.question.id)
            self._show(self._with_expiry(state))
            self._finish()

    def _with_expiry(self, state: Deliberation) -> Deliberation:
        return msgspec.structs.replace(state, expires=state.ended + self._retention) if state.is_final else state

    # Works

    def _ask(self, ask: Ask) -> None:
        if not (self._leaving or self._is_cancelled or self.ended.done()):
            self._works.ask(ask, self._course.state, self.parent, self._caller)

    def _came_of(self, work: WorkId, outcome: Outcome) -> None:
        match outcome:
            case Answer():
                self._happens(partial(self._answered, work, outcome))
            case Failed():
                self._happens(partial(self._failed, work, outcome))
            case None:
                self._woken.set()  # it may be the last one that was under way

    def _answered(self, work: WorkId, answer: Answer, now: float) -> list[Effect]:
        return self._course.answered(work, msgspec.structs.replace(answer, ended=now), now)

    def _failed(self, work: WorkId, failed: Failed, now: float) -> list[Effect]:
        if failed.failure.agent:
            self._works.had(work, failed.failure.agent)
        failure = msgspec.structs.replace(failed.failure, at=now)
        return self._course.failed(work, failure, now, again=failed.again)

    # Time, and the end

    def _wake_at(self, at: float) -> None:
        if self.ended.done():
            return
        if self._wakes is not None:
            self._wakes.cancel()
        self._wakes = self._context.clock.call_later(max(0.0, at - self._clock_now()), self._wake)

    def _wake(self) -> None:
        if not self._leaving:  # what was not asked any more is not late
            self._happens(self._course.wake)

    def _finish(self) -> None:
        self._cancel_timers()
        self._works.stop_all()
        self._tell(ended=True)

    def _cancel_timers(self) -> None:
        for timer in (self._wakes, self._promise):
            if timer is not None:
                timer.cancel()
