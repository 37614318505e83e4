"""What travels between a hub and its agents: seven small, flat, immutable messages.

Every transport moves these and nothing else. They are flat on purpose (strings and integers, one list of
strings): each wire format can then carry them without a nested encoder, and JSON stays opaque text that only
its producer and its final reader look into.

Identifiers
    A task is one client request. It is sent to an agent as *attempts*, numbered from 1; every message about a
    task names ``(hub_id, task_id, attempt)``, so that whatever an abandoned attempt still sends is recognised
    and dropped. ``hub_id`` is there because an agent may serve several hubs.
Time
    No wall-clock time crosses the wire. ``time_left_ms`` is what remains of a deadline; stage times are
    CLOCK_MONOTONIC nanoseconds, comparable between processes only when their ``boot_id`` is the same.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["chat", "completion", "embedding"]
State = Literal["starting", "ready", "draining", "failed"]


class HubInfo(msgspec.Struct, frozen=True):
    """Who the sending end of a plane is.

    ``incarnation`` differs in each life of the process; two hubs alive at once never share a ``hub_id``.
    ``lease_ms`` is how long the hub may be silent before its agents consider it lost, on transports that
    detect that natively.
    """

    hub_id: str
    incarnation: int
    host: str = ""
    pid: int = 0
    lease_ms: int = 1000


class AgentInfo(msgspec.Struct, frozen=True):
    """What does not change in one life (incarnation) of an agent.

    ``capabilities`` are the task kinds and features its engine offers (``chat``, ``completion``,
    ``embedding``, ``resume`` …). ``lease_ms`` is how long the agent may be silent before it counts as lost.
    ``boot_id`` tells whether its stage times are comparable with the reader's.
    """

    agent_id: str
    incarnation: int
    host: str = ""
    pid: int = 0
    engine: str = ""
    specialization: str = ""
    capabilities: tuple[str, ...] = ()
    device: str = ""
    boot_id: str = ""
    lease_ms: int = 1000


class AgentStatus(msgspec.Struct, frozen=True):
    """What changes while an agent lives. Sent at every change and as heartbeat; the newest replaces the older.

    ``slots`` is how many tasks it runs at once, ``active`` how many it runs now for all hubs, ``queued`` how
    many it has accepted but not begun. ``resources`` are free-form gauges (``cpu_percent``, ``rss_bytes`` …).
    ``detail`` says why when ``state`` is ``failed``.
    """

    agent_id: str
    incarnation: int
    state: State = "ready"
    models: tuple[str, ...] = ()
    slots: int = 1
    active: int = 0
    queued: int = 0
    resources: dict[str, float] = msgspec.field(default_factory=dict)
    detail: str = ""


class TaskRequest(msgspec.Struct, frozen=True):
    """One attempt of one task.

    ``body`` is the OpenAI request as JSON text, untouched. ``credit`` is how many chunks the reader can take
    before it sends `Credit`. ``resume`` is the text an earlier attempt has already delivered: the engine goes
    on where it ends. ``time_left_ms`` is 0 when there is no deadline. ``hops`` counts the orchestrators
    that passed it on to another one; ``trace`` is a W3C traceparent or empty. ``priority``: higher is more urgent, 0 is
    normal.
    """

    hub_id: str
    task_id: str
    attempt: int
    kind: Kind
    model: str
    body: str
    stream: bool = False
    resume: str = ""
    priority: int = 0
    time_left_ms: int = 0
    credit: int = 0
    hops: int = 0
    trace: str = ""


class Chunk(msgspec.Struct, frozen=True):
    """A piece of an answer; the last one has ``final`` set, and a unary answer is one final chunk.

    A chunk that has no deltas, no ``extra`` and is not final says only that the agent has the attempt (it was
    accepted). It takes no credit and is never shown. An agent sends one for an attempt of which nothing was sent one
    heartbeat after its request came, also for a unary one.


    ``seq`` is the number of the first of its ``deltas`` in this attempt, counted from 0, so the next chunk's
    ``seq`` is ``seq + len(deltas)``. Several deltas travel together only when they were already waiting.
    ``extra`` is JSON text for what text cannot carry: the OpenAI ``choices`` list of this delta or answer when
    it holds more than plain text of choice 0, or an object with ``choices`` and the members beside it, or an
    embedding's ``data`` list; such a chunk has one delta.
    ``usage`` is the OpenAI usage object as JSON text, ``error`` that of `anywire.errors.to_wire`; both are
    empty when there is none. The four stage times are the agent's, 0 when not reached.
    """

    hub_id: str
    task_id: str
    attempt: int
    seq: int
    deltas: tuple[str, ...] = ()
    extra: str = ""
    final: bool = False
    finish_reason: str = ""
    usage: str = ""
    error: str = ""
    received_ns: int = 0
    started_ns: int = 0
    first_ns: int = 0
    last_ns: int = 0


class Cancel(msgspec.Struct, frozen=True):
    """Stop this attempt, and no other one. It is answered by a final chunk with error ``cancelled`` once the engine has
    ended, unless the attempt has ended already. Unknown attempts are remembered: a cancel may overtake its request,
    which is then answered in the same way."""

    hub_id: str
    task_id: str
    attempt: int
    reason: str = ""


class Credit(msgspec.Struct, frozen=True):
    """The reader of this stream can take ``chunks`` more."""

    hub_id: str
    task_id: str
    attempt: int
    chunks: int


class Drain(msgspec.Struct, frozen=True):
    """Finish what you have, refuse what comes: sent by a hub's operator to an agent."""

    hub_id: str
    reason: str = ""


ToAgent = TaskRequest | Cancel | Credit | Drain
