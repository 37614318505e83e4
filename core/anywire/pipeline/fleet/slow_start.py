"""Slow start: an agent that is new, or back after a failure or an order, is given its slots one after the other."""

from __future__ import annotations

from collections.abc import Callable

from anywire.clock import Clock, Timer
from anywire.pipeline.fleet.groups import Member

SHORTEST_STEP = 0.01


class _Start:
    """``began`` is when its time began to count, 0 while it is not ready."""

    __slots__ = ("began", "timer")

    def __init__(self) -> None:
        self.began = 0.0
        self.timer: Timer | None = None


class SlowStart:
    """In ``seconds`` an agent gets all its slots, the first at once: after a part of that time it has that part of
    them, and one more. The time counts from when it is ready. ``grew(member)`` is called when it has got more as time
    went by, ``told(member)`` whenever it has another number of slots than before: its first, more, or all."""

    def __init__(
        self, clock: Clock, seconds: float, grew: Callable[[Member], None], told: Callable[[Member], None]
    ) -> None:
        self._clock, self._seconds, self._grew, self._told = clock, seconds, grew, told
        self._starts: dict[str, _Start] = {}
        self.any = False
        """Whether an agent has not got all its slots yet."""

    def begin(self, member: Member) -> None:
        """It has one slot now. Does nothing where there is no slow start."""
        if self._seconds:
            self._forget(member)
            member.room = 1
            self._starts[member.view.agent_id] = _Start()
            self.any = True
            self.changed(member)

    def changed(self, member: Member) -> None:
        """Its state or its slots are others: how many of them it may use is reckoned anew."""
        start = self._starts.get(member.view.agent_id)
        if start is None:
            return
        is_first = not start.began and member.ready
        if is_first:
            start.began = self._clock.now()
        if start.began:
            self._settle(member, start, is_first)

    def end(self, member: Member) -> None:
        """It has all its slots, or is gone."""
        before, member.room = member.room, None
        if self._forget(member) and before is not None and before < member.view.status.slots:
            self._told(member)

    def close(self) -> None:
        """Begin with none any more."""
        self._seconds = 0.0
        for start in self._starts.values():
            if start.timer is not None:
                start.timer.cancel()
        self._starts.clear()
        self.any = False

    def _forget(self, member: Member) -> bool:
        start = self._starts.pop(member.view.agent_id, None)
        self.any = bool(self._starts)
        if start is not None and start.timer is not None:
            start.timer.cancel()
        return start is not None

    def _settle(self, member: Member, start: _Start, is_first: bool = False) -> None:
        if start.timer is not None:
            start.timer.cancel()
            start.timer = None
        slots, seconds, gone = member.view.status.slots, self._seconds, self._clock.now() - start.began
        if gone >= seconds:
            self.end(member)
            return
        # A timer may come as little early as numbers are inexact.
        before, room = member.room, 1 + int(slots * gone / seconds + 1e-6)
        member.room = room
        next_in = seconds * room / slots - gone if room < slots else seconds - gone
        start.timer = self._clock.call_later(max(SHORTEST_STEP, next_in), self._grow, member, start)
        if is_first or room != before:
            self._told(member)

    def _grow(self, member: Member, start: _Start) -> None:
        start.timer = None
        self._settle(member, start)
        self._grew(member)
