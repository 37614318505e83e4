"""Which connection is the link to whom: incarnations, joining, losing. No I/O: a transport says what has happened.

``C`` is whatever the transport has for a connection: it is only compared and given back.
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

from anywire.errors import AgentUnavailable, TransportError
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, Drain, HubInfo, TaskRequest
from anywire.transport import AgentSink, HubSink, Reply
from anywire.transport_tools.guard import Guard

C = TypeVar("C")

REPLACED = "replaced by a new connection of the same life"


class LinkRefused(TransportError):
    """A lesser incarnation wants to join where a greater one is. Tell it the text, then end its connection."""


class _Link(NamedTuple, Generic[C]):
    connection: C
    incarnation: int


class _Links(Generic[C]):
    def __init__(self, role: str, guard: Guard) -> None:
        self._role, self._guard = role, guard
        self._by_id: dict[str, _Link[C]] = {}
        self._names: dict[C, tuple[str, int]] = {}  # id and incarnation

    def find(self, peer_id: str) -> C | None:
        """The connection that is the link to this peer, if there is one."""
        link = self._by_id.get(peer_id)
        return None if link is None else link.connection

    def joined(self, connection: C) -> bool:
        """Whether this connection is a link."""
        return connection in self._names

    def check(self, peer_id: str, incarnation: int) -> None:
        """Raises `LinkRefused` when a greater incarnation of this peer has joined."""
        link = self._by_id.get(peer_id)
        if link is not None and link.incarnation > incarnation:
            raise LinkRefused(
                f"{self._role} {peer_id} is here already in a later life: incarnation {link.incarnation}, and this one "
                f"is {incarnation}. Give one of the two another id, or end it"
            )

    def ended(self, connection: C, reason: str) -> None:
        """This connection is over: its link is lost, if it was one. Everything it said must have been given before."""
        name = self._names.pop(connection, None)
        if name is not None:
            del self._by_id[name[0]]
            self._lost(*name, reason)

    def _join(self, connection: C, peer_id: str, incarnation: int) -> C | None:
        if connection in self._names:
            raise TransportError(f"this connection has joined as {self._role} {self._names[connection][0]} already")
        self.check(peer_id, incarnation)
        old = self._by_id.get(peer_id)
        if old is not None:
            later = f"replaced by a later life, incarnation {incarnation}"
            self.ended(old.connection, later if incarnation > old.incarnation else REPLACED)
        self._by_id[peer_id] = _Link(connection, incarnation)
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
    """A hub's links to its agents. Calls ``sink`` through ``guard``."""

    def __init__(self, sink: HubSink, guard: Guard) -> None:
        super().__init__("agent", guard)
        self._sink = sink

    def get(self, agent_id: str) -> C:
        """The connection to this agent. Raises `AgentUnavailable`."""
        link = self._by_id.get(agent_id)
        if link is None:
            raise AgentUnavailable(f"no link to agent {agent_id!r}", agent_id=agent_id)
        return link.connection

    def join(self, connection: C, info: AgentInfo) -> C | None:
        """This connection says that it is the agent ``info``, and both directions work.

        The agent has joined then. A link it had before, of a lesser or the same incarnation, is reported lost first;
        its connection comes back for the caller to end. Raises `LinkRefused` for a lesser incarnation, and
        `TransportError` when the connection has joined already; nothing has changed then.
        """
        old = self._join(connection, info.agent_id, info.incarnation)
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
            case _:
                raise self._misplaced(message)

    def _lost(self, peer_id: str, incarnation: int, reason: str) -> None:
        self._guard.call(self._sink.agent_lost, peer_id, incarnation, reason)


class AgentLinks(_Links[C]):
    """An agent's links to its hubs. Calls ``sink`` through ``guard``."""

    def __init__(self, sink: AgentSink, guard: Guard) -> None:
        super().__init__("hub", guard)
        self._sink = sink

    def join(self, connection: C, info: HubInfo) -> C | None:
        """This connection is the hub ``info``, which has accepted this agent; otherwise as `HubLinks.join`."""
        old = self._join(connection, info.hub_id, info.incarnation)
        self._guard.call(self._sink.hub_joined, info.hub_id, info.incarnation)
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
            case Drain():
                self._guard.call(self._sink.drain_requested, hub_id, incarnation, message.reason)
            case _:
                raise self._misplaced(message)

    def _lost(self, peer_id: str, incarnation: int, reason: str) -> None:
        self._guard.call(self._sink.hub_lost, peer_id, incarnation, reason)
