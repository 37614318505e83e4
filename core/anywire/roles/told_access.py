"""Whoever is not let in is told to who observes: `anywire.events.AccessRefused`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from anywire.access import Access, KnownKey, ListsKeys, Presented
from anywire.caller import Caller
from anywire.errors import Unauthenticated
from anywire.event_bus import EventBus
from anywire.events import AccessRefused

MAX_TEXT = 256
"""Characters of a peer's name and of a reason."""


def told_access(access: Access, bus: EventBus) -> Access:
    """``access``, whose refusals ``bus`` is told of. Where nobody needs a key none is refused, and it comes back as it
    is."""
    return _ToldAccess(access, bus) if access.needs_key else access


class _ToldAccess:
    needs_key = True

    def __init__(self, access: Access, bus: EventBus) -> None:
        self._access, self._bus = access, bus
        self.listen: Callable[[Callable[[str], None]], Callable[[], None]] = access.listen

    def caller(self, presented: Presented) -> Caller:
        try:
            return self._access.caller(presented)
        except Unauthenticated as error:
            if AccessRefused in self._bus.wanted:
                self._bus.publish(
                    AccessRefused,
                    peer=presented.peer[:MAX_TEXT],
                    presented=_way(presented),
                    message=str(error)[:MAX_TEXT],
                )
            raise

    def still(self, caller: Caller) -> Caller | None:
        return self._access.still(caller)

    def known_keys(self) -> Sequence[KnownKey]:
        return self._access.known_keys() if isinstance(self._access, ListsKeys) else ()


def _way(presented: Presented) -> str:
    if presented.token:
        return "token"
    if presented.public_key:
        return "proof"
    if presented.certificate:
        return "certificate"
    return "nothing" if presented.uid is None else "user"
