"""A plugin that counts every event; `events.py` measures what that costs."""

from collections import Counter

from anywire.event_bus import EventBus
from anywire.events import Event
from anywire.hookspecs import hookimpl

counts: Counter[type[Event]] = Counter()


def _count(event: Event) -> None:
    counts[type(event)] += 1


@hookimpl
def anywire_subscribe(events: EventBus) -> None:
    events.subscribe("counting", _count)
