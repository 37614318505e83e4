"""Which connection is the link to whom: incarnations, joining, losing. No I/O: a transport says what has happened.

``C`` is whatever the transport has for a connection: it is only compared and given back.
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

from anywire.errors import AgentUnavailable, TransportError
from anywire.messages import (
    AgentInfo,
    AgentStatus,
    Cancel,
    Chunk,
    Command,
    CommandResult,
    Credit,
    HubInfo,
    Progress,
    TaskRequest,
)
from anywire.printable import printable
from anywire.transport import AgentSink, HubSink, Reply
from anywire.transport_tools.guard import Guard
from anywire.transport_tools.hellos import implausible
from anywire.transport_tools.proofs import LinkProofs
from anywire.transport_tools.versions import MAX_NAME, ImplausibleHello, LinkRefused, check_protocol

C = TypeVar("C")

REPLACED = "replaced by a new connection of the same life"


class _Link(NamedTuple, Generic[C]):
    connection: C
    info: HubInfo | AgentInfo
    credential: str


class _Links(Generic[C]):
    def __init__(self, role: str, guard: Guard, own: HubInfo | AgentInfo | None, proofs: LinkProofs | None) -> None:
        self._role, self._guard, self._own, self._proofs = role, guard, own, proofs
        self._by_id: dict[str, _Link[C]] = {}
        self._names: dict[C, tuple[str, int]] = {}  # id and incarnation

    def find(self, peer_id: str) -> C | None:
        """The connection that is the link to this peer, if there is one."""
        link = self._by_id.get(peer_id)
        return None if link is None else link.connection

    def joined(self, connection: C) -> bool:
        """Whether this connection is a link."""
        return connection in self._names

    def check(self, peer_id: str, incarnation: int, credential: str = "") -> None:
        """Raises `LinkRefused` when a greater incarnation of this peer has joined, or any with another ``credential``:
        a key or certificate that belongs to the peer alone, empty where there is none."""
        link = self._by_id.get(peer_id)
        if link is None:
            return
        if link.credential and credential and link.credential != credential:
            if self._proofs is not None and not self._proofs.admitted(link.info):
                return  # the one that is here is not let in any more, and gives way
            raise LinkRefused(
                f"{self._role} {printable(peer_id, MAX_NAME)} is here already with another key or certificate. "
                "Give one of the two another id, or end it"
            )
        if link.info.incarnation > incarnation:
            raise LinkRefused(
                f"{self._role} {printable(peer_id, MAX_NAME)} is here already in a later life: incarnation "
                f"{link.info.incarnation}, and this one is {incarnation}. Give one of the two another id, or end it"
            )

    def check_hello(self, info: HubInfo | AgentInfo, credential: str = "", key: bytes | None = b"") -> None:
        """`anywire.transport_tools.check_protocol` with this end's own info, `anywire.transport_tools.implausible`,
        `anywire.transport_tools.LinkProofs.check` with the ``key`` of the link, and `check`, with the fingerprint that
        was proved in place of ``credential``. Raises `LinkRefused`."""
        self._checked(info, credential, key)

    def _checked(self, info: HubInfo | AgentInfo, credential: str, key: bytes | None) -> str:
        """`check_hello`; the credential of the peer."""
        if self._own is not None:
            check_protocol(info, self._own)
        peer_id = info.hub_id if isinstance(info, HubInfo) else info.agent_id
        if wrong := implausible(info):
            raise ImplausibleHello(f"{self._role} {printable(peer_id, MAX_NAME)} cannot be linked: {wrong}")
        if self._proofs is not None:
            credential = self._proofs.check(info, key) or credential
        self.check(peer_id, info.incarnation, credential)
        return credential

    def ended(self, connection: C, reason: str) -> None:
        """This connection is over: its link is lost, if it was one. Everything it said must have been given before."""
        name = self._names.pop(connection, None)
        if name is not None:
            del self._by_id[name[0]]
            self._lost(*name, reason)

    def _join(self, connection: C, info: HubInfo | AgentInfo, credential: str, key: bytes) -> C | None:
        peer_id = info.hub_id if isinstance(info, HubInfo) else info.agent_id
        incarnation = info.incarnation
        if connection in self._names:
            raise TransportError(f"this connection has joined as {self._role} {self._names[connection][0]} already")
        credential = self._checked(info, credential, key)
        old = self._by_id.get(peer_id)
        if old is not None:
            later = f"replaced by a later life, incarnation {incarnation}"
            self.ended(old.connection, later if incarnation > old.info.incarnation else REPLACED)
        self._by_id[peer_id] = _Link(connection, info, credential)
        self._names[connection] = peer_id, incarnation
        return None if old is None else old.connection

    def _link(self, connection: C, message: Any) -> tuple[str, int]:
        """Id and incarnation of the peer that said ``message``."""
        name = self._names.get(connection)
        if name is None:
            raise TransportError(f"a {type(message).__name__} came from a peer that has not joined")
        return name

    def _lost(self, peer_id: str, incarnation: int, reason: str) -> None:
        raise NotImplementedError

    def _misplaced(self, message: Any) -> TransportError:
        return TransportError(f"a {type(message).__name__} is not what an {self._role} sends, or not now")


class HubLinks(_Links[C]):
    """A hub's links to its agents. Calls ``sink`` through ``guard``. ``own`` is what this hub says of itself: agents
    that do not speak its version are refused; None when the transport checks that elsewhere. ``proofs`` are those of
    a transport that binds identities."""

    def __init__(
        self, sink: HubSink, guard: Guard, own: HubInfo | None = None, proofs: LinkProofs | None = None
    ) -> None:
        super().__init__("agent", guard, own, proofs)
        self._sink = sink

    def get(self, agent_id: str) -> C:
        """The connection to this agent. Raises `AgentUnavailable`."""
        link = self._by_id.get(agent_id)
        if link is None:
            raise AgentUnavailable(f"no link to agent {agent_id!r}", agent_id=agent_id)
        return link.connection

    def join(self, connection: C, info: AgentInfo, credential: str = "", key: bytes = b"") -> C | None:
        """This connection says that it is the agent ``info``, and both directions work.

        The agent has joined then. A link it had before, of a lesser or the same incarnation, is reported lost first;
        its connection comes back for the caller to end. Raises `LinkRefused` for a lesser incarnation, another
        protocol, a ``credential`` other than that of the link there is (see `check`), or a proof that does not hold on
        a link with that ``key`` (see `check_hello`), and `TransportError` when the
        connection has joined already; nothing has changed then.
        """
        old = self._join(connection, info, credential, key)
        self._guard.call(self._sink.agent_joined, info)
        return old

    def received(self, connection: C, message: Any) -> None:
        """This connection said ``message``. Raises `TransportError` for what an agent may not say now: the caller ends
        the connection."""
        agent_id, incarnation = self._link(connection, message)
        match message:
            case Chunk():
                self._guard.call(self._sink.chunk_received, agent_id, incarnation, message)
            case AgentStatus():
                self._guard.call(self._sink.agent_reported, agent_id, incarnation, message)
            case CommandResult():
                self._guard.call(self._sink.result_received, agent_id, incarnation, message)
            case Progress():
                self._guard.call(self._sink.progress_received, agent_id, incarnation, message)
            case _:
                raise self._misplaced(message)

    def _lost(self, peer_id: str, incarnation: int, reason: str) -> None:
        self._guard.call(self._sink.agent_lost, peer_id, incarnation, reason)


class AgentLinks(_Links[C]):
    """An agent's links to its hubs. Calls ``sink`` through ``guard``; ``own`` and ``proofs`` as for `HubLinks`."""

    def __init__(
        self, sink: AgentSink, guard: Guard, own: AgentInfo | None = None, proofs: LinkProofs | None = None
    ) -> None:
        super().__init__("hub", guard, own, proofs)
        self._sink = sink

    def join(self, connection: C, info: HubInfo, credential: str = "", key: bytes = b"") -> C | None:
        """This connection is the hub ``info``, which has accepted this agent; otherwise as `HubLinks.join`."""
        old = self._join(connection, info, credential, key)
        self._guard.call(self._sink.hub_joined, info)
        return old

    def received(self, connection: C, message: Any, reply: Reply) -> None:
        """This connection said ``message``; ``reply`` leads back to it. Raises as `HubLinks.received` does."""
        hub_id, incarnation = self._link(connection, message)
        match message:
            case TaskRequest():
                self._guard.call(self._sink.task_received, hub_id, incarnation, message, reply)
            case Cancel():
                self._guard.call(self._sink.cancel_received, hub_id, incarnation, message)
            case Credit():
                self._guard.call(self._sink.credit_received, hub_id, incarnation, message)
            case Command():
                self._guard.call(self._sink.command_received, hub_id, incarnation, message, reply)
            case _:
                raise self._misplaced(message)

    def _lost(self, peer_id: str, incarnation: int, reason: str) -> None:
        self._guard.call(self._sink.hub_lost, peer_id, incarnation, reason)
