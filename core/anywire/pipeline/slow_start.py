"""Slow start: an agent that is new, or back from a failure, is given its slots one after the other."""

from __future__ import annotations

from collections.abc import Callable

from anywire.clock import Clock, Timer
from anywire.pipeline.groups import Member

SHORTEST_STEP = 0.01


class SlowStart:
    """In ``seconds`` an agent gets all its slots, the first at once; ``grew(member)`` is told of each further one."""

    def __init__(self, clock: Clock, seconds: float, grew: Callable[[Member], None]) -> None:
        self._clock, self._seconds, self._grew = clock, seconds, grew
        self._timers: dict[str, Timer] = {}

    @property
    def any(self) -> bool:
        """Whether an agent has not got all its slots yet."""
        return bool(self._timers)

    def begin(self, member: Member) -> None:
        """It has one slot now. Does nothing where there is no slow start."""
        if self._seconds:
            self.end(member)
            member.room = 1
            self._step(member)

    def end(self, member: Member) -> None:
        """It has all its slots, or is gone."""
        member.room = None
        timer = self._timers.pop(member.view.agent_id, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _step(self, member: Member) -> None:
        pause = max(SHORTEST_STEP, self._seconds / max(1, member.view.status.slots))
        self._timers[member.view.agent_id] = self._clock.call_later(pause, self._grow, member)

    def _grow(self, member: Member) -> None:
        room = (member.room or 0) + 1
        if room < member.view.status.slots:
            member.room = room
            self._step(member)
        else:
            self.end(member)
        self._grew(member)
