"""What agents offer of the members' models, which decides the form in which they are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from anywire.context import Context
from anywire.event_bus import EventBus
from anywire.events import AgentChanged, AgentJoined, Event, OfferChanged
from anywire.offers import Offer


class ServedModels:
    """Remembers the offers of each model: while its agents are away it is asked as before."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._events: EventBus = context.events
        self._last: dict[str, Sequence[Offer]] = {}
        self._waiting: dict[int, Callable[[], None]] = {}
        self._number = 0
        self._unsubscribe: Callable[[], None] = lambda: None

    def offers(self, model: str) -> Sequence[Offer]:
        """Those that there are now, else the last ones; empty while nobody has offered it yet."""
        found = [offer for _, offer in self._context.offers().get(model, ())]
        if found:
            self._last[model] = found
        return found or self._last.get(model, ())

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Meanwhile call ``wake`` whenever an agent joins or offers something else."""
        if not self._waiting:
            kinds = (AgentJoined, AgentChanged, OfferChanged)
            self._unsubscribe = self._events.subscribe("service deliberation", self._changed, *kinds)
        self._number += 1
        number = self._number
        self._waiting[number] = wake
        try:
            yield
        finally:
            del self._waiting[number]
            if not self._waiting:
                self._unsubscribe()

    def _changed(self, event: Event) -> None:
        for wake in self._waiting.values():
            wake()
