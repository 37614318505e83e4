"""The ``x-anywire-*`` headers, both ways."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from anywire.errors import InvalidRequest

MAX_TIMEOUT_S = 86_400.0
MAX_PRIORITY = 1000
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_UNPRINTABLE = re.compile(r"[^\x21-\x7e ]")


class TaskHeaders(NamedTuple):
    deadline_s: float = 0.0
    priority: int = 0
    trace: str = ""


_NONE = TaskHeaders()


def task_headers(headers: Mapping[str, str]) -> TaskHeaders:
    """What the request's headers say about its task. Raises `InvalidRequest` naming the header.

    ``x-anywire-timeout``: seconds until the task is given up. ``x-anywire-priority``: an integer, higher is more
    urgent. ``traceparent``: W3C trace context; one that is not valid is ignored, as that standard demands.
    """
    timeout = headers.get("x-anywire-timeout")
    priority = headers.get("x-anywire-priority")
    trace = headers.get("traceparent")
    if timeout is None and priority is None and trace is None:
        return _NONE
    return TaskHeaders(
        _timeout(timeout) if timeout is not None else 0.0,
        _priority(priority) if priority is not None else 0,
        trace if trace is not None and _TRACEPARENT.fullmatch(trace) else "",
    )


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_TIMEOUT_S:  # false for NaN too
        raise InvalidRequest(
            f"header x-anywire-timeout must be seconds above 0 and at most {MAX_TIMEOUT_S:.0f}, got {text[:64]!r}",
            param="x-anywire-timeout",
        )
    return seconds


def _priority(text: str) -> int:
    try:
        priority = int(text)
    except ValueError:
        priority = MAX_PRIORITY + 1
    if abs(priority) > MAX_PRIORITY:
        raise InvalidRequest(
            f"header x-anywire-priority must be an integer from -{MAX_PRIORITY} to {MAX_PRIORITY}, got {text[:64]!r}",
            param="x-anywire-priority",
        )
    return priority


def header_text(text: str) -> str:
    """``text`` with whatever a header cannot hold replaced: ids come from other machines."""
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub("?", text)


def stages_text(spans_ms: Mapping[str, float]) -> str:
    """Stage times in the syntax of ``Server-Timing``: ``received-admitted;dur=0.012, …``, in milliseconds."""
    return ", ".join([f"{name};dur={span:.3f}" for name, span in spans_ms.items()])
