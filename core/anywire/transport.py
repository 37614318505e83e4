"""The contract between the pipeline and a transport: what a transport author reads, and all of it.

A transport moves the messages of `anywire.messages` between a hub and its agents. It does no correlation,
retry, timeout, ordering across links or load balancing: those are the pipeline's, written once, so that two
transports differ in nothing but the wire.

Shape
    Like asyncio's transport and protocol pair: calls go down (`Hub`, `AgentPort`, `Reply`), callbacks come up
    (`HubSink`, `AgentSink`). Everything happens on the event loop that opened the transport; a transport may
    use threads of its own but never calls a sink from one. Callbacks return quickly, do not raise and are never
    awaited. No callback is made before ``open_hub``/``open_agent`` has returned control to the loop once, and
    none after ``close`` has returned.

Planes
    On the ``agent`` plane the hub is an orchestrator and the agents are agents. On the ``client`` plane the
    hub is a client and the agent is an orchestrator. The two never see each other's messages.

Joining and losing
    `HubSink.agent_joined` is called only when both directions work: a task sent in that callback arrives and
    its answer can be sent. Agents present before the hub opened are reported like later ones.
    `HubSink.agent_lost` ends that incarnation: nothing of it is reported until it joins again (a paused process
    may return). An agent that restarts joins with a new incarnation; the old one is lost first.
    The same holds the other way round for `AgentSink.hub_joined` and `hub_lost`; ``hub_joined`` comes before the
    first task of that hub.

Ordering and delivery
    Task requests from a hub to one agent arrive in the order sent; control messages (Cancel, Credit, Drain) have no
    order against them. Chunks of one attempt arrive in the order sent, each once, or the link is
    reported lost. A message accepted by ``send`` is delivered unless the link is lost, or `send_failed` is called.

Back-pressure
    ``send`` never blocks and never waits: the message enters a bounded write buffer. ``drain`` waits until that
    buffer is below its low-water mark. Over the hard bound ``send`` raises `Congested` and keeps nothing.
    The bound is per peer: a slow agent never delays another.

Errors
    Every exception of the underlying library is mapped to `anywire.errors`, with the original as ``__cause__``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import msgspec
import pydantic

from anywire.errors import AnywireError
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, HubInfo, TaskRequest, ToAgent

Plane = Literal["client", "agent"]

MAX_STRENGTH = 1000
"""The highest strength of a candidate, see `Elects`."""


class Capabilities(msgspec.Struct, frozen=True):
    """What a transport declares of itself; shown by ``anywire plugins``, asserted by the conformance kit.

    ``liveliness``: who notices a dead peer. ``native``: the transport itself, for any kind of death or hang,
    within the peer's lease. ``connection``: the transport, when a connection breaks; a hang is noticed by the
    registry's lease. ``lease``: only the registry's lease. ``discovery``: ``native`` needs no address,
    ``directory`` needs the hub's address, ``brokered`` a third process. ``max_message_bytes`` is the largest
    body that is accepted, None when unknown. ``inter_process`` is False for transports inside one process.
    """

    liveliness: Literal["native", "connection", "lease"]
    discovery: Literal["native", "directory", "brokered"]
    max_message_bytes: int | None = None
    inter_process: bool = True


class HubSink(Protocol):
    """What a hub's owner is told. ``agent_joined`` is followed by a first ``agent_reported`` without delay."""

    def agent_joined(self, info: AgentInfo) -> None: ...
    def agent_reported(self, status: AgentStatus) -> None: ...
    def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None: ...
    def chunk_received(self, chunk: Chunk) -> None: ...
    def send_failed(self, task_id: str, attempt: int, error: AnywireError) -> None:
        """A failure that only shows after ``send`` returned; no chunk of this attempt will arrive."""
        ...


class Hub(ABC):
    """The sending end of a plane, open."""

    @abstractmethod
    def send(self, agent_id: str, message: ToAgent) -> None:
        """Send to an agent that has joined and was not lost.

        Raises `AgentUnavailable` (no such link), `PayloadTooLarge` (the limit is in the message) or `Congested`;
        in each case nothing was sent and the link is as before. Cancel and Credit are small and
        never raise `Congested`.
        """

    @abstractmethod
    async def drain(self, agent_id: str) -> None:
        """Wait until the write buffer to this agent is below its low-water mark; return at once when the agent is
        unknown or lost."""

    @abstractmethod
    async def close(self) -> None:
        """Give up all links; idempotent. Agents are told (``hub_lost``) where the wire can tell them."""


