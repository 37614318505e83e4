"""What a request's headers say about its task, beside its body; all of it is optional.

| header | meaning | bounds |
|---|---|---|
| ``x-request-id`` | id of the request, which its answer and the log have too | 128 visible ASCII characters |
| ``x-anywire-timeout`` | seconds until the task is given up | above 0, at most 86400 |
| ``x-anywire-priority`` | higher is more urgent, 0 is normal | integer, -1000 to 1000 |
| ``x-anywire-session`` | names the conversation | 256 printable characters |
| ``x-anywire-parent`` | id of the task that makes this one, or of its answer (``chatcmpl-…``) | the same |
| ``x-anywire-prefer`` | ids of agents to prefer, separated by commas | 64 ids of 256 characters |
| ``x-anywire-avoid`` | ids of agents to avoid, separated by commas | the same |
| ``x-anywire-hints`` | ``a=b, c=1`` or a JSON object, for strategies | 16 of 128 characters each |
| ``x-anywire-policy`` | names a policy of the selector ``by_policy`` | 256 printable characters |
| ``x-anywire-attempts`` | attempts that the task may take | integer, 1 to 100 |
| ``x-anywire-progress`` | ``true``: the stream tells what its agent does | ``true`` or ``false``, ``1`` or ``0`` |
| ``x-anywire-stages`` | ``true``: a stream ends with a comment that tells its stage times | the same |
| ``x-anywire-explain`` | ``true``: the answer has ``x-anywire-decision``, how its agent was chosen | the same |
| ``x-anywire-background`` | ``true``: answered 202 with the task's id, and at ``tasks/{id}/answer`` | the same |
| ``idempotency-key`` | a request that is sent again with the same key runs once | 255 visible ASCII characters |
| ``cache-control`` | what the service `cache` may do: ``no-store``, ``no-cache``, ``max-age=5`` | 256 characters |
| ``tracestate`` | goes with ``traceparent`` | 512 characters |
| ``traceparent`` | W3C trace context; an invalid one is ignored, as that standard demands | 256 characters |
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from multidict import MultiMapping, istr

from anywire.caller import ANYBODY, Caller
from anywire.errors import InvalidRequest
from anywire.messages import Kind
from anywire.submission import MAX_NAME_CHARS, MAX_NAMES, NO_HINTS, Hints, Submission, checked_hints
from anywire.tracing import MAX_STATE_CHARS
from anywire_gateway_openai.answers import task_id_of
from anywire_gateway_openai.idempotency import KEY, MAX_KEY_CHARS

MAX_TIMEOUT_S = 86_400.0
MAX_PRIORITY = 1000
MAX_ATTEMPTS = 100
MAX_SHOWN = 64
"""Characters of a wrong value that the error shows."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_TRACEPARENT_HEADER = istr("traceparent")
_TRACESTATE = istr("tracestate")
_CACHE_CONTROL = istr("cache-control")
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}

_number = msgspec.json.Decoder(float).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode


class TaskHeaders(NamedTuple):
    """As in `anywire.submission.Submission`."""

    deadline_s: float = 0.0
    priority: int = 0
    trace: str = ""
    session: str = ""
    parent: str = ""
    policy: str = ""
    hints: Hints = NO_HINTS
    prefer: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    attempts_left: int = 0
    progress: bool = False
    explain: bool = False
    cache_control: str = ""
    stages: bool = False
    """Of the answer's form, and nothing of the task."""
    idempotency_key: str = ""
    background: bool = False

    def submission(
        self,
        kind: Kind,
        model: str,
        body: str,
        stream: bool,
        caller: Caller = ANYBODY,
        outline: str = "",
    ) -> Submission:
        """The task of a request with these headers. Only a stream can tell progress."""
        if self is NO_HEADERS:
            return Submission(kind, model, body, stream, caller=caller, outline=outline)
        fields = self._asdict() | {"progress": self.progress and stream}
        for name in _OF_THE_ANSWER:
            del fields[name]
        return Submission(kind, model, body, stream, **fields, caller=caller, outline=outline)


NO_HEADERS = TaskHeaders()
_OF_THE_ANSWER = ("stages", "idempotency_key", "background")


def task_headers(headers: Mapping[str, str]) -> TaskHeaders:
    """What the headers say; see the module's text. Raises `InvalidRequest` naming the header."""
    if _NAMES.isdisjoint(map(str.lower, headers)):
        return NO_HEADERS
    found: dict[str, Any] = {}
    for name, field, read in _READERS:
        text = headers.get(name)
        if text is not None:
            found[field] = read(name, text)
    if "cache_control" in found:
        found["cache_control"] = _cache_control("cache-control", _all_of(_CACHE_CONTROL, headers))
    if found.get("trace"):
        found["trace"] = _with_state(found["trace"], headers)
    return TaskHeaders(**found) if found else NO_HEADERS


