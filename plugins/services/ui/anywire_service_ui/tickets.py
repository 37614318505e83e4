"""Paths that lead to one document once, for a moment.

A frame of a page cannot show a key, and a key in a path would stay in logs. So the page asks for a path with its key,
and the frame loads from there: nobody can guess it, it counts once, and only for some seconds.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import Generic, TypeVar

from anywire.clock import Clock

T = TypeVar("T")

VALID_S = 30.0
"""Seconds for which a ticket counts."""
MAX_TICKETS = 64
"""Tickets that count at a time: the oldest one goes for a new one."""
BYTES = 24


class Tickets(Generic[T]):
    """What tickets stand for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def issue(self, what: T) -> str:
        """A new ticket for ``what``."""
        self._forget_old()
        while len(self._waiting) >= MAX_TICKETS:
            self._waiting.popitem(last=False)
        ticket = secrets.token_urlsafe(BYTES)
        self._waiting[ticket] = (self._clock.now() + VALID_S, what)
        return ticket

    def take(self, ticket: str) -> T | None:
        """What a ticket stands for, once; None for one that does not count (any more)."""
        self._forget_old()
        found = self._waiting.pop(ticket, None)
        return None if found is None else found[1]

    def _forget_old(self) -> None:
        now = self._clock.now()
        while self._waiting and next(iter(self._waiting.values()))[0] <= now:
            self._waiting.popitem(last=False)
