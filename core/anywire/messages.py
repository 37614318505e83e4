"""What travels between a hub and its agents: small, flat, immutable messages.

Every transport moves these and nothing else. They are flat on purpose (strings, integers, lists of strings): each wire
format can then carry them without a nested encoder, and JSON stays opaque text that only its producer and its final
reader look into.

Identifiers
    A task is one client request. It is sent to an agent as *attempts*, numbered from 1; every message about a
    task names ``(hub_id, task_id, attempt)``, so that whatever an abandoned attempt still sends is recognised
    and dropped. ``hub_id`` is there because an agent may serve several hubs. A command is named in the same way, with
    its id as ``task_id`` and 0 as ``attempt``.
Time
    No wall-clock time crosses the wire. ``time_left_ms`` is what remains of a deadline; stage times are
    CLOCK_MONOTONIC nanoseconds, comparable between processes only when their ``boot_id`` is the same.
Versions
    A hello carries the sender's ``protocol`` version (`anywire.protocol`). New fields have defaults and are added at
    the end, so that ends of neighbouring minor versions understand each other.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec

WholeKind = Literal["rerank", "tokenize", "detokenize", "transcription", "speech", "image"]
"""Kinds of tasks whose answer is one JSON object: they are never streamed, and not every engine has them."""
WHOLE_KINDS: frozenset[str] = frozenset(get_args(WholeKind))
Kind = Literal["chat", "completion", "embedding", WholeKind]
COMMON_KINDS: tuple[Kind, ...] = ("chat", "completion", "embedding")
"""What a service's offer that names no kinds stands for."""
State = Literal["starting", "ready", "draining", "failed"]
ProgressState = Literal["queued", "loading", "running", "tool"]

MAX_DELTAS = 100_000
"""Deltas of one `Chunk`. Empty ones are no payload, and yet each is looked at."""
MAX_COMMAND_BYTES = 64 * 1024
"""Bytes of a command's arguments, and of the data of one result."""
MAX_PROOF_CHARS = 1024
"""Characters of a proof: some 200 are needed."""


class HubInfo(msgspec.Struct, frozen=True):
    """Who the sending end of a plane is.

    ``incarnation`` differs in each life of the process; two hubs alive at once never share a ``hub_id``.
    ``lease_ms`` is how long the hub may be silent before its agents consider it lost, on transports that
    detect that natively. ``protocol`` is the version its end speaks; empty stands for this package's own where an end
    is opened, and on the wire for one from before versions were told. ``proof`` shows by which key this end is known
    (`anywire.identities.identity_proof`), empty for none. It is for the other end of the link alone: nobody else is
    shown it.
    """

    hub_id: str
    incarnation: int
    host: str = ""
    pid: int = 0
    lease_ms: int = 1000
    protocol: str = ""
    proof: str = ""