def trace_of(headers: Mapping[str, str]) -> str:
    """The trace that the client names, as `anywire.tracing` carries it; empty without one."""
    text = headers.get(_TRACEPARENT_HEADER)
    trace = _trace("traceparent", text) if text else ""
    return _with_state(trace, headers) if trace else ""


def _all_of(name: str, headers: Mapping[str, str]) -> str:
    """A header that may come on several lines, which are one list together."""
    lines = headers.getall(name) if isinstance(headers, MultiMapping) else [headers[name]]
    return ", ".join(lines)


def _with_state(trace: str, headers: Mapping[str, str]) -> str:
    state = headers.get(_TRACESTATE)
    return f"{trace} {state}" if state and _is_trace_state(state) else trace


def _wrong(name: str, expected: str, text: str) -> InvalidRequest:
    return InvalidRequest(f"header {name} must be {expected}, got {text[:MAX_SHOWN]!r}", param=name)


def _timeout(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_TIMEOUT_S:  # false for NaN too
        raise _wrong(name, f"seconds above 0 and at most {MAX_TIMEOUT_S:.0f}", text)
    return seconds


def _integer(name: str, text: str, low: int, high: int) -> int:
    value = int(text) if _INTEGER.fullmatch(text) else high + 1
    if not low <= value <= high:
        raise _wrong(name, f"an integer from {low} to {high}", text)
    return value


def _priority(name: str, text: str) -> int:
    return _integer(name, text, -MAX_PRIORITY, MAX_PRIORITY)


def _attempts(name: str, text: str) -> int:
    return _integer(name, text, 1, MAX_ATTEMPTS)


def _trace(name: str, text: str) -> str:
    return text if len(text) <= MAX_NAME_CHARS and text.isprintable() and _TRACEPARENT.fullmatch(text) else ""


def _is_trace_state(text: str) -> bool:
    return len(text) <= MAX_STATE_CHARS and text.isascii() and text.isprintable()


def _cache_control(name: str, text: str) -> str:
    """Browsers send it by themselves, so what cannot be read is ignored."""
    return text.lower() if len(text) <= MAX_NAME_CHARS and text.isascii() and text.isprintable() else ""


def _name(name: str, text: str) -> str:
    if not 0 < len(text) <= MAX_NAME_CHARS or not text.isprintable():
        raise _wrong(name, f"1 to {MAX_NAME_CHARS} printable characters", text)
    return text


def _key(name: str, text: str) -> str:
    if not 0 < len(text) <= MAX_KEY_CHARS or not text.isascii() or not text.isprintable():
        raise _wrong(name, f"1 to {MAX_KEY_CHARS} visible ASCII characters", text)
    return text


def _task_id(name: str, text: str) -> str:
    return task_id_of(_name(name, text))


def _names(name: str, text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(each for part in text.split(",") if (each := part.strip())))
    if len(names) > MAX_NAMES or any(len(each) > MAX_NAME_CHARS or not each.isprintable() for each in names):
        raise _wrong(
            name, f"at most {MAX_NAMES} ids of at most {MAX_NAME_CHARS} printable characters, separated by commas", text
        )
    return names


def _hints(name: str, text: str) -> Hints:
    if text.startswith("{"):
        try:
            return checked_hints(_object(text), name)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise _wrong(name, "a JSON object, or a list such as a=b, c=1", text) from error
    hints: dict[str, object] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            raise _wrong(name, "a JSON object, or a list such as a=b, c=1", text)
        hints[key.strip()] = _value(value.strip())
    return checked_hints(hints, name)


def _value(text: str) -> str | float:
    try:
        return _number(text)
    except (msgspec.MsgspecError, UnicodeError):
        return text


def _flag(name: str, text: str) -> bool:
    flag = _FLAGS.get(text.lower())
    if flag is None:
        raise _wrong(name, "true or false", text)
    return flag


_READERS: tuple[tuple[str, str, Callable[[str, str], object]], ...] = (
    # An `istr` is looked up without being lowered first.
    (istr("x-anywire-timeout"), "deadline_s", _timeout),
    (istr("x-anywire-priority"), "priority", _priority),
    (_TRACEPARENT_HEADER, "trace", _trace),
    (istr("x-anywire-session"), "session", _name),
    (istr("x-anywire-parent"), "parent", _task_id),
    (istr("x-anywire-policy"), "policy", _name),
    (istr("x-anywire-hints"), "hints", _hints),
    (istr("x-anywire-prefer"), "prefer", _names),
    (istr("x-anywire-avoid"), "avoid", _names),
    (istr("x-anywire-attempts"), "attempts_left", _attempts),
    (istr("x-anywire-progress"), "progress", _flag),
    (istr("x-anywire-stages"), "stages", _flag),
    (istr("x-anywire-explain"), "explain", _flag),
    (_CACHE_CONTROL, "cache_control", _cache_control),
    (istr("x-anywire-background"), "background", _flag),
    (KEY, "idempotency_key", _key),
)
_NAMES = frozenset([str(name) for name, _, _ in _READERS])
"""In lower case. Most requests have none of them."""
