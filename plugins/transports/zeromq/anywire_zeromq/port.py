"""The agent's end: the hubs it is linked to, each over the wire it introduced itself on."""

from __future__ import annotations

import logging

from anywire.errors import AgentUnavailable
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, Drain, HubInfo, TaskRequest
from anywire.transport import AgentPort, AgentSink, Plane
from anywire_zeromq.codec import PROTOCOL, AgentHello, Farewell, HubHello, Ready
from anywire_zeromq.config import ZeromqConfig
from anywire_zeromq.end import End
from anywire_zeromq.wire import Wire

log = logging.getLogger(__name__)


class _Link:
    """The way back to one hub; a `Reply` for each of its tasks."""

    def __init__(self, port: ZeromqPort, wire: Wire, hub: HubInfo) -> None:
        self.wire, self.hub = wire, hub
        self._port = port

    def send(self, chunk: Chunk) -> None:
        data = self._port.encode(chunk)
        if self._port.links.get(self.hub.hub_id) is self:
            try:
                self.wire.send(data)
            except AgentUnavailable:
                log.debug("hub %s has just gone", self.hub.hub_id)

    async def drain(self) -> None:
        await self.wire.drain()


class ZeromqPort(End, AgentPort):
    def __init__(self, config: ZeromqConfig, info: AgentInfo, plane: Plane, sink: AgentSink) -> None:
        super().__init__(config, plane, f"agent {info.agent_id}")
        self.info, self.sink = info, sink
        self.links: dict[str, _Link] = {}
        self._by_wire: dict[Wire, _Link] = {}
        self._status: AgentStatus | None = None
        self._early: list[Wire] = []
        self._meanings = {
            TaskRequest: self._task,
            Cancel: self._cancel,
            Credit: self._credit,
            Drain: self._drain,
            HubHello: self._introduced,
            Ready: self._ready,
            Farewell: self._farewell,
        }

    def open(self) -> str:
        """Returns the address listened on, empty where hubs listen."""
        if self.plane == "client":
            return self.listen()
        self.dial()
        return ""

    def silence_ms(self) -> int:
        return self.info.lease_ms

    def report(self, status: AgentStatus) -> None:
        if self.closed:
            return
        first, self._status = self._status is None, status
        if first:
            early, self._early = self._early, []
            for wire in early:
                if wire.open:
                    self._greet(wire)
            return
        for endpoint in self._endpoints:
            for wire in endpoint.wires():
                if wire.greeted:
                    self.tell(wire, status)

    async def close(self) -> None:
        await self.shut("the agent closed")

    # What hubs say

    def opened(self, wire: Wire) -> None:
        self._greet(wire)

    def ended(self, wire: Wire, reason: str) -> None:
        wire.hub, wire.greeted = None, False
        link = self._by_wire.pop(wire, None)
        if link is not None:
            del self.links[link.hub.hub_id]
            self.sink.hub_lost(link.hub.hub_id, link.hub.incarnation, reason)

    def _greet(self, wire: Wire) -> None:
        if self._status is None:
            self._early.append(wire)
            return
        wire.greeted = True
        self.tell(wire, AgentHello(PROTOCOL, self.plane, self.info, self._status))

    def _introduced(self, wire: Wire, hello: HubHello) -> None:
        self.ended(wire, "it introduced itself again")
        wrong = self.mismatch(hello.protocol, hello.plane)
        if wrong:
            self.refuse(wire, wrong)
            return
        wire.hub = hello.info
        if self.plane == "agent":
            wire.greeted = True
            self._join(wire)
            self.tell(wire, Ready())
        else:
            self._greet(wire)

    def _ready(self, wire: Wire, ready: Ready) -> None:
        if wire not in self._by_wire:
            self._join(wire)

    def _join(self, wire: Wire) -> None:
        hub = wire.hub
        if hub is None:
            return
        old = self.links.get(hub.hub_id)
        if old is not None:
            self.ended(old.wire, "replaced by a new connection")
        link = _Link(self, wire, hub)
        self.links[hub.hub_id] = self._by_wire[wire] = link
        self.sink.hub_joined(hub.hub_id, hub.incarnation)

    def _task(self, wire: Wire, task: TaskRequest) -> None:
        link = self._by_wire.get(wire)
        if link is not None:
            self.sink.task_received(task, link)

    def _cancel(self, wire: Wire, cancel: Cancel) -> None:
        if wire in self._by_wire:
            self.sink.cancel_received(cancel)

    def _credit(self, wire: Wire, credit: Credit) -> None:
        if wire in self._by_wire:
            self.sink.credit_received(credit)

    def _drain(self, wire: Wire, drain: Drain) -> None:
        if wire in self._by_wire:
            self.sink.drain_requested(drain.reason)

    def _farewell(self, wire: Wire, farewell: Farewell) -> None:
        if wire not in self._by_wire:
            log.warning("%s does not let %s join: %s", wire.peer, self.me, farewell.reason)
        self.ended(wire, farewell.reason)
