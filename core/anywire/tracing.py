"""The contract of a tracer: whoever makes one trace of everything that is done for a client's request.

A trace is carried as text: a W3C ``traceparent``, after a space its ``tracestate`` if there is one, or empty. It stands
in `anywire.submission.Submission`, in each `anywire.messages.TaskRequest`, and in the head of every event of the task.
Without a tracer it is passed on as the client has sent it. A tracer puts a span of its own in the place of the client's
(the request's, the task's, the attempt's), so that whatever follows is below that span.

There is at most one tracer for an orchestrator. A service brings it with `Tracing.use`. While there is none a task
costs one look at an attribute. What a tracer raises is its failure: the trace stays as it was.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from contextvars import ContextVar
from typing import NamedTuple

from anywire.boundary import Boundary
from anywire.submission import Submission

PARENT_CHARS = 55
"""Characters of a ``traceparent`` of the version 00."""
MAX_STATE_CHARS = 512
"""Characters of the longest ``tracestate`` that is passed on: what the standard lets everybody expect."""
MAX_TRACE_CHARS = 1024
"""Characters of the longest trace that is carried: a ``traceparent`` of a later version may be longer than ours."""
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")


class TraceContext(NamedTuple):
    """What a trace's text says. ``state`` is its ``tracestate``."""

    trace_id: str
    span_id: str
    sampled: bool
    state: str = ""

    @property
    def text(self) -> str:
        """As it is carried."""
        parent = f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"
        return f"{parent} {self.state}" if self.state else parent


def read_trace(text: str) -> TraceContext | None:
    """What a trace's text says; None for an empty one, and for one that the standard has us ignore."""
    if not text:
        return None
    parent, _, state = text.partition(" ")
    found = _TRACEPARENT.fullmatch(parent)
    if found is None:
        return None
    version, trace_id, span_id, flags = found.groups()
    if version == "ff" or not trace_id.strip("0") or not span_id.strip("0") or (version == "00" and len(parent) > 55):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1), state)


def sampled_ids(text: str) -> tuple[str, str] | None:
    """The ids of trace and span of a trace that somebody keeps; None for every other one."""
    found = read_trace(text)
    return (found.trace_id, found.span_id) if found is not None and found.sampled else None


class Scope:
    """The span of a request that a gateway answers.

    ``trace`` is that of its tasks; empty where it is not kept. ``parent`` is the trace that it was begun with, the
    client's.
    """

    trace: str = ""
    parent: str = ""
    is_ended: bool = False

    def end(self, error: str = "", status: int = 0, task_id: str = "") -> None:
        """It is over. ``error`` is a code, empty for success. ``status`` is the HTTP status, 0 where there is none.
        ``task_id`` is that of the task whose answer it was. Only the first call counts."""
        self.is_ended = True


CURRENT: ContextVar[Scope | None] = ContextVar("anywire_scope", default=None)
"""The request that is being answered. A gateway sets it while it answers one; tasks that are submitted meanwhile are
below it."""


class Tracer(ABC):
    """Each method is called on the event loop and must return quickly."""

    @abstractmethod
    def begin(self, name: str, trace: str, attributes: dict[str, str] | None = None) -> Scope:
        """Begin the span of a request, below ``trace``, which the client names. ``attributes`` are told of the span.
        It has no ``trace`` where that is not kept."""

    @abstractmethod
    def task(self, task_id: str, submission: Submission) -> str:
        """A task was taken in: the trace that its events have and that its attempts are below. It is that of
        ``submission`` where this task is not traced."""

    @abstractmethod
    def attempt(self, task_id: str, number: int, trace: str) -> str:
        """The trace that an attempt carries to its agent. ``trace`` is what `task` gave; attempts are numbered from
        1."""


class Tracing:
    """The tracer of one orchestrator, if there is one; what it raises is told to ``boundary``."""

    def __init__(self, boundary: Boundary) -> None:
        self._boundary, self._name = boundary, ""
        self._tracer: Tracer | None = None
        self.is_on = False
        """Whether there is a tracer."""

    def use(self, name: str, tracer: Tracer) -> None:
        """Ask ``tracer`` of the plugin ``name`` from now on. Raises ValueError where there is another one."""
        if self._tracer is not None and self._tracer is not tracer:
            raise ValueError(f"there is a tracer already, that of the {self._name}")
        self._tracer, self._name, self.is_on = tracer, name, True

    def end(self, tracer: Tracer) -> None:
        """Ask it no more; does nothing where it is not asked."""
        if self._tracer is tracer:
            self._tracer, self._name, self.is_on = None, "", False

    def begin(self, name: str, trace: str, attributes: dict[str, str] | None = None) -> Scope:
        """See `Tracer.begin`; a scope without a trace where there is no tracer."""
        tracer = self._tracer
        if tracer is None:
            return Scope()
        return self._boundary.call(self._name, "begin", tracer.begin, name, trace, attributes, otherwise=Scope())

    def task(self, task_id: str, submission: Submission) -> str:
        """See `Tracer.task`; the trace of ``submission`` without a tracer."""
        tracer, trace = self._tracer, submission.trace
        if tracer is None:
            return trace
        return self._boundary.call(self._name, "task", tracer.task, task_id, submission, otherwise=trace)

    def attempt(self, task_id: str, number: int, trace: str) -> str:
        """See `Tracer.attempt`; ``trace`` without a tracer."""
        tracer = self._tracer
        if tracer is None or not trace:
            return trace
        return self._boundary.call(self._name, "attempt", tracer.attempt, task_id, number, trace, otherwise=trace)
