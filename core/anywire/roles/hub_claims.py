"""What a hub may say to an agent: a stranger's values are checked against their type and bounds before anything is
done.

Each check returns what is wrong as part of a sentence, empty when nothing is.
"""

from __future__ import annotations

from typing import get_args

from anywire.caller import Role
from anywire.messages import MAX_COMMAND_BYTES, Cancel, Command, Credit, HubInfo, Kind, TaskRequest
from anywire.pipeline.fleet.claims import (
    MAX_COUNT,
    MAX_DEPTH,
    MAX_NAME,
    MAX_TIME_MS,
    is_count,
    is_flag,
    is_name,
    is_names,
    is_one_of,
    is_proof,
    is_text,
    is_whole,
)
from anywire.pipeline.services.commands import COMMAND_NAME
from anywire.submission import MAX_HINT_CHARS, MAX_HINTS, MAX_NAMES
from anywire.tracing import MAX_TRACE_CHARS

MAX_HOPS = 1024
MAX_HINTS_TEXT = MAX_HINTS * MAX_HINT_CHARS * 12
"""Characters of hints as JSON text, every one of them escaped."""
MAX_PRIORITY = 2**31

_KINDS = frozenset(get_args(Kind))
_ROLES = frozenset(get_args(Role))


def check_hub(hub: HubInfo) -> str:
    """What is wrong with a hub's hello."""
    if not is_name(hub.hub_id) or not is_count(hub.incarnation, 2**63):
        return "a hello whose id or incarnation is none"
    if not all(map(is_text, (hub.host, hub.protocol))) or not is_proof(hub.proof):
        return "a hello whose host, protocol or proof is not printable or too long"
    return ""


def check_task_name(task: TaskRequest) -> str:
    """Whether it can be answered at all."""
    if not is_name(task.task_id) or not is_count(task.attempt, MAX_COUNT) or task.attempt == 0:
        return "a task whose id or attempt is none"
    return ""


def check_task(task: TaskRequest) -> str:
    """What is wrong with a task that has a name."""
    if _is_plain(task):
        return ""
    if not is_one_of(task.kind, _KINDS):
        return "its kind is none that this agent knows"
    if not is_name(task.model):
        return "its model is no name"
    if not (type(task.body) is str and type(task.resume) is str):
        return "its body is no text"
    if not (is_flag(task.stream) and is_flag(task.progress)):
        return "stream or progress are neither true nor false"
    if not is_whole(task.priority, -MAX_PRIORITY, MAX_PRIORITY):
        return "its priority is out of bounds"
    if not (is_count(task.time_left_ms, MAX_TIME_MS) and is_count(task.hops, MAX_HOPS)):
        return "its deadline or its hops are out of bounds"
    if not (is_count(task.credit, MAX_COUNT) and is_count(task.attempts_left, MAX_COUNT)):
        return "its credit or its attempts are out of bounds"
    if not all(map(is_text, (task.tenant, task.session, task.parent, task.policy))):
        return "its tenant, session, parent or policy is no short text"
    if type(task.trace) is not str or len(task.trace) > MAX_TRACE_CHARS or not task.trace.isprintable():
        return "its trace is no short text"
    if not (is_names(task.prefer, MAX_NAMES) and is_names(task.avoid, MAX_NAMES)):
        return f"the agents to prefer or to avoid are no list of at most {MAX_NAMES} names"
    if type(task.hints) is not str or len(task.hints) > MAX_HINTS_TEXT:
        return "its hints are no short text"
    return ""


def _is_plain(task: TaskRequest) -> bool:
    """Whether all is right at first sight with a task that has no trace, parent, policy, hints or wishes for agents:
    this is asked for every task."""
    return (
        is_one_of(task.kind, _KINDS)
        and type(task.model) is str
        and 0 < len(task.model) <= MAX_NAME
        and task.model.isprintable()
        and type(task.body) is str
        and type(task.resume) is str
        and type(task.stream) is bool
        and type(task.progress) is bool
        and type(task.time_left_ms) is int
        and type(task.credit) is int
        and type(task.hops) is int
        and type(task.attempts_left) is int
        and 0 <= task.time_left_ms <= MAX_TIME_MS
        and 0 <= task.credit <= MAX_COUNT
        and 0 <= task.hops <= MAX_HOPS
        and 0 <= task.attempts_left <= MAX_COUNT
        and type(task.priority) is int
        and -MAX_PRIORITY <= task.priority <= MAX_PRIORITY
        and type(task.tenant) is str
        and len(task.tenant) <= MAX_NAME
        and task.tenant.isprintable()
        and type(task.session) is str
        and len(task.session) <= MAX_NAME
        and task.session.isprintable()
        and task.trace == task.parent == task.policy == task.hints == ""
        and task.prefer == task.avoid == ()
    )


def check_command(command: Command) -> str:
    if not is_name(command.id) or not isinstance(command.name, str) or not COMMAND_NAME.fullmatch(command.name):
        return "a command whose id or name is none"
    if type(command.arguments) is not str or len(command.arguments) > MAX_COMMAND_BYTES:
        return f"a command whose arguments are no text of at most {MAX_COMMAND_BYTES} bytes"
    if not is_names(command.target, MAX_DEPTH):
        return f"a command whose target is no list of at most {MAX_DEPTH} names"
    if not (is_count(command.time_left_ms, MAX_TIME_MS) and is_count(command.credit, MAX_COUNT)):
        return "a command whose deadline or credit is out of bounds"
    if not is_text(command.tenant) or not is_one_of(command.role, _ROLES):
        return "a command whose tenant or role is none"
    return ""


def check_cancel(cancel: Cancel) -> str:
    if not is_name(cancel.task_id) or not is_count(cancel.attempt, MAX_COUNT):
        return "a cancel whose task or attempt is none"
    if type(cancel.reason) is not str:
        return "a cancel whose reason is no text"
    return ""


def check_credit(credit: Credit) -> str:
    if not is_name(credit.task_id) or not is_count(credit.attempt, MAX_COUNT):
        return "a credit whose task or attempt is none"
    if not is_count(credit.chunks, MAX_COUNT) or credit.chunks == 0:
        return "a credit for a number of chunks that is out of bounds"
    return ""
