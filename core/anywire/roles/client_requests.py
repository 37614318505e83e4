"""What a client asks for, as the pipeline takes it in."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from anywire.caller import Caller
from anywire.errors import InvalidRequest
from anywire.messages import Kind
from anywire.submission import MAX_NAME_CHARS, MAX_NAMES, NO_HINTS, Hints, Submission, checked_hints

MAX_PRIORITY = 2**31


class TaskOptions(msgspec.Struct, frozen=True):
    """What a task may carry beside its request, for whoever chooses an agent.

    ``session`` names the conversation it belongs to, ``parent`` the task that it was made by. Of agents (by id), at
    most 64 each, those to ``prefer`` are used while one of them is free, and those to ``avoid`` only when no other one
    could take the task. ``hints`` are at most 16 short strings or numbers (``{"urgency": "high"}``), ``policy`` is the
    name of a policy. ``tenant`` is who pays. ``attempts`` bounds how often the task is sent, 0 leaves that to the
    orchestrator. All of them are handed on down a tree of orchestrators.
    """

    session: str = ""
    parent: str = ""
    prefer: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    hints: Hints = NO_HINTS
    policy: str = ""
    tenant: str = ""
    attempts: int = 0


NO_OPTIONS = TaskOptions()


def submission_of(
    kind: Kind,
    request: dict[str, Any],
    stream: bool,
    deadline: float,
    priority: int,
    trace: str,
    options: TaskOptions = NO_OPTIONS,
) -> Submission:
    """Raises `InvalidRequest` naming what is no value of its kind."""
    if deadline < 0 or math.isnan(deadline):
        raise InvalidRequest(f"the deadline must be 0 or more seconds, not {deadline}", param="deadline")
    if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        raise InvalidRequest(f"the priority must be between -{MAX_PRIORITY} and {MAX_PRIORITY}", param="priority")
    try:
        body = msgspec.json.encode(request).decode()
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"the request cannot be written as JSON: {error}") from error
    if options is NO_OPTIONS and not trace:
        return Submission(kind, request["model"], body, stream, priority, deadline, trace)
    _check_texts(
        trace=trace, session=options.session, parent=options.parent, policy=options.policy, tenant=options.tenant
    )
    if not 0 <= options.attempts <= MAX_PRIORITY:
        raise InvalidRequest("attempts must be 0 or more", param="attempts")
    return Submission(
        kind,
        request["model"],
        body,
        stream,
        priority,
        deadline,
        trace,
        caller=Caller(tenant=options.tenant),
        session=options.session,
        parent=options.parent,
        policy=options.policy,
        hints=checked_hints(options.hints) if options.hints else NO_HINTS,
        prefer=_names(options.prefer, "prefer"),
        avoid=_names(options.avoid, "avoid"),
        attempts_left=options.attempts,
    )


def _check_texts(**texts: str) -> None:
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > MAX_NAME_CHARS or not text.isprintable():
            raise InvalidRequest(f"{name} must be a printable text of at most {MAX_NAME_CHARS} characters", param=name)


def _names(names: tuple[str, ...], param: str) -> tuple[str, ...]:
    names = tuple(names)
    if len(names) > MAX_NAMES or not all(names):
        raise InvalidRequest(f"{param} must be at most {MAX_NAMES} ids of agents", param=param)
    for name in names:
        _check_texts(**{param: name})
    return names
