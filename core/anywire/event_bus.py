"""Who wants to know what happens: the one bus of a process, to which everything that observes subscribes.

Publishing costs a look into a set while nobody subscribes to that type. A synchronous subscriber is called after the
state has changed, on the event loop; what it causes to be published is delivered after it, so that every subscriber
sees events in the order of their ids. A subscriber that raises is that plugin's failure: it is logged with its name and
counted, and the others are called all the same. A reader (`EventBus.reader`) is asynchronous: it has a queue of its
own, and what does not fit is left out and said (`Missed`).
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from anywire.boundary import Boundary
from anywire.clock import Clock, SystemClock, Timer
from anywire.errors import ConfigError
from anywire.events import EVENTS, ON_REQUEST, USUAL, Event, PluginEvent

HISTORY = 4096
"""Events that are kept for readers who come back."""
HISTORY_SECONDS = 600.0
"""How long they are kept, and added to, when there is no reader any more."""
MAX_PLUGIN_EVENT_BYTES = 64 * 1024
"""Bytes of a `PluginEvent`'s data as JSON."""
MAX_PLUGIN_NAME_CHARS = 128
MAX_CAUSED = 64
"""How many events may cause each other in a row. A subscriber that answers each event with another one is stopped
here."""

PUBLISH = "publish"
"""The call of a subscriber that caused too much, as failures name it."""

Subscriber = Callable[[Any], object]


class Missed(msgspec.Struct, frozen=True):
    """``count`` events were left out here: the reader was too slow."""

    count: int


class Reset(msgspec.Struct, frozen=True):
    """The position asked for is not kept: what follows begins with the oldest event there is, after a gap of unknown
    size."""


class _Subscription:
    """``ended``: it is called no more, not even for the event that is being delivered."""

    __slots__ = ("call", "ended", "name")

    def __init__(self, name: str, call: Subscriber) -> None:
        self.name, self.call, self.ended = name, call, False


