"""Requests with a lifespan that their agents have not confirmed: which of them have expired."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from anywire.clock import Timer
from anywire.lease import AwakeTime

CONFIRMATION_TIME = 0.1
"""Seconds that the confirmation of a request may be on its way, beyond the lifespan."""

MOST = 65_536
"""Requests watched at a time; of more the oldest are left to the pipeline's own timeouts."""

_Link = TypeVar("_Link")


class _Request(NamedTuple, Generic[_Link]):
    link: _Link
    due: float


class Unconfirmed(Generic[_Link]):
    """Calls ``expired(link, task_id, attempt)`` for each request that was not confirmed within ``lifespan`` seconds.

    Time in which this process did not run does not count, and ``read()`` is called before: it takes in what has
    arrived, confirmations among it.
    """

    def __init__(
        self,
        lifespan: float,
        awake: AwakeTime,
        read: Callable[[], object],
        expired: Callable[[_Link, str, int], object],
    ) -> None:
        self.lifespan = lifespan
        self._awake, self._read, self._expired = awake, read, expired
        self._requests: dict[tuple[str, int], _Request[_Link]] = {}
        """The one due first comes first."""
        self._timer: Timer | None = None

    def __len__(self) -> int:
        """Requests watched."""
        return len(self._requests)

    def sent(self, link: _Link, task_id: str, attempt: int) -> None:
        """A request was sent."""
        due = self._awake.now() + self.lifespan + CONFIRMATION_TIME
        self._requests.pop((task_id, attempt), None)
        self._requests[task_id, attempt] = _Request(link, due)
        if len(self._requests) > MOST:
            del self._requests[next(iter(self._requests))]
        self._arm()

    def confirmed(self, link: _Link, task_id: str, attempt: int) -> None:
        """Its agent has that request."""
        request = self._requests.get((task_id, attempt))
        if request is not None and request.link is link:
            del self._requests[task_id, attempt]

    def lost(self, link: _Link) -> None:
        """This link is over."""
        self._requests = {key: request for key, request in self._requests.items() if request.link is not link}

    def close(self) -> None:
        """Forget all of them; nothing is called any more."""
        self._requests.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is None and self._requests:
            due = next(iter(self._requests.values())).due
            delay = max(due - self._awake.now(), self._awake.tick)
            self._timer = self._awake.clock.call_later(delay, self._check)

    def _check(self) -> None:
        self._timer = None
        try:
            if not self._awake.was_away:
                self._read()
                self._expire(self._awake.now())
        finally:
            self._arm()

    def _expire(self, now: float) -> None:
        for key, request in list(self._requests.items()):
            if request.due > now:
                return
            if self._requests.pop(key, None) is not None:
                self._expired(request.link, *key)
