"""The contract between the pipeline and a transport: what a transport author reads, and all of it.

A transport moves the messages of `anywire.messages` between a hub and its agents. It does no correlation,
retry, timeout of a task's progress, ordering across links or load balancing: those are the pipeline's, written once,
so that two transports differ in nothing but the wire. `anywire.transport_tools` has what most transports need.

Shape
    Like asyncio's transport and protocol pair: calls go down (`Hub`, `AgentPort`, `Reply`), callbacks come up
    (`HubSink`, `AgentSink`). Everything happens on the event loop that opened the transport; a transport may
    use threads of its own but never calls a sink from one. Callbacks return quickly, do not raise and are never
    awaited. The first callback comes after ``open_hub``/``open_agent`` has returned to its caller: what a peer says
    while the end is being opened is kept until then. No callback is made after ``close`` was called.

Planes
    On the ``agent`` plane the hub is an orchestrator and the agents are agents. On the ``client`` plane the
    hub is a client and the agent is an orchestrator. The two never see each other's messages. A connection that
    both planes share, or several ends, belongs to the `Transport`: it is opened with the first end and closed with
    the last one.

Links
    A link is one incarnation of a hub and one incarnation of an agent over one transport. Every callback names the
    link it came by: on the hub's side ``(agent_id, incarnation)``, on the agent's ``(hub_id, incarnation)``. These
    come from the link itself (the connection, the session), never from the message: what a message says of its
    sender is checked by the core against the link.

Incarnations
    Incarnations of one id are ordered: a later life has a greater number. Of two lives of one id on one end the
    greater wins: when it joins, the lesser is reported lost first; a lesser one that comes later is refused, and
    its owner logs why. After a loss the same incarnation may join again (its process was paused, its network was
    away). A hub that comes back under its id with another incarnation is treated in the same way.

Joining and losing
    `HubSink.agent_joined` is called only when both directions work: a task sent in that callback arrives and
    its answer can be sent. Agents present before the hub opened are reported like later ones.
    `HubSink.agent_lost` ends that link: nothing that came by it is reported until it joins again. What had arrived
    before the loss is reported before it.
    The same holds the other way round for `AgentSink.hub_joined` and `hub_lost`; ``hub_joined`` comes before the
    first task of that hub, and carries what the hub has said of itself in the hello of that link. When only one end
    sees the loss (its peer was paused), the other end sees it, and joins again, once it hears from the first one.

Leases and lateness
    A lease is the longest silence after which a peer still counts as alive, and also how long a transport of
    liveliness ``native`` may take to notice that it is gone: not before one lease of silence, and within two. A
    goodbye and a broken connection are reported at once. Time in which this process itself did not run (it was
    paused, its event loop was blocked) is no silence of its peers, and input that is already there is read before a
    lease may lapse: `anywire.lease.Silence` does both.

Ordering and delivery
    Task requests of one priority from a hub to one agent arrive in the order sent, each once; commands and control
    messages (Cancel, Credit) have no order against them. Chunks of one attempt, and results of one command, arrive in
    the order sent, each once, or the link is reported lost. `Progress` has no order against chunks, and may be left
    out where a newer one follows. A message accepted by ``send`` is delivered unless the link is lost, or
    `send_failed` is called. ``close`` writes out what was accepted, for a bounded time, and says goodbye after it.

Bounds
    Two, in bytes, options of every transport with one default everywhere. ``max_message_bytes`` (`MAX_MESSAGE_BYTES`)
    is the largest payload: the texts of a message in UTF-8, before encoding
    (`anywire.transport_tools.payload_bytes`). A message within it is of legal size and is carried, whatever its
    envelope and its encoding add; one over it raises `PayloadTooLarge` in ``send``. ``buffer_bytes`` (`BUFFER_BYTES`)
    is how much may wait for one peer, as it waits there (encoded). `Transport.effective_settings` tells both.

Back-pressure
    ``send`` never blocks and never waits: the message enters a bounded write buffer, one for each peer, so that a
    slow agent never delays another. It raises `Congested`, and keeps nothing, when something waits and the message
    would bring it over ``buffer_bytes``. ``drain`` waits until there is room. After it has returned, a message of
    any legal size is accepted by the first ``send`` after it; a second may raise `Congested`, and its sender awaits
    ``drain`` again. The first message of a link is accepted in the same way, also inside of `HubSink.agent_joined`.
    `anywire.transport_tools.WriteRoom` is these rules.

Versions
    ``HubInfo.protocol`` and ``AgentInfo.protocol`` travel with the first thing that each end says of itself. An end
    that is opened with an info whose ``protocol`` is empty says `anywire.protocol.PROTOCOL`; a hello without one is
    from before versions were told. Where `anywire.protocol.protocol_mismatch` finds something, nobody joins: both ends
    log its sentence once with the peer's id, and the transport tells the other end as far as that one can still be
    talked to. This holds before anything else of the message types must match.

Proofs
    ``HubInfo.proof`` and ``AgentInfo.proof`` travel in the same hellos, and come to the sink of the other end as
    they were sent: who an end is by its key is decided there, see `anywire.identities.identity_proof`. A hello
    without one is of an end without a key, or of version 2.0. A proof holds for its plane, id and incarnation, and
    for the channel that it names. An end is opened with a proof that names none. A transport whose links are
    protected by keys or certificates (``Capabilities.binds_identity``) says in place of that one a proof which
    names the key of the link, made with `Transport.identity`. At the hello it refuses a peer whose proof names
    another one, and whom `Transport.admits` does not let in, before anything of an older link changes:
    `anywire.transport_tools.LinkProofs` does both.

Brokers
    Where a third process carries the messages: when it is not there at opening, `TransportUnavailable`, saying where
    it was looked for. When it goes away later, every link is lost (``agent_lost``, ``hub_lost``, with a reason that
    names the broker), what was buffered for it is dropped, and the transport connects again by itself; then both
    ends join again with the same incarnations. A task that was under way is not carried on: its link is lost, the
    agent cancels it, and the pipeline decides after ``agent_lost`` whether it is tried again.

Errors
    Every exception of the underlying library is mapped to `anywire.errors`, with the original as ``__cause__``.
    ``Hub.send`` and ``Reply.send`` raise what their descriptions name, and plain `TransportError` for a message that
    cannot be encoded (text that is no Unicode); nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec
import pydantic

from anywire.errors import AnywireError
from anywire.messages import (
    AgentInfo,
    AgentStatus,
    Cancel,
    Chunk,
    Command,
    CommandResult,
    Credit,
    FromAgent,
    HubInfo,
    Progress,
    TaskRequest,
    ToAgent,
)

if TYPE_CHECKING:
    from anywire.identities.identity_proof import Identity

Plane = Literal["client", "agent"]

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Largest payload of one message unless configured otherwise: a request with a photo in it."""