class EventBus:
    """``boundary`` counts what subscribers do wrong."""

    def __init__(self, boundary: Boundary, clock: Clock | None = None) -> None:
        self._boundary, self._clock = boundary, clock or SystemClock()
        self._life = secrets.token_hex(4)
        self._number = 0
        self._subscribers: dict[type[Event], tuple[_Subscription, ...]] = {}
        self._pending: deque[tuple[Event, int]] = deque()
        """What is published and not delivered yet, each with how many events caused it in a row."""
        self._held = self._caused = 0
        self._calling = ""
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._keeps_history = False
        self._readers = 0
        self._history_end: Timer | None = None
        self.wanted: set[type[Event]] = set()
        """The types that somebody subscribes to: who publishes looks here first."""

    def publish(self, kind: type[Event], /, **fields: Any) -> None:
        """Deliver an event; its head's id and times are added. Does nothing while nobody wants that type."""
        if kind in self.wanted:
            self.deliver(kind(id=self.next_id(), at_ns=self._clock.now_ns(), time=time.time(), **fields))

    def next_id(self) -> str:
        """The id of the event to be made and delivered now, by a publisher that makes its events itself."""
        self._number += 1
        return f"{self._life}-{self._number}"

    def deliver(self, event: Event) -> None:
        """Deliver an event that has the newest id of `next_id`."""
        if self._caused >= MAX_CAUSED:
            self._number -= 1
            name = type(event).__name__
            what = f"caused {name} after {MAX_CAUSED} events that caused each other; that one is left out"
            self._boundary.failed(f"subscriber {self._calling}", PUBLISH, what)
            return
        self._pending.append((event, self._caused))
        if not self._held:
            self._deliver_pending()

    def hold(self) -> None:
        """Keep what is published until `release`: whoever changes state in several steps lets no subscriber see it in
        between. Holds may be nested."""
        self._held += 1

    def release(self) -> None:
        """End a `hold`, and deliver what was kept when it is the outermost one."""
        self._held -= 1
        if self._pending and not self._held:
            self._deliver_pending()

    def publish_plugin(
        self,
        source: str,
        name: str,
        data: Any,
        *,
        tenant: str = "",
        caller: str = "",
        trace: str = "",
        priority: int = 0,
    ) -> None:
        """Publish a `PluginEvent` with ``data`` as it is now, in plain JSON types. Raises `ConfigError` for data that
        is no JSON or too long, and for a source or name that is empty, too long or not printable."""
        if PluginEvent not in self.wanted:
            return
        for each in (source, name):
            if not 0 < len(each) <= MAX_PLUGIN_NAME_CHARS or not each.isprintable():
                raise ConfigError(
                    f"an event's source and name have 1 to {MAX_PLUGIN_NAME_CHARS} printable characters, "
                    f"not {each[: MAX_PLUGIN_NAME_CHARS + 1]!r}"
                )
        try:
            encoded = msgspec.json.encode(data)
            plain = msgspec.json.decode(encoded)
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise ConfigError(f"the event {name!r} of {source} holds what is no JSON: {error}") from error
        if len(encoded) > MAX_PLUGIN_EVENT_BYTES:
            raise ConfigError(
                f"the event {name!r} of {source} has {len(encoded)} bytes, the limit is {MAX_PLUGIN_EVENT_BYTES}"
            )
        self.publish(
            PluginEvent,
            source=source,
            name=name,
            data=plain,
            tenant=tenant,
            caller=caller,
            trace=trace,
            priority=priority,
        )

    def subscribe(self, name: str, subscriber: Subscriber, *kinds: type[Event]) -> Callable[[], None]:
        """Call ``subscriber(event)`` for every event of these kinds, of all usual ones when none is named; returns what
        ends that at once. ``name`` is the subscriber's in logs and counts. It must return quickly: everything waits for
        it.
        Raises `ConfigError` for a coroutine function: that is what `reader` is for."""
        if inspect.iscoroutinefunction(subscriber):
            raise ConfigError(f"the subscriber {name} is a coroutine function: let it read EventBus.reader() instead")
        subscription = _Subscription(name, subscriber)
        chosen = tuple(dict.fromkeys(kinds)) or USUAL
        for kind in chosen:
            self._subscribers[kind] = (*self._subscribers.get(kind, ()), subscription)
        self.wanted.update(chosen)

        def unsubscribe() -> None:
            if subscription.ended:
                return
            subscription.ended = True
            for kind in chosen:
                self._subscribers[kind] = tuple(each for each in self._subscribers[kind] if each is not subscription)
            self._forget_unwanted(chosen)

        return unsubscribe

    def reader(
        self,
        *kinds: type[Event],
        after: str = "",
        wants: Callable[[Event], bool] = lambda event: True,
        size: int = 1024,
    ) -> EventReader:
        """An asynchronous iterator of events of these kinds (all usual ones when none is named) for which ``wants`` is
        true.

        With ``after``, the id of the newest event that was read, it begins with what followed; `Reset` comes first when
        that is not kept any more. History is kept from the first reader on, until `HISTORY_SECONDS` after the last one.
        ``size`` bounds what may wait, beside what history had. Close it.
        """
        self._keep_history()
        earlier: list[Event] = []
        reset = False
        if after and after != f"{self._life}-{self._number}":
            kept = [event.id for event in self._history]
            begin = kept.index(after) + 1 if after in kept else 0
            earlier, reset = list(self._history)[begin:], not begin
        chosen = kinds or USUAL
        reader = EventReader(size, wants, [event for event in earlier if type(event) in chosen and wants(event)], reset)
        unsubscribe = self.subscribe("reader", reader.put, *chosen)

        def end() -> None:
            unsubscribe()
            self._readers -= 1
            if not self._readers:
                self._history_end = self._clock.call_later(HISTORY_SECONDS, self._end_history)

        reader.unsubscribe = end
        return reader

    def _keep_history(self) -> None:
        self._readers += 1
        self._keeps_history = True
        self.wanted.update(USUAL)
        if self._history_end is not None:
            self._history_end.cancel()
            self._history_end = None

    def _end_history(self) -> None:
        self._history_end = None
        self._keeps_history = False
        self._history.clear()
        self._forget_unwanted(tuple(EVENTS.values()))

    def _forget_unwanted(self, kinds: Iterable[type[Event]]) -> None:
        ended = [kind for kind in kinds if not self._subscribers.get(kind)]
        self.wanted.difference_update(ON_REQUEST.intersection(ended) if self._keeps_history else ended)

    def _deliver_pending(self) -> None:
        self._held += 1
        try:
            while self._pending:
                event, self._caused = self._pending.popleft()
                self._caused += 1
                self._deliver(event)
        finally:
            self._caused = 0
            self._held -= 1

    def _deliver(self, event: Event) -> None:
        if self._keeps_history:
            self._history.append(event)
        for subscription in self._subscribers.get(type(event), ()):
            if subscription.ended:
                continue
            self._calling = subscription.name
            try:
                subscription.call(event)
            except Exception as error:
                self._boundary.failed(f"subscriber {subscription.name}", type(event).__name__, error)


class EventReader:
    """Iterate it in one task; ``async with`` or `close` ends its subscription."""

    def __init__(self, size: int, wants: Callable[[Event], bool], earlier: Iterable[Event], reset: bool) -> None:
        self._wants = wants
        self._queue: deque[Event | Missed | Reset] = deque((Reset(),) if reset else ())
        self._queue.extend(earlier)
        self._size = size + len(self._queue)
        self._missed = 0
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self.unsubscribe: Callable[[], None] = lambda: None

    def put(self, event: Event) -> None:
        if not self._wants(event):
            return
        if len(self._queue) >= self._size:
            self._missed += 1
            return
        if self._missed:
            self._queue.append(Missed(self._missed))
            self._missed = 0
        self._queue.append(event)
        self._wake()

    def __aiter__(self) -> EventReader:
        return self

    async def __anext__(self) -> Event | Missed | Reset:
        if not await self._wait():
            raise StopAsyncIteration
        return self._queue.popleft()

    async def take(self) -> list[Event | Missed | Reset]:
        """Everything that waits now, at least one; an empty list once it is closed and read to its end."""
        await self._wait()
        taken = list(self._queue)
        self._queue.clear()
        return taken

    async def _wait(self) -> bool:
        """Until something can be read; False at the end."""
        while not self._queue:
            if self._missed:
                self._queue.append(Missed(self._missed))
                self._missed = 0
            elif self._closed:
                return False
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
        return True

    def close(self) -> None:
        """Want nothing more; idempotent. What waits can still be read."""
        if not self._closed:
            self._closed = True
            self.unsubscribe()
            self._wake()

    async def __aenter__(self) -> EventReader:
        return self

    async def __aexit__(self, *failure: object) -> None:
        self.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
