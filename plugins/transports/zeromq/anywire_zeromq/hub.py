"""The hub's end: its agents by name, each over the wire it introduced itself on."""

from __future__ import annotations

from anywire.errors import AgentUnavailable
from anywire.messages import AgentStatus, Chunk, CommandResult, FromAgent, HubInfo, Progress, ToAgent
from anywire.transport import Hub, HubSink, Plane
from anywire.transport_tools import HubLinks, LinkProofs, LinkRefused, MayCongest, with_protocol
from anywire_zeromq.codec import PROTOCOL, AgentHello, Goodbye, HubHello, Ready
from anywire_zeromq.config import ZeromqConfig
from anywire_zeromq.end import End
from anywire_zeromq.wire import Wire


class ZeromqHub(End, Hub):
    def __init__(self, config: ZeromqConfig, info: HubInfo, plane: Plane, sink: HubSink, proofs: LinkProofs) -> None:
        self.info = info = with_protocol(info)
        super().__init__(config, plane, f"hub {info.hub_id}", info, proofs)
        self._links: HubLinks[Wire] = HubLinks(sink, self.guard, info, proofs)
        self._handlers = {
            Chunk: self._on_message,
            CommandResult: self._on_message,
            Progress: self._on_message,
            AgentStatus: self._on_status,
            AgentHello: self._on_hello,
            Ready: self._on_ready,
            Goodbye: self._on_goodbye,
        }

    def open(self) -> str:
        """Returns the address listened on, empty where agents listen."""
        if self.plane == "agent":
            return self.listen()
        self.dial()
        return ""

    def send(self, agent_id: str, message: ToAgent) -> None:
        wire = self._links.get(agent_id)
        if self.guard.closed:
            raise AgentUnavailable("this hub is closed", agent_id=agent_id)
        wire.send(self.encode(message), bounded=isinstance(message, MayCongest))

    async def drain(self, agent_id: str) -> None:
        wire = self._links.find(agent_id)
        if wire is not None:
            await wire.drain()

    async def close(self) -> None:
        await self.close_all("the hub closed")

    # What agents say

    def opened(self, wire: Wire) -> None:
        self._send_hello(wire)

    def ended(self, wire: Wire, reason: str) -> None:
        agent, wire.agent, wire.status, wire.spare = wire.agent, None, None, False
        if agent is None:
            return
        wire.drop_waiting()
        if self._links.joined(wire):
            self._links.ended(wire, reason)
            self.use_spare(lambda spare: spare.agent is not None and spare.agent.agent_id == agent.agent_id)

    def _send_hello(self, wire: Wire) -> None:
        self.send_own(wire, HubHello(PROTOCOL, self.plane, self.proofs.shown(self.info, wire.link_key)))

    def _on_hello(self, wire: Wire, hello: AgentHello) -> None:
        self.ended(wire, "it introduced itself again")
        info, status = hello.info, hello.status
        if self.wrong_hello(wire, hello, self._links):
            return
        wire.agent, wire.status = info, status
        old = self._links.find(info.agent_id)
        if self.plane == "agent":
            self._send_hello(wire)
        elif old is not None and old.agent is not None and old.agent.incarnation == info.incarnation:
            wire.spare = True  # one agent with two addresses: the first link stays
        else:
            self.send_own(wire, Ready())
            self._join(wire)

    def _on_ready(self, wire: Wire, ready: Ready) -> None:
        if not self._links.joined(wire):
            self._join(wire)

    def _join(self, wire: Wire) -> None:
        info, status = wire.agent, wire.status
        if info is None or status is None:
            return
        try:
            old = self._links.join(wire, info, wire.key, wire.link_key)
        except LinkRefused as error:
            self.refuse(wire, str(error), error.for_peer)
            return
        self.unlinked.linked(wire.address)
        if old is not None:
            self.part(old, f"agent {info.agent_id} has connected anew from {wire.peer}")
        if self._links.joined(wire):
            self._links.received(wire, wire.status or status)

    def _on_status(self, wire: Wire, status: AgentStatus) -> None:
        if wire.agent is not None:
            wire.status = status
        if self._links.joined(wire):
            self._links.received(wire, status)

    def _on_message(self, wire: Wire, message: FromAgent) -> None:
        if self._links.joined(wire):
            self._links.received(wire, message)

    def _on_goodbye(self, wire: Wire, goodbye: Goodbye) -> None:
        self.peer_left(wire, goodbye, self._links.joined(wire))