BUFFER_BYTES = 4 * 1024 * 1024
"""Payload that may wait for one peer unless configured otherwise."""

MAX_STRENGTH = 1000
"""The highest strength of a candidate, see `Elects`."""


class Capabilities(msgspec.Struct, frozen=True):
    """What a transport declares of itself; shown by ``anywire plugins``, asserted by the conformance kit.

    ``liveliness``: who notices a dead peer. ``native``: the transport itself at both ends, for any kind of death or
    hang, within two leases of the peer. ``connection``: the transport, when a connection breaks; an agent that hangs is
    noticed by the registry's lease, a hub that hangs is not: its agents keep its tasks until the connection breaks.
    A wire without connections is ``native``: it pings (`anywire.transport_tools.link`). ``discovery``: ``native`` needs
    no address, ``directory`` needs the hub's address, ``brokered`` a third process. ``max_message_bytes`` is the
    largest payload with the default options. ``inter_process`` is False for transports inside one process.
    ``binds_identity`` tells that a proof is bound to the link it came by, see *Proofs*.
    """

    liveliness: Literal["native", "connection"]
    discovery: Literal["native", "directory", "brokered"]
    max_message_bytes: int = MAX_MESSAGE_BYTES
    inter_process: bool = True
    binds_identity: bool = False


