"""The agent's end: the hubs it is linked to, each over the wire it introduced itself on."""

from __future__ import annotations

import logging

from anywire.errors import AgentUnavailable, AnywireError
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, Drain, HubInfo, TaskRequest
from anywire.transport import AgentPort, AgentSink, Plane
from anywire_zeromq.codec import PROTOCOL, AgentHello, Goodbye, HubHello, Ready, encode
from anywire_zeromq.config import ZeromqConfig
from anywire_zeromq.end import End
from anywire_zeromq.wire import Wire

log = logging.getLogger(__name__)


class _Link:
    """The way back to one hub; a `Reply` for each of its tasks."""

    def __init__(self, port: ZeromqPort, wire: Wire, hub: HubInfo) -> None:
        self.wire, self.hub = wire, hub
        self.open = True
        self._port = port

    def send(self, chunk: Chunk) -> None:
        if not self.open or self._port.closed:
            return
        data = self._port.encode(chunk)
        try:
            self.wire.send(data)
        except AgentUnavailable:
            log.debug("hub %s has just gone", self.hub.hub_id)

    async def drain(self) -> None:
        if self.open:
            await self.wire.drain()


class ZeromqPort(End, AgentPort):
    def __init__(self, config: ZeromqConfig, info: AgentInfo, plane: Plane, sink: AgentSink) -> None:
        super().__init__(config, plane, f"agent {info.agent_id}", info.lease_ms)
        self.info, self.sink = info, sink
        self._links: dict[str, _Link] = {}
        self._by_wire: dict[Wire, _Link] = {}
        self._status: AgentStatus | None = None
        self._early: set[Wire] = set()
        self._handlers = {
            TaskRequest: self._on_task,
            Cancel: self._on_cancel,
            Credit: self._on_credit,
            Drain: self._on_drain,
            HubHello: self._on_hello,
            Ready: self._on_ready,
            Goodbye: self._on_goodbye,
        }

    def open(self) -> str:
        """Returns the address listened on, empty where hubs listen."""
        if self.plane == "client":
            return self.listen()
        self.dial()
        return ""

    def report(self, status: AgentStatus) -> None:
        if self.closed:
            return
        first, self._status = self._status is None, status
        if first:
            early, self._early = self._early, set()
            for wire in early:
                self._send_hello(wire)
            return
        try:
            data = encode(status)
        except AnywireError as error:
            log.warning("%s cannot report its status: %s", self.name, error)
            return
        for wire in self.wires():
            if wire.introduced:
                try:
                    wire.send_status(data)
                except AnywireError as error:
                    log.debug("%s", error)

    async def close(self) -> None:
        await self.close_all("the agent closed")

    # What hubs say

    def opened(self, wire: Wire) -> None:
        self._send_hello(wire)

    def ended(self, wire: Wire, reason: str) -> None:
        wire.hub, wire.introduced, wire.spare = None, False, False
        self._early.discard(wire)
        link = self._by_wire.pop(wire, None)
        if link is not None:
            link.open = False
            wire.drop_waiting()
            hub = link.hub
            del self._links[hub.hub_id]
            self.call(self.sink.hub_lost, hub.hub_id, hub.incarnation, reason)
            self.use_spare(lambda spare: spare.hub is not None and spare.hub.hub_id == hub.hub_id)

    def _send_hello(self, wire: Wire) -> None:
        if self._status is None:
            self._early.add(wire)
            return
        wire.introduced = True
        self.send_own(wire, AgentHello(PROTOCOL, self.plane, self.info, self._status))

    def _on_hello(self, wire: Wire, hello: HubHello) -> None:
        introduced = wire.introduced and wire not in self._by_wire
        self.ended(wire, "it introduced itself again")
        wrong = self.mismatch(hello.protocol, hello.plane) or self._outlived(hello.info)
        if wrong:
            self.refuse(wire, wrong)
            return
        wire.hub = hello.info
        if self.plane == "client":
            self._send_hello(wire)
            return
        wire.introduced = introduced
        old = self._links.get(hello.info.hub_id)
        if old is not None and old.hub.incarnation == hello.info.incarnation:
            wire.spare = True  # one hub with two addresses: the first link stays
        elif self._join(wire):
            self.send_own(wire, Ready())

    def _on_ready(self, wire: Wire, ready: Ready) -> None:
        if wire not in self._by_wire:
            self._join(wire)

    def _outlived(self, info: HubInfo) -> str:
        """Why a hub may not join: a later life of it has; empty when it may."""
        link = self._links.get(info.hub_id)
        if link is None or link.hub.incarnation <= info.incarnation:
            return ""
        return f"hub {info.hub_id} is connected already, in a newer incarnation"

    def _join(self, wire: Wire) -> bool:
        hub = wire.hub
        if hub is None:
            return False
        if wrong := self._outlived(hub):
            self.refuse(wire, wrong)
            return False
        old = self._links.get(hub.hub_id)
        if old is not None:
            self.part(old.wire, f"hub {hub.hub_id} has connected anew from {wire.peer}")
        link = _Link(self, wire, hub)
        self._links[hub.hub_id] = self._by_wire[wire] = link
        self.call(self.sink.hub_joined, hub.hub_id, hub.incarnation)
        return wire in self._by_wire

    def _on_task(self, wire: Wire, task: TaskRequest) -> None:
        if link := self._by_wire.get(wire):
            self.call(self.sink.task_received, link.hub.hub_id, link.hub.incarnation, task, link)

    def _on_cancel(self, wire: Wire, cancel: Cancel) -> None:
        if link := self._by_wire.get(wire):
            self.call(self.sink.cancel_received, link.hub.hub_id, link.hub.incarnation, cancel)

    def _on_credit(self, wire: Wire, credit: Credit) -> None:
        if link := self._by_wire.get(wire):
            self.call(self.sink.credit_received, link.hub.hub_id, link.hub.incarnation, credit)

    def _on_drain(self, wire: Wire, drain: Drain) -> None:
        if link := self._by_wire.get(wire):
            self.call(self.sink.drain_requested, link.hub.hub_id, link.hub.incarnation, drain.reason)

    def _on_goodbye(self, wire: Wire, goodbye: Goodbye) -> None:
        if wire not in self._by_wire:
            self.lines.warning(
                (wire.address, goodbye.reason), "%s does not let %s join: %s", wire.peer, self.name, goodbye.reason
            )
        self.ended(wire, goodbye.reason)
        wire.restart()
