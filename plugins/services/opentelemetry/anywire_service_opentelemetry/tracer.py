"""The tracer: it decides which requests are traced, notes what happens to their tasks, and makes spans of it.

It subscribes to events only while there is a traced task. A task that is not traced costs the decision alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from time import time_ns
from typing import Any

from anywire import events
from anywire.clock import Timer
from anywire.context import Context
from anywire.submission import Submission
from anywire.tracing import CURRENT, Scope, TraceContext, Tracer, read_trace
from anywire_service_opentelemetry import names
from anywire_service_opentelemetry.ids import is_kept, new_span_id, new_trace_id
from anywire_service_opentelemetry.open_task import OpenTask
from anywire_service_opentelemetry.span import Attributes, Span, Value
from anywire_service_opentelemetry.task_spans import attempt_span, task_spans

MAX_OPEN = 10_000
"""Tasks that are traced at once; further ones are not traced, and counted."""
MAX_LEAVING = 1000
"""Tasks that have ended while attempts of theirs go on; the oldest are forgotten."""
MAX_READ = 1024 * 1024
"""Characters of a request whose texts are put into its span; a larger one takes long to read."""
REST = 5.0
"""Seconds after which events are heard no more where no task is traced."""


class RequestScope(Scope):
    """The span of a request, until `end`."""

    def __init__(
        self, keep: Callable[[Span], None], context: TraceContext, given: str, parent: str, name: str, told: Attributes
    ) -> None:
        self.trace, self.parent = context.text, given
        self._keep, self._context, self._above, self._name = keep, context, parent, name
        self._told, self._began_ns = told, time_ns()

    def end(self, error: str = "", status: int = 0, task_id: str = "") -> None:
        if self.is_ended:
            return
        self.is_ended = True
        told: dict[str, Value] = dict(self._told)
        if status:
            told[names.HTTP_STATUS] = status
        if task_id:
            told[names.TASK] = task_id
        if error:
            told[names.ERROR_TYPE] = error
        context = self._context
        self._keep(
            Span(
                context.trace_id,
                context.span_id,
                self._above,
                self._name,
                "server",
                self._began_ns,
                max(self._began_ns, time_ns()),
                told,
                error if status >= 500 or not status else "",
                state=context.state,
            )
        )


class SpanTracer(Tracer):
    """``keep`` takes each span that has ended. ``content_chars`` is how much of a request's text a span has, 0 for
    none. Close it."""

    def __init__(
        self,
        context: Context,
        keep: Callable[[Span], None],
        *,
        ratio: float,
        follow_clients: bool,
        content_chars: int = 0,
    ) -> None:
        self._context, self._keep = context, keep
        self._ratio, self._follows, self._content_chars = ratio, follow_clients, content_chars
        self._open: dict[str, OpenTask] = {}
        self._leaving: dict[str, OpenTask] = {}
        self._unsubscribe: Callable[[], None] | None = None
        self._rest: Timer | None = None
        self.not_traced = 0
        """Tasks that should have been traced when there were too many."""

    def close(self) -> None:
        self._open.clear()
        self._leaving.clear()
        self._stop_hearing()

    # What the pipeline and gateways call

    def begin(self, name: str, trace: str, attributes: dict[str, str] | None = None) -> Scope:
        found = self._decided(trace)
        if found is None:
            return Scope()
        context = TraceContext(found.trace_id, new_span_id(), True, found.state)
        return RequestScope(self._keep, context, trace, found.span_id, name, attributes or {})

    def task(self, task_id: str, submission: Submission) -> str:
        given = submission.trace
        above, is_root = self._above(submission)
        if above is None:
            return given
        if len(self._open) >= MAX_OPEN:
            self.not_traced += 1
            return given
        now_ns = self._context.clock.now_ns()
        task = OpenTask(
            above.trace_id, new_span_id(), above.span_id, above.state, given, time_ns() - now_ns, is_root=is_root
        )
        task.waits_since_ns = now_ns
        if self._content_chars:
            task.content = messages_text(submission.body, self._content_chars)
        self._open[task_id] = task
        self._hear()
        return task.trace

    def attempt(self, task_id: str, number: int, trace: str) -> str:
        task = self._open.get(task_id)
        if task is None:
            return trace
        span_id = new_span_id()
        task.begin_attempt(number, span_id, self._context.clock.now_ns())
        return TraceContext(task.trace_id, span_id, True, task.state).text

    def trace_of(self, task_id: str) -> str:
        """The trace of a task that goes on; empty where it is not traced."""
        task = self._open.get(task_id)
        return task.trace if task is not None else ""

    # Which tasks are traced

    def _above(self, submission: Submission) -> tuple[TraceContext | None, bool]:
        """The span that a new task is below (its id is empty for a new trace), and whether no span of this process is
        above it; no span where the task is not traced."""
        given, scope = submission.trace, CURRENT.get()
        if scope is not None and scope.is_ended:
            scope = None
        parent = self._open.get(submission.parent) if submission.parent else None
        if parent is not None and given in ("", parent.given, parent.trace):
            above = TraceContext(parent.trace_id, parent.span_id, True, parent.state)
            if scope is None or above.trace_id in scope.trace:
                return above, False
        if scope is not None and (not scope.trace or given in ("", scope.parent)):
            return read_trace(scope.trace), False
        if not given and submission.parent:
            return None, False  # as what made it
        return self._decided(given), True

    def _decided(self, trace: str) -> TraceContext | None:
        """The span of the client that is above, or a trace without one; None where the trace is not kept."""
        found = read_trace(trace)
        if found is None:
            if not self._ratio:
                return None
            trace_id = new_trace_id()
            return TraceContext(trace_id, "", True) if is_kept(trace_id, self._ratio) else None
        kept = found.sampled if self._follows else is_kept(found.trace_id, self._ratio)
        return found if kept else None

    # What happens to them

    def _hear(self) -> None:
        if self._unsubscribe is None:
            self._unsubscribe = self._context.events.subscribe("service opentelemetry", self._happened, *_HANDLERS)

    def _happened(self, event: Any) -> None:
        task = self._open.get(event.task_id) or self._leaving.get(event.task_id)
        if task is not None:
            _HANDLERS[type(event)](self, task, event)

    def _stop_hearing(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _rest_over(self) -> None:
        self._rest = None
        if not self._open and not self._leaving:
            self._stop_hearing()

    def _held(self, task: OpenTask, event: events.TaskHeld) -> None:
        task.happens("held", event.at_ns, {names.REASON: event.why})

    def _dispatched(self, task: OpenTask, event: events.TaskDispatched) -> None:
        told: dict[str, Value] = {
            names.SELECTOR: event.selector,
            names.CANDIDATES: event.candidates,
            names.AGENT: event.agent_id,
            names.RESPONSE_MODEL: event.model,
        }
        if event.reason:
            told[names.REASON] = event.reason
        task.wait_ends(event.at_ns, told)

    def _requeued(self, task: OpenTask, event: events.TaskRequeued) -> None:
        task.waits_since_ns = task.waits_since_ns or event.at_ns
        task.happens("sent again", event.at_ns, {names.ERROR_TYPE: event.error, names.ATTEMPT: event.attempt})

    def _preempted(self, task: OpenTask, event: events.TaskPreempted) -> None:
        task.waits_since_ns = task.waits_since_ns or event.at_ns
        task.happens("preempted", event.at_ns, {names.ATTEMPT: event.attempt})

    def _fell_back(self, task: OpenTask, event: events.TaskFellBack) -> None:
        told = {names.REQUEST_MODEL: event.before, names.RESPONSE_MODEL: event.model, names.ERROR_TYPE: event.error}
        task.happens("fell back", event.at_ns, told)

    def _sent(self, task: OpenTask, event: events.AttemptSent) -> None:
        if event.attempt in task.attempts:
            task.attempts[event.attempt].is_sent = True

    def _attempt_ended(self, task: OpenTask, event: events.AttemptEnded) -> None:
        attempt = task.attempts.get(event.attempt)
        if attempt is None or attempt.ended_ns:
            return
        attempt.is_sent, attempt.ended_ns = True, event.at_ns
        attempt.error, attempt.agent_id = event.error, event.agent_id
        self._keep(attempt_span(task, attempt, event))
        if task.has_ended and not task.has_open_attempts:
            self._leaving.pop(event.task_id, None)

    def _ended(self, task: OpenTask, event: events.TaskEnded) -> None:
        self._open.pop(event.task_id, None)
        task.has_ended = True
        if task.has_open_attempts:
            self._leaving[event.task_id] = task
            if len(self._leaving) > MAX_LEAVING:
                del self._leaving[next(iter(self._leaving))]
        for span in task_spans(task, event):
            self._keep(span)
        if not self._open and self._rest is None:
            self._rest = self._context.clock.call_later(REST, self._rest_over)


_HANDLERS: dict[type[events.Event], Callable[[SpanTracer, OpenTask, Any], None]] = {
    events.TaskHeld: SpanTracer._held,
    events.TaskDispatched: SpanTracer._dispatched,
    events.TaskRequeued: SpanTracer._requeued,
    events.TaskPreempted: SpanTracer._preempted,
    events.TaskFellBack: SpanTracer._fell_back,
    events.AttemptSent: SpanTracer._sent,
    events.AttemptEnded: SpanTracer._attempt_ended,
    events.TaskEnded: SpanTracer._ended,
}


def messages_text(body: str, most: int) -> str:
    """The messages of a request as the conventions write them, as JSON; at most so many characters. A prompt stands for
    one message of the user, an input too; of an image or a sound only its type is told. Empty for a request of more
    than `MAX_READ`."""
    if len(body) > MAX_READ:
        return ""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(asked, dict):
        return ""
    messages = asked.get("messages")
    if not isinstance(messages, list):
        messages = [{"role": "user", "content": asked.get("prompt", asked.get("input", ""))}]
    told = [
        {
            "role": str(each.get("role", "user")),
            "parts": _parts(each.get("content")),
        }
        for each in messages
        if isinstance(each, dict)
    ]
    return json.dumps(told, ensure_ascii=False)[:most]


def _parts(content: Any) -> list[dict[str, Any]]:
    """The parts of a message. Their data may be megabytes, in the place of the texts behind them."""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return [{"type": "text", "content": content}]
    texts = [(part.get("text"), str(part.get("type", ""))) for part in content]
    return [{"type": "text", "content": text} if isinstance(text, str) else {"type": kind} for text, kind in texts]