class HubSink(Protocol):
    """What a hub's owner is told. ``agent_id`` and ``incarnation`` are the link's."""

    def agent_joined(self, info: AgentInfo) -> None:
        """Both directions to this agent work. The first ``agent_reported`` of the link follows without delay."""
        ...

    def agent_reported(self, agent_id: str, incarnation: int, status: AgentStatus) -> None:
        """The agent's newest status. Older ones may be left out; none comes after a newer one."""
        ...

    def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None:
        """The link is over; ``reason`` is part of a sentence for a person."""
        ...

    def chunk_received(self, agent_id: str, incarnation: int, chunk: Chunk) -> None: ...
    def progress_received(self, agent_id: str, incarnation: int, progress: Progress) -> None: ...
    def result_received(self, agent_id: str, incarnation: int, result: CommandResult) -> None: ...

    def send_failed(self, agent_id: str, incarnation: int, task_id: str, attempt: int, error: AnywireError) -> None:
        """Something that shows only after ``send`` has returned, told as soon as the transport knows. For a command,
        ``task_id`` is its id and ``attempt`` is 0.

        ``error.phase`` is ``not_sent``: the request will not reach the agent, and no chunk of this attempt will
        arrive. Any other phase is a notice, earlier than the pipeline's own timeouts: the attempt makes no progress
        by this transport's own rules (a QoS deadline was missed). The pipeline decides what follows, and sends the
        Cancel.
        """
        ...


class Hub(ABC):
    """The sending end of a plane, open."""

    @abstractmethod
    def send(self, agent_id: str, message: ToAgent) -> None:
        """Send to an agent that has joined and was not lost.

        Raises `AgentUnavailable` (no such link), `PayloadTooLarge` (the limit is in the message), `Congested` or
        `TransportError` (it cannot be encoded); in each case nothing was sent and the link is as before. Cancel and
        Credit are small and never raise `Congested`.
        """

    @abstractmethod
    async def drain(self, agent_id: str) -> None:
        """Wait until the next ``send`` to this agent has room, see *Back-pressure*. Returns at once when the agent is
        unknown, and when it is lost meanwhile."""

    @abstractmethod
    async def close(self) -> None:
        """Give up all links; idempotent. Agents are told (``hub_lost``) where the wire can tell them."""


class Reply(Protocol):
    """The way back of one attempt or command; it knows its hub."""

    def send(self, message: FromAgent) -> None:
        """Raises `Congested`, `PayloadTooLarge` or `TransportError` (it cannot be encoded); nothing was sent then.
        After the hub was lost it drops the message silently, whatever it holds."""
        ...

    async def drain(self) -> None:
        """Wait until the next ``send`` to this hub has room, see *Back-pressure*, or the hub is lost."""
        ...


class AgentSink(Protocol):
    """What an agent's owner is told. ``hub_id`` and ``incarnation`` are the link's."""

    def hub_joined(self, info: HubInfo) -> None:
        """Both directions to this hub work. ``info`` is what it has said of itself in the hello of this link."""
        ...

    def hub_lost(self, hub_id: str, incarnation: int, reason: str) -> None:
        """Nobody reads the answers to this hub's tasks on this link any more; the owner cancels them."""
        ...

    def task_received(self, hub_id: str, incarnation: int, task: TaskRequest, reply: Reply) -> None: ...
    def command_received(self, hub_id: str, incarnation: int, command: Command, reply: Reply) -> None: ...
    def cancel_received(self, hub_id: str, incarnation: int, cancel: Cancel) -> None: ...
    def credit_received(self, hub_id: str, incarnation: int, credit: Credit) -> None: ...


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


class Lan(NamedTuple):
    """How a fleet is opened to its network."""

    fleet: str
    """Its name."""
    secret: str
    """Hexadecimal text of 32 bytes, always the same for a fleet of that name on this machine. Empty where identities
    say who is let in: a secret that all share would only be in their way."""
    host: str
    """The address to listen on; ``0.0.0.0`` for every one of this machine."""


