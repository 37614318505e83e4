"""The hub's end: its agents by name, each over the wire it introduced itself on."""

from __future__ import annotations

import logging

from anywire.errors import AgentUnavailable
from anywire.messages import AgentStatus, Chunk, HubInfo, TaskRequest, ToAgent
from anywire.transport import Hub, HubSink, Plane
from anywire_zeromq.codec import PROTOCOL, AgentHello, Farewell, HubHello, Ready
from anywire_zeromq.config import ZeromqConfig
from anywire_zeromq.end import End
from anywire_zeromq.wire import Wire

log = logging.getLogger(__name__)

SILENCE = 4
"""Leases until a connection that answers no ping is given up. That an agent is silent the pipeline notices after one;
this only frees what a peer behind a broken network has left."""


class ZeromqHub(End, Hub):
    def __init__(self, config: ZeromqConfig, info: HubInfo, plane: Plane, sink: HubSink) -> None:
        super().__init__(config, plane, f"hub {info.hub_id}")
        self.info, self.sink = info, sink
        self._hello = HubHello(PROTOCOL, plane, info)
        self._links: dict[str, Wire] = {}
        self._meanings = {
            Chunk: self._chunk,
            AgentStatus: self._status,
            AgentHello: self._introduced,
            Ready: self._ready,
            Farewell: self._farewell,
        }

    def open(self) -> str:
        """Returns the address listened on, empty where agents listen."""
        if self.plane == "agent":
            return self.listen()
        self.dial()
        return ""

    def silence_ms(self) -> int:
        return SILENCE * self.info.lease_ms

    def send(self, agent_id: str, message: ToAgent) -> None:
        wire = self._links.get(agent_id)
        if wire is None:
            raise AgentUnavailable(f"no link to agent {agent_id!r} over zeromq", agent_id=agent_id)
        wire.send(self.encode(message), bounded=type(message) is TaskRequest)

    async def drain(self, agent_id: str) -> None:
        wire = self._links.get(agent_id)
        if wire is not None:
            await wire.drain()

    async def close(self) -> None:
        await self.shut("the hub closed")

    # What agents say

    def opened(self, wire: Wire) -> None:
        self.tell(wire, self._hello)

    def ended(self, wire: Wire, reason: str) -> None:
        agent, wire.agent, wire.status = wire.agent, None, None
        if agent is not None and wire.joined and self._links.get(agent.agent_id) is wire:
            wire.joined = False
            del self._links[agent.agent_id]
            self.sink.agent_lost(agent.agent_id, agent.incarnation, reason)

    def _introduced(self, wire: Wire, hello: AgentHello) -> None:
        self.ended(wire, "it introduced itself again")
        wrong = self.mismatch(hello.protocol, hello.plane)
        known = self._links.get(hello.info.agent_id)
        newer = known.agent if known is not None else None
        if newer is not None and newer.incarnation > hello.info.incarnation:
            wrong = wrong or f"agent {newer.agent_id} is connected already, in a newer incarnation"
        if wrong:
            self.refuse(wire, wrong)
            return
        wire.agent, wire.status = hello.info, hello.status
        if self.plane == "agent":
            self.tell(wire, self._hello)
        else:
            self.tell(wire, Ready())
            self._join(wire)

    def _ready(self, wire: Wire, ready: Ready) -> None:
        if not wire.joined:
            self._join(wire)

    def _join(self, wire: Wire) -> None:
        info, status = wire.agent, wire.status
        if info is None or status is None:
            return
        old = self._links.get(info.agent_id)
        if old is not None:
            self.tell(old, Farewell(f"agent {info.agent_id} has connected anew from {wire.peer}"))
            self.ended(old, "replaced by a new connection")
        wire.joined = True
        self._links[info.agent_id] = wire
        self.sink.agent_joined(info)
        if self._links.get(info.agent_id) is wire:
            self.sink.agent_reported(wire.status or status)

    def _status(self, wire: Wire, status: AgentStatus) -> None:
        if wire.agent is not None:
            wire.status = status
            if wire.joined:
                self.sink.agent_reported(status)

    def _chunk(self, wire: Wire, chunk: Chunk) -> None:
        if wire.joined:
            self.sink.chunk_received(chunk)

    def _farewell(self, wire: Wire, farewell: Farewell) -> None:
        if wire.agent is None:
            log.warning("%s does not let %s join: %s", wire.peer, self.me, farewell.reason)
        self.ended(wire, farewell.reason)
