"""What is noted of a traced task until it has ended."""

from __future__ import annotations

from itertools import islice

from anywire.tracing import TraceContext
from anywire_service_opentelemetry.span import Attributes, SpanEvent

MAX_EVENTS = 64
"""Of one task; a task that is held and offered again and again has no more of them."""
MAX_WAITS = 128
MAX_OTHERS = 32
"""Attempts before it to which an attempt has links: the newest ones."""


class OpenAttempt:
    """``began_ns`` and ``ended_ns`` are monotonic times, the latter 0 while it goes on. ``is_sent``: its agent was sent
    it, or may have been. ``others`` are the attempts before it, as far as `MAX_OTHERS`."""

    __slots__ = ("agent_id", "began_ns", "ended_ns", "error", "is_sent", "number", "others", "span_id")

    def __init__(self, number: int, span_id: str, began_ns: int, others: tuple[OpenAttempt, ...]) -> None:
        self.number, self.span_id, self.began_ns, self.others = number, span_id, began_ns, others
        self.agent_id = self.error = ""
        self.is_sent, self.ended_ns = False, 0

    @property
    def is_open(self) -> bool:
        return self.is_sent and not self.ended_ns


class Wait:
    """A time in the queue, from ``began_ns`` to ``ended_ns`` (monotonic)."""

    __slots__ = ("attributes", "began_ns", "ended_ns")

    def __init__(self, began_ns: int, ended_ns: int, attributes: Attributes) -> None:
        self.began_ns, self.ended_ns, self.attributes = began_ns, ended_ns, attributes


class OpenTask:
    """``given`` is the trace that it was submitted with, ``trace`` its own. ``offset_ns`` is what is added to a
    monotonic time for nanoseconds since 1970. ``is_root``: no span of this process is above it. ``waits_since_ns`` is 0
    while it does not wait."""

    __slots__ = (
        "attempts",
        "content",
        "events",
        "given",
        "has_ended",
        "is_root",
        "offset_ns",
        "parent",
        "span_id",
        "state",
        "trace",
        "trace_id",
        "waits",
        "waits_since_ns",
    )

    def __init__(
        self, trace_id: str, span_id: str, parent: str, state: str, given: str, offset_ns: int, *, is_root: bool
    ) -> None:
        self.trace_id, self.span_id, self.parent, self.state, self.given = trace_id, span_id, parent, state, given
        self.offset_ns, self.is_root = offset_ns, is_root
        self.trace = TraceContext(trace_id, span_id, True, state).text
        self.attempts: dict[int, OpenAttempt] = {}
        self.events: list[SpanEvent] = []
        self.waits: list[Wait] = []
        self.waits_since_ns = 0
        self.content = ""
        self.has_ended = False

    @property
    def has_open_attempts(self) -> bool:
        return any(each.is_open for each in self.attempts.values())

    def begin_attempt(self, number: int, span_id: str, now_ns: int) -> None:
        others = tuple(islice(reversed(self.attempts.values()), MAX_OTHERS))[::-1]
        self.attempts[number] = OpenAttempt(number, span_id, now_ns, others)

    def happens(self, name: str, at_ns: int, attributes: Attributes) -> None:
        """Note an event of the task at a monotonic time."""
        if len(self.events) < MAX_EVENTS:
            self.events.append(SpanEvent(name, at_ns + self.offset_ns, attributes))

    def wait_ends(self, at_ns: int, attributes: Attributes) -> None:
        """It waits no more. Does nothing where it did not wait."""
        if self.waits_since_ns and len(self.waits) < MAX_WAITS:
            self.waits.append(Wait(self.waits_since_ns, at_ns, attributes))
        self.waits_since_ns = 0