class Transport(ABC):
    """One transport, configured. ``__init__`` does no I/O and starts nothing."""

    name: ClassVar[str]
    Config: ClassVar[type[pydantic.BaseModel]]
    capabilities: ClassVar[Capabilities]

    identity: Identity | None = None
    """The key by which the ends opened here are known, set before the first one is opened; None: they have none."""
    admits: Callable[[Plane, AgentInfo | HubInfo], str] | None = None
    """Why a peer that says so of itself may not be linked to an end opened here, as part of a sentence for both ends;
    empty when it may. Set before the first end is opened; None: whoever the transport lets in is let in. A transport
    that binds identities asks at each hello, so that a stranger takes nobody's place. The core asks for every link."""

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
        """What is really in force, for the experiment record; {} before opening. After it: addresses bound or QoS
        granted, and always ``max_message_bytes`` and ``buffer_bytes``."""
        return {}

    @classmethod
    def free_options(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Options to add to ``options`` so that those who use them meet nobody else on this machine: a fleet or domain
        of its own, or port 0 for what is listened on (`meeting_options` tells the port then). {} where nothing is
        shared, or ``options`` say it. For ``anywire up``, demos and checks."""
        return {}

    @classmethod
    def lan_options(cls, options: Mapping[str, Any], lan: Lan) -> Mapping[str, Any]:
        """Options to add to ``options`` so that an orchestrator with them takes in other machines of its network, and
        nobody who has not ``lan.secret`` where the transport can see to that: addresses to listen on, a key. What
        ``options`` name stays as it is. {} where only the user can say it."""
        return {}

    def meeting_options(self, host: str) -> Mapping[str, Any]:
        """Options with which others, whose options are the defaults, meet what this transport has open: the addresses
        bound, a key, a domain. Plain values, as in a configuration file; they may hold secrets. ``host`` is the
        address by which they reach this machine, a loopback one for those on it. {} where nothing needs to be said."""
        return {}

    @property
    def is_local(self) -> bool:
        """Whether, as configured, only processes of this machine can be its peers; False where that is not sure. Over
        a broker it is not, whatever its address: others may reach it by another one. It is True there only with an
        option of yours by which the user says that the broker listens on loopback alone. Clients of a local transport
        are taken for this machine's own."""
        return not self.capabilities.inter_process

    @property
    def keeps_clients_local(self) -> bool:
        """Whether, as configured, an orchestrator with it is reached on the client plane from this machine alone; False
        where that is not sure. An orchestrator that others reach needs keys of clients. Default: `is_local`; a
        transport that listens for clients at addresses of their own looks at these."""
        return self.is_local

    @property
    def takes_any_agent(self) -> bool:
        """Whether, as configured, agents of other machines can join an orchestrator with it and have to show nothing
        that this transport asks for (a key, a token, a certificate); `admits` aside. Such an orchestrator warns at its
        start where `identity.admitted` is not set. Default: not `is_local`."""
        return not self.is_local


@runtime_checkable
class TakesRegistrations(Protocol):
    """What a transport offers beside the contract when its agents may also register through a gateway, at the one
    address that is public."""

    async def register_agent(
        self, data: bytes, authorization: str, peer: str, *, checked: bool = False
    ) -> tuple[int, bytes]:
        """Take a registration: the request's body, its ``Authorization`` header, and its sender for the log. With
        ``checked`` it must show who sends it, by a token or an identity, and none is taken where the transport asks for
        neither: who reaches a gateway need not reach the transport. Returns the HTTP status and the JSON body of the
        answer; never raises."""
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
    with the highest strength is elected without further waiting, of equals the one that has
    stood longest, whatever the clocks of the hosts say.

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


@runtime_checkable
class MakesKeys(Protocol):
    """What a transport class offers beside its contract when its ends know each other by keys."""

    @staticmethod
    def make_keys(folder: Path) -> str:
        """Make keys for the orchestrators and the agents of a fleet in ``folder``, which is made where it is missing,
        and return what goes into the configuration of each, as text for a person. Files with secrets are readable by
        their owner alone. Raises `ConfigError`, and replaces no file."""
        ...
