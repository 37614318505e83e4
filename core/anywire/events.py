"""Everything that happens and that somebody may want to know of: frozen structs, published by `anywire.event_bus`.

Each event has a head: ``id``, the life of the bus and a number that grows by one with every event of that life
(``3f2a9c01-17``); ``version`` of its struct; ``at_ns``, CLOCK_MONOTONIC nanoseconds; ``time``, seconds since 1970;
``tenant`` and ``caller`` (an id) of the task it is about; ``trace``, its W3C traceparent; ``priority``. Of what is
about no task these are empty. As JSON an event names its ``type`` (``task.admitted``). Fields are added, never
changed; what changes gets a new ``version``.

Texts of tasks are in no event: who may see them follows the task (`anywire.context.Context.follow`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from anywire.caller import Caller
from anywire.errors import InvalidRequest
from anywire.messages import AgentInfo
from anywire.stages import Stages


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="type"):
    """The head of every event; see the module's text."""

    id: str
    at_ns: int
    time: float
    version: int = 1
    tenant: str = ""
    caller: str = ""
    trace: str = ""
    priority: int = 0


class TaskAdmitted(Event, frozen=True, kw_only=True, tag="task.admitted"):
    """A task was taken in and waits for its turn. ``prompt_chars`` is the size of its body, ``deadline_ms`` the time it
    has, 0 without end."""

    task_id: str
    kind: str
    model: str
    stream: bool
    session: str = ""
    parent: str = ""
    prompt_chars: int = 0
    deadline_ms: int = 0


class TaskHeld(Event, frozen=True, kw_only=True, tag="task.held"):
    """A task waits for something else than its turn: ``why`` says for what."""

    task_id: str
    why: str


class TaskRequeued(Event, frozen=True, kw_only=True, tag="task.requeued"):
    """A task waits again after an attempt that failed with ``error``, a code. ``attempt`` is the one to come."""

    task_id: str
    attempt: int
    error: str
    after_ms: int = 0


class TaskDispatched(Event, frozen=True, kw_only=True, tag="task.dispatched"):
    """An agent was chosen, to answer with ``model``, one of those that the request names. ``candidates`` is how many
    could have taken the task, ``scores`` and ``reason`` are the selector's, empty when it gave none. ``waited_ms``
    is the time since the task was admitted."""

    task_id: str
    attempt: int
    agent_id: str
    transport: str
    selector: str
    candidates: int
    waited_ms: float
    model: str
    scores: dict[str, float] = {}
    reason: str = ""


class TaskEnded(Event, frozen=True, kw_only=True, tag="task.ended"):
    """A task has its end, and its reader has it too. ``error`` is a code, empty for an answer; ``message`` is for a
    person. ``attempts`` counts all that were sent, those below a child orchestrator included. ``prompt_tokens`` and
    ``tokens`` are the engine's count, 0 when it gave none. ``deltas`` are the pieces of text of an answer's last
    attempt; ``first_ms`` is the time from the task's receipt to its first token, 0 when none came."""

    task_id: str
    kind: str
    model: str
    agent_id: str
    transport: str
    attempts: int
    error: str
    chunks: int
    prompt_chars: int
    stages: Stages
    message: str = ""
    prompt_tokens: int = 0
    tokens: int = 0
    session: str = ""
    parent: str = ""
    stream: bool = False
    deltas: int = 0
    first_ms: float = 0.0


class AttemptSent(Event, frozen=True, kw_only=True, tag="attempt.sent"):
    task_id: str
    attempt: int
    agent_id: str
    incarnation: int
    transport: str


class AttemptAccepted(Event, frozen=True, kw_only=True, tag="attempt.accepted"):
    """The agent has said that it has the attempt, before its first token."""

    task_id: str
    attempt: int
    agent_id: str


class AttemptProgress(Event, frozen=True, kw_only=True, tag="attempt.progress"):
    """``state`` as in `anywire.messages.Progress`."""

    task_id: str
    attempt: int
    agent_id: str
    state: str
    detail: str = ""


class AttemptStreaming(Event, frozen=True, kw_only=True, tag="attempt.streaming"):
    """The first token came, ``first_ms`` after the attempt was sent."""

    task_id: str
    attempt: int
    agent_id: str
    first_ms: float


class AttemptEnded(Event, frozen=True, kw_only=True, tag="attempt.ended"):
    """An attempt has ended at its agent, and its slot is free. ``error`` is a code, empty for an answer. Times are
    milliseconds since it was sent; ``first_ms`` is 0 when no token came."""

    task_id: str
    attempt: int
    agent_id: str
    transport: str
    error: str
    first_ms: float
    total_ms: float
    chunks: int
    prompt_tokens: int = 0
    tokens: int = 0


class AgentJoined(Event, frozen=True, kw_only=True, tag="agent.joined"):
    """A new incarnation of an agent is known (not for a further link of the same)."""

    agent_id: str
    info: AgentInfo
    transport: str