class Reply(Protocol):
    """The way back of one attempt; it knows its hub."""

    def send(self, chunk: Chunk) -> None:
        """Raises `Congested` or `PayloadTooLarge`; after the hub was lost it drops the chunk silently."""
        ...

    async def drain(self) -> None:
        """Wait until the write buffer to this hub is below its low-water mark, or the hub is lost."""
        ...


class AgentSink(Protocol):
    """What an agent's owner is told."""

    def task_received(self, task: TaskRequest, reply: Reply) -> None: ...
    def cancel_received(self, cancel: Cancel) -> None: ...
    def credit_received(self, credit: Credit) -> None: ...
    def drain_requested(self, reason: str) -> None: ...
    def hub_joined(self, hub_id: str, incarnation: int) -> None: ...
    def hub_lost(self, hub_id: str, incarnation: int, reason: str) -> None:
        """Nobody reads the answers to this hub's tasks on this link any more; the owner cancels them."""
        ...


class AgentPort(ABC):
    """An agent's end of a plane, open: announced to every hub there is and every hub to come."""

    @abstractmethod
    def report(self, status: AgentStatus) -> None:
        """Tell every hub; best effort, the newest wins. The transport keeps the newest and gives it to a hub that
        joins later together with the announcement. Called once right after ``open_agent``, before any hub is
        told of this agent; never raises."""

    @abstractmethod
    async def close(self) -> None:
        """Say goodbye (``agent_lost`` at the hubs, without waiting for a lease) and release everything; idempotent."""


class Transport(ABC):
    """One transport, configured. ``__init__`` does no I/O and starts nothing."""

    name: ClassVar[str]
    Config: ClassVar[type[pydantic.BaseModel]]
    capabilities: ClassVar[Capabilities]

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        """Open the sending end. Raises `TransportUnavailable` saying what is missing and what to do."""

    @abstractmethod
    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        """Open an agent's end; it is announced with its first `AgentPort.report`. Raises `TransportUnavailable`
        when the transport cannot work here; a hub that is merely absent is no error."""

    def effective_settings(self) -> Mapping[str, str]:
        """What is really in force (addresses bound, QoS granted), for the experiment record; {} before opening."""
        return {}


@runtime_checkable
class TakesRegistrations(Protocol):
    """What a transport offers beside the contract when its agents may also register through a gateway, at the one
    address that is public."""

    async def register_agent(self, data: bytes, authorization: str, peer: str) -> tuple[int, bytes]:
        """Take a registration: the request's body, its ``Authorization`` header, and its sender for the log. Returns
        the HTTP status and the JSON body of the answer; never raises."""
        ...


class CandidateSink(Protocol):
    """What a candidate's owner is told; the rules for callbacks are those of the other sinks."""

    def active_seen(self, hub: HubInfo) -> None:
        """Another candidate is the active one: told while standing by, each time that changes."""
        ...

    def elected(self) -> None:
        """It is the active one from now on, until `deposed` or its own ``close``. Told once at most."""
        ...

    def deposed(self, reason: str) -> None:
        """It was the active one and another is in its place. The candidacy is over: nothing more is told."""
        ...


class Candidacy(ABC):
    """One orchestrator that stands for being the active one, or is it."""

    @abstractmethod
    async def close(self) -> None:
        """Stand no more; the next one takes over at once, without waiting for a lease. Idempotent."""


@runtime_checkable
class Elects(Protocol):
    """What a transport offers beside the contract when it can hold one of several orchestrators to be the active one.

    All that stand over the transport with the same options are candidates of one election. Nobody is elected who has
    not had the time of a lease to see the others. The active one stays the active one while it lives, whoever else
    begins to stand; its death is noticed within its lease, its ``close`` at once. Then, of those who stand by, the one
    with the highest strength is elected without further waiting, of equals the one that lives longest.

    Candidates that cannot reach each other may both be elected. When they can again, one is deposed and one stays: the
    one that was elected later, if it has been the active one for a lease. The same goes for an active one that was
    paused for so long that another was elected.
    """

    async def stand(self, hub: HubInfo, strength: int, sink: CandidateSink) -> Candidacy:
        """Stand as ``hub``, with a strength from 0 to `MAX_STRENGTH`. Raises `TransportUnavailable`."""
        ...


@runtime_checkable
class HasFindings(Protocol):
    """What a transport offers beside its contract when it can tell what is not as it should be in what is open."""

    def findings(self) -> Sequence[tuple[str, str]]:
        """Each a sentence of what is not as it was asked for or whom it cannot connect to, and what would do."""
        ...
