"""The hub's end: its agents by name, each over the wire it introduced itself on."""

from __future__ import annotations

from anywire.errors import AgentUnavailable
from anywire.messages import AgentInfo, AgentStatus, Chunk, HubInfo, TaskRequest, ToAgent
from anywire.transport import Hub, HubSink, Plane
from anywire_zeromq.codec import PROTOCOL, AgentHello, Goodbye, HubHello, Ready
from anywire_zeromq.config import ZeromqConfig
from anywire_zeromq.end import End
from anywire_zeromq.wire import Wire


class ZeromqHub(End, Hub):
    def __init__(self, config: ZeromqConfig, info: HubInfo, plane: Plane, sink: HubSink) -> None:
        super().__init__(config, plane, f"hub {info.hub_id}", info.lease_ms)
        self.info, self.sink = info, sink
        self._hello = HubHello(PROTOCOL, plane, info)
        self._links: dict[str, Wire] = {}
        self._handlers = {
            Chunk: self._on_chunk,
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
        if wire is None or self.closed:
            raise AgentUnavailable(f"no link to agent {agent_id!r} over zeromq", agent_id=agent_id)
        wire.send(self.encode(message), bounded=type(message) is TaskRequest)

    async def drain(self, agent_id: str) -> None:
        wire = self._links.get(agent_id)
        if wire is not None:
            await wire.drain()

    async def close(self) -> None:
        await self.close_all("the hub closed")

    # What agents say

    def opened(self, wire: Wire) -> None:
        self.send_own(wire, self._hello)

    def ended(self, wire: Wire, reason: str) -> None:
        agent, wire.agent, wire.status = wire.agent, None, None
        joined, wire.joined, wire.spare = wire.joined, False, False
        if agent is not None and joined:
            wire.drop_waiting()
            del self._links[agent.agent_id]
            self.call(self.sink.agent_lost, agent.agent_id, agent.incarnation, reason)
            self.use_spare(lambda spare: spare.agent is not None and spare.agent.agent_id == agent.agent_id)

    def _on_hello(self, wire: Wire, hello: AgentHello) -> None:
        self.ended(wire, "it introduced itself again")
        info, status = hello.info, hello.status
        wrong = self.mismatch(hello.protocol, hello.plane) or self._outlived(info)
        if not wrong and not _is_own(info, status):
            wrong = f"agent {info.agent_id} reports the status of another one"
        if wrong:
            self.refuse(wire, wrong)
            return
        wire.agent, wire.status = info, status
        old = self._links.get(info.agent_id)
        if self.plane == "agent":
            self.send_own(wire, self._hello)
        elif old is not None and old.agent is not None and old.agent.incarnation == info.incarnation:
            wire.spare = True  # one agent with two addresses: the first link stays
        else:
            self.send_own(wire, Ready())
            self._join(wire)

    def _on_ready(self, wire: Wire, ready: Ready) -> None:
        if not wire.joined:
            self._join(wire)

    def _outlived(self, info: AgentInfo) -> str:
        """Why an agent may not join: a later life of it has; empty when it may."""
        wire = self._links.get(info.agent_id)
        if wire is None or wire.agent is None or wire.agent.incarnation <= info.incarnation:
            return ""
        return f"agent {info.agent_id} is connected already, in a newer incarnation"

    def _join(self, wire: Wire) -> None:
        info, status = wire.agent, wire.status
        if info is None or status is None:
            return
        if wrong := self._outlived(info):
            self.refuse(wire, wrong)
            return
        old = self._links.get(info.agent_id)
        if old is not None:
            self.part(old, f"agent {info.agent_id} has connected anew from {wire.peer}")
        wire.joined = True
        self._links[info.agent_id] = wire
        self.call(self.sink.agent_joined, info)
        if wire.joined:
            self.call(self.sink.agent_reported, info.agent_id, info.incarnation, wire.status or status)

    def _on_status(self, wire: Wire, status: AgentStatus) -> None:
        agent = wire.agent
        if agent is None:
            return
        if not _is_own(agent, status):
            self.lines.warning(
                (wire.address, agent.agent_id, "status"),
                "agent %s reports the status of %s/%d: dropped",
                *(agent.agent_id, status.agent_id, status.incarnation),
            )
            return
        wire.status = status
        if wire.joined:
            self.call(self.sink.agent_reported, agent.agent_id, agent.incarnation, status)

    def _on_chunk(self, wire: Wire, chunk: Chunk) -> None:
        if wire.joined and wire.agent is not None:
            self.call(self.sink.chunk_received, wire.agent.agent_id, wire.agent.incarnation, chunk)

    def _on_goodbye(self, wire: Wire, goodbye: Goodbye) -> None:
        if not wire.joined:
            self.lines.warning(
                (wire.address, goodbye.reason), "%s does not let %s join: %s", wire.peer, self.name, goodbye.reason
            )
        self.ended(wire, goodbye.reason)
        wire.restart()


def _is_own(info: AgentInfo, status: AgentStatus) -> bool:
    return (status.agent_id, status.incarnation) == (info.agent_id, info.incarnation)