class AgentChanged(Event, frozen=True, kw_only=True, tag="agent.changed"):
    """An agent's state, slots or offers changed; a mere heartbeat is no change."""

    agent_id: str
    state: str
    slots: int
    models: tuple[str, ...]
    detail: str = ""


class AgentLost(Event, frozen=True, kw_only=True, tag="agent.lost"):
    """An agent's last link is gone; its tasks are queued again or have ended by now."""

    agent_id: str
    incarnation: int
    reason: str


class LinkUp(Event, frozen=True, kw_only=True, tag="link.up"):
    agent_id: str
    incarnation: int
    transport: str


class LinkLost(Event, frozen=True, kw_only=True, tag="link.lost"):
    agent_id: str
    incarnation: int
    transport: str
    reason: str


class HealthChanged(Event, frozen=True, kw_only=True, tag="health.changed"):
    """``transport`` is empty for the agent itself, else it names one of its links. ``state`` is ``ok``, ``cooling`` or
    ``probing``; ``reason`` the code of its newest failure."""

    agent_id: str
    state: str
    transport: str = ""
    reason: str = ""


class OfferChanged(Event, frozen=True, kw_only=True, tag="offer.changed"):
    """The state of a model at an agent; ``gone`` when it is not offered any more."""

    agent_id: str
    model: str
    state: str
    detail: str = ""


class PluginFailure(Event, frozen=True, kw_only=True, tag="plugin.failed"):
    """``call`` of a plugin raised, or did what its contract does not allow."""

    plugin: str
    call: str
    error: str
    task_id: str = ""


class OrchestratorChanged(Event, frozen=True, kw_only=True, tag="orchestrator.changed"):
    """``state`` is ``open`` once tasks are taken in, ``closing`` once none is any more, ``closed`` at the end."""

    hub_id: str
    state: str


class PluginEvent(Event, frozen=True, kw_only=True, tag="plugin.event"):
    """A plugin's own: ``source`` is the plugin's name, ``name`` what happened, ``data`` JSON of at most 64 KiB."""

    source: str
    name: str
    data: Any = None


EVENTS: dict[str, type[Event]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        TaskAdmitted,
        TaskHeld,
        TaskRequeued,
        TaskDispatched,
        TaskEnded,
        AttemptSent,
        AttemptAccepted,
        AttemptProgress,
        AttemptStreaming,
        AttemptEnded,
        AgentJoined,
        AgentChanged,
        AgentLost,
        LinkUp,
        LinkLost,
        HealthChanged,
        OfferChanged,
        PluginFailure,
        OrchestratorChanged,
        PluginEvent,
    )
}
"""By type, as JSON names it."""

AnyEvent = (
    TaskAdmitted
    | TaskHeld
    | TaskRequeued
    | TaskDispatched
    | TaskEnded
    | AttemptSent
    | AttemptAccepted
    | AttemptProgress
    | AttemptStreaming
    | AttemptEnded
    | AgentJoined
    | AgentChanged
    | AgentLost
    | LinkUp
    | LinkLost
    | HealthChanged
    | OfferChanged
    | PluginFailure
    | OrchestratorChanged
    | PluginEvent
)
"""What ``msgspec.json.decode(text, type=AnyEvent)`` reads."""


MAX_TYPES_CHARS = 1024
"""Characters of a list of types."""


def read_types(text: str, param: str = "types") -> tuple[type[Event], ...]:
    """The types that a list names: ``task.ended,agent.*``; none, which stands for all, for an empty one. Raises
    `InvalidRequest` naming ``param`` for a type that does not exist."""
    if len(text) > MAX_TYPES_CHARS:
        raise InvalidRequest(f"{param} has {len(text)} characters, the limit is {MAX_TYPES_CHARS}", param=param)
    chosen: dict[type[Event], None] = {}
    for name in filter(None, map(str.strip, text.split(","))):
        found = [EVENTS[name]] if name in EVENTS else []
        if name.endswith("*"):
            found = [kind for tag, kind in EVENTS.items() if tag.startswith(name[:-1])]
        if not found:
            raise InvalidRequest(f"there are no events {name[:64]!r}; known: {', '.join(EVENTS)}", param=param)
        chosen.update(dict.fromkeys(found))
    return tuple(chosen)


_ABOUT_FLEET = (
    AgentJoined,
    AgentChanged,
    AgentLost,
    LinkUp,
    LinkLost,
    HealthChanged,
    OfferChanged,
    OrchestratorChanged,
)


def is_shown(event: Event, caller: Caller) -> bool:
    """Whether ``caller`` may see an event: everybody sees what is about the fleet, who has the role ``use`` beside that
    what is about its own tasks."""
    if caller.role != "use" or isinstance(event, _ABOUT_FLEET):
        return True
    return caller.sees(Caller(event.caller, event.tenant))
