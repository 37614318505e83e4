"""How what goes wrong is told over gRPC: a status, a sentence, and what programs read in the trailing metadata."""

from __future__ import annotations

from typing import NamedTuple

import grpc

from anywire import errors
from anywire.errors import AnywireError
from anywire.printable import printable
from anywire_service_deliberation.record import Deliberation

Status = grpc.StatusCode

MAX_DETAILS_CHARS = 600
"""Characters of a sentence. Clients take 8 KiB of trailing metadata, and gRPC writes 12 bytes for some characters."""

_BY_CODE: dict[type[AnywireError], grpc.StatusCode] = {
    errors.Unauthenticated: Status.UNAUTHENTICATED,
    errors.Forbidden: Status.PERMISSION_DENIED,
    errors.QueueFull: Status.RESOURCE_EXHAUSTED,
    errors.LimitReached: Status.RESOURCE_EXHAUSTED,
    errors.PayloadTooLarge: Status.RESOURCE_EXHAUSTED,
    errors.ShuttingDown: Status.UNAVAILABLE,
    errors.NoAgent: Status.UNAVAILABLE,
    errors.DeadlineTooShort: Status.DEADLINE_EXCEEDED,
    errors.DeadlineExceeded: Status.DEADLINE_EXCEEDED,
    errors.TaskCancelled: Status.ABORTED,
    errors.ReaderStalled: Status.ABORTED,
    errors.ModelNotFound: Status.FAILED_PRECONDITION,
    errors.ModelStopped: Status.FAILED_PRECONDITION,
}
_BY_HTTP = {404: Status.NOT_FOUND, 409: Status.FAILED_PRECONDITION}
"""Of an `InvalidRequest` that names such a status."""

FIELDS = {
    "task": "task_description",
    "id": "task_id",
    "members": "num_agents or agents",
    "timeout": "constraints.timeout_seconds",
    "requirements": "constraints.requirements",
    "rubric": "constraints.rubric",
    "metadata": "constraints.metadata",
}
"""The fields of a message by the member of a request that is made of them."""


class Fault(NamedTuple):
    code: grpc.StatusCode
    details: str
    trailing: tuple[tuple[str, str], ...] = ()


class Ended(Exception):
    """A deliberation whose client waits for the winner has ended without one."""

    def __init__(self, state: Deliberation) -> None:
        super().__init__(state.status)
        self.state = state


def fault_of(error: AnywireError | Ended) -> Fault:
    if isinstance(error, Ended):
        code = Status.DEADLINE_EXCEEDED if error.state.status == "timed_out" else Status.ABORTED
        return Fault(code, _cut(why(error.state)), (("anywire-status", error.state.status),))
    trailing = [("anywire-code", error.code)]
    if error.retry_after > 0:
        trailing.append(("retry-after", f"{error.retry_after:g}"))
    text = error.message
    if isinstance(error, errors.InvalidRequest):
        code = _BY_HTTP.get(error.status, Status.INVALID_ARGUMENT)
        if error.detail_code == "id_reused":
            code = Status.ALREADY_EXISTS
        field = FIELDS.get(error.param.partition(".")[0])
        text = f"{field}: {text}" if field else text
    else:
        code = _BY_CODE.get(type(error), Status.INTERNAL)
    return Fault(code, _cut(text), tuple(trailing))


def why(state: Deliberation) -> str:
    """How a deliberation that has no winner to show ended, and why."""
    reason = state.reason or "no reason is known"
    return f"the deliberation {state.question.id} {state.status.replace('_', ' ')}: {reason}"


def _cut(text: str) -> str:
    return printable(text, MAX_DETAILS_CHARS)
