"""Everything that happens and that somebody may want to know of: frozen structs, published by `anywire.event_bus`.

Each event has a head: ``id``, the life of the bus and a number that grows by one with every event of that life
(``3f2a9c01-17``); ``version`` of its struct; ``at_ns``, CLOCK_MONOTONIC nanoseconds; ``time``, seconds since 1970;
``tenant`` and ``caller`` (an id) of the task it is about; ``trace``, its W3C traceparent; ``priority``. Of what is
about no task these are empty. As JSON an event names its ``type`` (``task.admitted``). Fields are added, never
changed; what changes gets a new ``version``.

Texts of tasks are in no event: who may see them follows the task (`anywire.context.Context.follow`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from anywire.caller import Caller
from anywire.decision import Considered, LeftOut
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


class TaskPrefix(Event, frozen=True, kw_only=True, tag="task.prefix"):
    """How the prompt of a task that was taken in begins. ``prefix`` has a word for each block of it
    (`anywire.demand.prefix_hashes`): prompts that begin alike have the same first words. The words are made with a
    secret of this life of the orchestrator: nothing of the text follows from them, and they compare with those of no
    other life. To make them takes time, so they are told only to who names this type."""

    task_id: str
    prefix: tuple[str, ...]


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


class TaskPreempted(Event, frozen=True, kw_only=True, tag="task.preempted"):
    """Its attempt was stopped for an urgent task, and it waits for another one: for the ``times``-th time."""

    task_id: str
    attempt: int
    times: int


class TaskFellBack(Event, frozen=True, kw_only=True, tag="task.fell_back"):
    """A task is for another model now: ``before`` is served by nobody (``error`` is ``no_agent``), or its attempts have
    failed, the last one with ``error``, a code. ``model`` is the one in its place."""

    task_id: str
    before: str
    model: str
    error: str


class TaskDispatched(Event, frozen=True, kw_only=True, tag="task.dispatched"):
    """An agent was chosen, to answer with ``model``, one of those that the request names. ``candidates`` is how many
    could have taken the task, ``scores`` and ``reason`` are the selector's, empty when it gave none. ``waited_ms``
    is the time since the task was admitted. ``considered`` are the first of the candidates, ``left_out`` the agents
    that were filtered out before (`anywire.decision`), ``took_us`` is how long filters and selector took."""

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
    took_us: float = 0.0
    considered: tuple[Considered, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


class TaskEnded(Event, frozen=True, kw_only=True, tag="task.ended"):
    """A task has its end, and its reader has it too. ``error`` is a code, empty for an answer; ``message`` is for a
    person, ``origin`` says who failed (`anywire.errors.Origin`), empty for an answer. ``attempts`` counts all that were
    sent, those below a child orchestrator included. ``prompt_tokens`` and ``tokens`` are the engine's count, 0 when it
    gave none. ``deltas`` are the pieces of text of an answer's last attempt; ``first_ms`` is the time from the task's
    receipt to its first token, 0 when none came."""

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
    origin: str = ""


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
    """An attempt has ended at its agent, and its slot is free. ``error`` is a code, empty for an answer; ``origin``
    says who failed, which is the pipeline where it has cancelled the attempt. Times are milliseconds since it was sent;
    ``first_ms`` is 0 when no token came."""

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
    origin: str = ""


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
    """``transport`` names one of its links, ``model`` one of its models; both are empty for the agent itself.
    ``state`` is `anywire.agent_health.HealthState`, of links and models never ``quarantined``; ``reason`` the code that
    its failures had most often, ``evidence`` how many it had of each since it was well, ``trips`` how often its breaker
    has opened lately, ``retry_in_ms`` the time until it is tried next, 0 where that is not waited for."""

    agent_id: str
    state: str
    transport: str = ""
    reason: str = ""
    evidence: Mapping[str, int] = {}
    trips: int = 0
    retry_in_ms: int = 0
    model: str = ""


class SlowStart(Event, frozen=True, kw_only=True, tag="agent.slow_start"):
    """An agent that is new, or back from a failure, may use ``given`` of its ``slots``: when it begins, with each
    further one, and when it has all of them. Not told where ``pipeline.breaker.slow_start`` is 0."""

    agent_id: str
    given: int
    slots: int


class AgentOrdered(Event, frozen=True, kw_only=True, tag="agent.ordered"):
    """An operator has ordered something of an agent. ``order`` is `anywire.agent_health.Order`, empty when what was
    ordered before is over; ``reason`` is what the operator said, ``caller`` who that is."""

    agent_id: str
    order: str
    reason: str = ""


class AgentOnDemand(Event, frozen=True, kw_only=True, tag="agent.on_demand"):
    """An agent is started while tasks wait, or is not needed any more. ``state`` is ``starting``, ``ready``, ``failed``
    (it could not be started, ``reason`` says why), ``leaving`` or ``ended``. ``waiting`` are the tasks that wait for an
    agent of its sort, ``agents`` those that are there on demand now."""

    agent_id: str
    state: str
    reason: str = ""
    waiting: int = 0
    agents: int = 0


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


class TaskCancelledBy(Event, frozen=True, kw_only=True, tag="task.cancelled"):
    """A caller has cancelled a task by its id; its end follows. ``by``, ``by_tenant`` and ``by_role`` are
    the caller that did so; ``caller`` and ``tenant`` are those of the task, as ever."""

    task_id: str
    by: str
    by_tenant: str
    by_role: str


class CommandBegun(Event, frozen=True, kw_only=True, tag="command.begun"):
    """A command to an agent was asked for by a caller with this ``role``; nothing was sent yet. ``target`` are the ids
    from an agent here down a tree. Arguments are in no event."""

    name: str
    target: tuple[str, ...]
    role: str


class CommandEnded(Event, frozen=True, kw_only=True, tag="command.ended"):
    """A command to an agent has ended. ``error`` is a code, empty when it was carried out, ``cancelled`` when nobody
    waits for its results any more. One that the caller may not send has no `CommandBegun`."""

    name: str
    target: tuple[str, ...]
    role: str
    error: str


class AccessRefused(Event, frozen=True, kw_only=True, tag="access.refused"):
    """Somebody was not let in. ``peer`` names it as the log does, ``presented`` says what it has shown: ``token``,
    ``certificate``, ``user``, ``proof`` or ``nothing``; ``message`` repeats nothing of that."""

    peer: str
    presented: str
    message: str


class KeyChanged(Event, frozen=True, kw_only=True, tag="key.changed"):
    """A client's key was ``created``, ``changed``, ``revoked`` or is ``expired``. ``key_id`` is public; ``key_tenant``
    and ``key_role`` are those that the key gives."""

    key_id: str
    state: str
    key_tenant: str = ""
    key_role: str = ""


class AdmissionChanged(Event, frozen=True, kw_only=True, tag="admission.changed"):
    """The identity key ``fingerprint`` of an ``end`` (``agent`` or ``orchestrator``) was ``admitted``, ``bound`` to the
    id ``end_id``, ``refused`` or ``revoked``. ``reason`` is for a person."""

    fingerprint: str
    end: str
    state: str
    end_id: str = ""
    reason: str = ""


class ConfigReloaded(Event, frozen=True, kw_only=True, tag="config.reloaded"):
    """A file that counts while the process runs was read again. ``what`` is ``certificate``, ``keys``, ``admitted``,
    ``jwks`` or ``config``; ``error`` says why the earlier content still counts, empty when the new one does.
    ``restart`` names the settings of ``config`` whose new value counts after a restart."""

    what: str
    error: str = ""
    restart: tuple[str, ...] = ()


class PluginEvent(Event, frozen=True, kw_only=True, tag="plugin.event"):
    """A plugin's own: ``source`` is the plugin's name, ``name`` what happened, ``data`` JSON of at most 64 KiB."""

    source: str
    name: str
    data: Any = None


EVENTS: dict[str, type[Event]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        TaskAdmitted,
        TaskPrefix,
        TaskHeld,
        TaskRequeued,
        TaskPreempted,
        TaskFellBack,
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
        SlowStart,
        AgentOrdered,
        AgentOnDemand,
        OfferChanged,
        PluginFailure,
        OrchestratorChanged,
        TaskCancelledBy,
        CommandBegun,
        CommandEnded,
        AccessRefused,
        KeyChanged,
        AdmissionChanged,
        ConfigReloaded,
        PluginEvent,
    )
}
"""By type, as JSON names it."""

ON_REQUEST: frozenset[type[Event]] = frozenset({TaskPrefix})
"""Those that are told only to who names them: to make them takes time."""
USUAL: tuple[type[Event], ...] = tuple([kind for kind in EVENTS.values() if kind not in ON_REQUEST])
"""All that is told to who names no type."""

AnyEvent = (
    TaskAdmitted
    | TaskPrefix
    | TaskHeld
    | TaskRequeued
    | TaskPreempted
    | TaskFellBack
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
    | SlowStart
    | AgentOrdered
    | AgentOnDemand
    | OfferChanged
    | PluginFailure
    | OrchestratorChanged
    | TaskCancelledBy
    | CommandBegun
    | CommandEnded
    | AccessRefused
    | KeyChanged
    | AdmissionChanged
    | ConfigReloaded
    | PluginEvent
)
"""What ``msgspec.json.decode(text, type=AnyEvent)`` reads."""


MAX_TYPES_CHARS = 1024
"""Characters of a list of types."""


def read_types(text: str, param: str = "types") -> tuple[type[Event], ...]:
    """The types that a list names: ``task.ended,agent.*``; none, which stands for all usual ones, for an empty one.
    Raises `InvalidRequest` naming ``param`` for a type that does not exist."""
    if len(text) > MAX_TYPES_CHARS:
        raise InvalidRequest(f"{param} has {len(text)} characters, the limit is {MAX_TYPES_CHARS}", param=param)
    chosen: dict[type[Event], None] = {}
    for name in filter(None, map(str.strip, text.split(","))):
        found = [EVENTS[name]] if name in EVENTS else []
        if name.endswith("*"):
            found = [kind for kind in USUAL if str(kind.__struct_config__.tag).startswith(name[:-1])]
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
    SlowStart,
    AgentOrdered,
    AgentOnDemand,
    OfferChanged,
)


def is_shown(event: Event, caller: Caller) -> bool:
    """Whether ``caller`` may see an event. Who has the role ``use`` sees what is about its own tasks, and whether the
    orchestrator is open. What is about the fleet it sees where nobody has a key; else that is for who observes, as the
    list of agents is."""
    if caller.role != "use" or isinstance(event, OrchestratorChanged):
        return True
    if isinstance(event, _ABOUT_FLEET):
        return not caller.id
    return caller.sees(Caller(event.caller, event.tenant))