class AgentInfo(msgspec.Struct, frozen=True):
    """What does not change in one life (incarnation) of an agent.

    ``capabilities`` are the task kinds (`Kind`) and features its engine offers (``chat``, ``embedding``, ``rerank``,
    ``resume`` …). ``lease_ms`` is how long the agent may be silent before it counts as lost.
    ``boot_id`` tells whether its stage times are comparable with the reader's. ``protocol`` and ``proof``
    as in `HubInfo`.
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
    protocol: str = ""
    proof: str = ""


class AgentStatus(msgspec.Struct, frozen=True):
    """What changes while an agent lives. Sent at every change and as heartbeat; the newest replaces the older.

    ``offers`` is JSON text, a list of `anywire.offers.Offer`, empty when there is none. ``slots`` is how many tasks it
    runs at once, ``active`` how many it runs now for all hubs, ``queued`` how many it has accepted but not begun.
    ``resources`` are gauges by name; those of `GAUGES` mean the same everywhere. ``detail`` says why when ``state`` is
    ``failed``.
    """

    agent_id: str
    incarnation: int
    state: State = "ready"
    offers: str = ""
    slots: int = 1
    active: int = 0
    queued: int = 0
    resources: dict[str, float] = msgspec.field(default_factory=dict)
    detail: str = ""


GAUGES = {
    "cpu_percent": "processor in use on the agent's machine, 0 to 100 of all cores",
    "cpu_seconds": "processor seconds of the agent's process since its start",
    "load1": "load average of the machine over one minute",
    "rss_bytes": "resident memory of the agent's process",
    "max_rss_bytes": "most resident memory that the agent's process has had",
    "ram_free_bytes": "memory that is available on the machine",
    "disk_free_bytes": "free room on the disk of the agent's working folder, or of its models where its engine says so",
    "vram_free_bytes": "free memory of the graphics card with most of it",
    "vram_total_bytes": "memory of that card",
    "vram_used_percent": "part of it in use, 0 to 100",
    "gpu_percent": "processor of the card in use, 0 to 100",
    "temperature_celsius": "of the card",
}
"""Names and units of gauges that selectors may rely on where an agent reports them."""


class TaskRequest(msgspec.Struct, frozen=True, gc=False):
    """One attempt of one task.

    ``body`` is the OpenAI request as JSON text, untouched; of a task of `WholeKind` it is what `anywire.engine` says.
    ``model`` is the one to answer with, be it that the body names several.
    ``credit`` is how many chunks the reader can take before it sends `Credit`. ``resume`` is the text an earlier
    attempt has already delivered: the engine goes
    on where it ends. ``time_left_ms`` is 0 when there is no deadline. ``hops`` counts the orchestrators
    that passed it on to another one; ``trace`` is a W3C traceparent, after a space its tracestate if there is one, or
    empty. ``priority``: higher is more urgent, 0 is
    normal. ``progress`` asks for `Progress`.

    For an orchestrator that is the agent here, and for engines that care: ``tenant``; ``session``, the conversation;
    ``parent``, the task that this one was made by; ``prefer`` and ``avoid``, ids of agents; ``hints``, JSON text of an
    object of at most 16 short strings or numbers; ``policy``, the name of a policy asked for; ``attempts_left``, how
    many attempts the whole task may still take, this one included, 0 when the receiver decides. What the body itself
    says (needs, expected work, the identity of the prompt) is read from it anew.
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
    progress: bool = False
    attempts_left: int = 0
    tenant: str = ""
    session: str = ""
    parent: str = ""
    policy: str = ""
    hints: str = ""
    prefer: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """A piece of an answer; the last one has ``final`` set, and a unary answer is one final chunk.

    A chunk that has no deltas, no ``extra`` and is not final says only that the agent has the attempt (it was
    accepted). It takes no credit and is never shown. An agent sends one for an attempt of which nothing was sent one
    heartbeat after its request came, also for a unary one.

    ``seq`` is the number of the first of its ``deltas`` in this attempt, counted from 0, so the next chunk's
    ``seq`` is ``seq + len(deltas)``. Several deltas travel together only when they were already waiting.
    ``extra`` is JSON text for what text cannot carry: the OpenAI ``choices`` list of this delta or answer when
    it holds more than plain text of choice 0, or an object with ``choices`` and the members beside it, or an
    embedding's ``data`` list, or the object that answers a task of `WholeKind`; such a chunk has one delta.
    ``usage`` is the OpenAI usage object as JSON text, ``error`` that of `anywire.errors.to_wire`; both are
    empty when there is none. The four stage times are the agent's, 0 when not reached. ``resumable`` is set on the
    first chunk with deltas when this attempt can be resumed elsewhere from its text. ``attempts_used`` is said by an
    orchestrator in its final chunk: how many attempts the task took below it; 0 stands for one.
    """

    hub_id: str
    task_id: str
    attempt: int
    seq: int
    deltas: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_DELTAS)] = ()
    extra: str = ""
    final: bool = False
    finish_reason: str = ""
    usage: str = ""
    error: str = ""
    received_ns: int = 0
    started_ns: int = 0
    first_ns: int = 0
    last_ns: int = 0
    resumable: bool = False
    attempts_used: int = 0


class Progress(msgspec.Struct, frozen=True, gc=False):
    """What an attempt does before and between its chunks; sent only where the request asks for it. Best effort: the
    newest counts, it takes no credit, and it has no order against the chunks. ``queued`` and ``loading`` are no
    silence of a stream that waits for its first token."""

    hub_id: str
    task_id: str
    attempt: int
    state: ProgressState
    detail: str = ""


class Cancel(msgspec.Struct, frozen=True, gc=False):
    """Stop this attempt or command, and no other one. It is answered by a final chunk (or result) with error
    ``cancelled`` once the engine has ended, unless it has ended already. Unknown ones are remembered: a cancel may
    overtake its request, which is then answered in the same way."""

    hub_id: str
    task_id: str
    attempt: int
    reason: str = ""


class Credit(msgspec.Struct, frozen=True, gc=False):
    """The reader of this stream can take ``chunks`` more: chunks of an attempt, results of a command."""

    hub_id: str
    task_id: str
    attempt: int
    chunks: int


class Command(msgspec.Struct, frozen=True, gc=False):
    """Do something beside the tasks: ``drain``, ``load`` a model, follow its ``logs`` …

    ``name`` and ``arguments`` (JSON text of an object, at most `MAX_COMMAND_BYTES`) are for the engine, but for the
    agent's own ``drain``. ``target`` are the ids that lead from the receiver down a tree of orchestrators, empty for
    the receiver itself. ``credit`` is how many results may be sent before more `Credit`; ``time_left_ms`` is 0 when
    there is no deadline. The same id twice is the same command: it is done once. ``tenant`` and ``role`` are the
    caller's, as far as the sender vouches for it.
    """

    hub_id: str
    id: str
    name: str
    arguments: str = ""
    target: tuple[str, ...] = ()
    time_left_ms: int = 0
    credit: int = 64
    tenant: str = ""
    role: str = "operate"


class CommandResult(msgspec.Struct, frozen=True, gc=False):
    """An answer to a command, one of any number; the last has ``final`` set. ``seq`` counts from 0. ``data`` is JSON
    text of at most `MAX_COMMAND_BYTES`, empty in a final result that only ends it; ``error`` as in `Chunk`."""

    hub_id: str
    id: str
    seq: int
    data: str = ""
    final: bool = False
    error: str = ""


ToAgent = TaskRequest | Command | Cancel | Credit
FromAgent = Chunk | Progress | CommandResult
"""What a `anywire.transport.Reply` carries; a status goes by `anywire.transport.AgentPort.report`."""
