"""Whose the tasks are that a gateway process brings to its orchestrator.

A gateway process is a child of the orchestrator and has asked each client for its key. What comes by its link is
believed: the tenant is that of the task, and where other tasks name the one that made them, these name their caller and
what of its limits is counted. Only the orchestrator sees the tasks of all gateway processes, so it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from anywire.access import OpenAccess
from anywire.caller import NO_LIMITS, ROLES, Caller, Limits, Role
from anywire.errors import InvalidRequest
from anywire.messages import Command, TaskRequest
from anywire.roles.link_callers import LinkCallers
from anywire.submission import Submission
from anywire.transport import Transport

MAX_LIMIT = 2**53 - 1
"""The greatest limit that is told apart from none."""


def vouched(submission: Submission) -> Submission:
    """``submission`` as a gateway process hands it to its pipeline: it names its caller, and what of the limits is
    counted is left to the orchestrator. One whose caller is nobody's key names nobody, whatever its client says."""
    caller = submission.caller
    if not caller.id:
        return msgspec.structs.replace(submission, parent="") if submission.parent else submission
    here = Caller(caller.id, caller.tenant, caller.role, _uncounted(caller.limits))
    return msgspec.structs.replace(submission, caller=here, parent=_told(caller.id, caller.role, caller.limits))


class VouchedCallers(LinkCallers):
    """The callers of what gateway processes bring."""

    def __init__(self, transports: Sequence[Transport]) -> None:
        super().__init__("client", transports, OpenAccess())

    def of_task(self, task: TaskRequest, link: int) -> Caller:
        if not task.parent:
            return Caller("", task.tenant)
        caller_id, role, limits = _read(task.parent)
        return Caller(caller_id, task.tenant, role, limits)

    def of_command(self, command: Command, link: int) -> Caller:
        """Gateway processes send none."""
        return Caller(command.hub_id, command.tenant)


@lru_cache(maxsize=1024)
def _uncounted(limits: Limits) -> Limits:
    """What of ``limits`` needs no counting: models and the highest priority."""
    kept = Limits(limits.models, limits.max_priority)
    return NO_LIMITS if kept == NO_LIMITS else kept


@lru_cache(maxsize=1024)
def _told(caller_id: str, role: Role, limits: Limits) -> str:
    counted = (limits.requests_per_minute, limits.concurrency, limits.tokens_per_day)
    return " ".join([role, *(str(min(each, MAX_LIMIT)) for each in counted), caller_id])


@lru_cache(maxsize=1024)
def _read(told: str) -> tuple[str, Role, Limits]:
    """The id, role and counted limits in a text of `_told`. Raises `InvalidRequest` for another one."""
    role, *counted, caller_id = ["", *told.split(" ", 4)][-5:]
    if role not in ROLES or not caller_id or not all(each.isascii() and each.isdecimal() for each in counted):
        raise InvalidRequest("this task does not name its caller as a gateway process does")
    requests, concurrency, tokens = (min(int(each), MAX_LIMIT) for each in counted)
    limits = Limits(requests_per_minute=requests, concurrency=concurrency, tokens_per_day=tokens)
    return caller_id, role, NO_LIMITS if limits == NO_LIMITS else limits
