"""The agent's end: the hubs it is linked to, each over the wire it introduced itself on."""

from __future__ import annotations

import logging

from anywire.errors import AgentUnavailable, AnywireError
from anywire.messages import (
    AgentInfo,
    AgentStatus,
    Cancel,
    Command,
    Credit,
    FromAgent,
    HubInfo,
    TaskRequest,
    ToAgent,
)
from anywire.transport import AgentPort, AgentSink, Plane
from anywire.transport_tools import AgentLinks, LinkProofs, LinkRefused, with_protocol
from anywire_zeromq.codec import PROTOCOL, AgentHello, Goodbye, HubHello, Ready, encode
from anywire_zeromq.config import ZeromqConfig
from anywire_zeromq.end import End
from anywire_zeromq.wire import Wire

log = logging.getLogger(__name__)


class _Reply:
    """The way back to one hub, for each of its tasks and commands."""

    def __init__(self, port: ZeromqPort, wire: Wire) -> None:
        self.open = True
        self._port, self._wire = port, wire

    def send(self, message: FromAgent) -> None:
        if not self.open or self._port.guard.closed:
            return
        data = self._port.encode(message)
        try:
            self._wire.send(data)
        except AgentUnavailable:
            log.debug("%s has just gone", self._wire.peer)

    async def drain(self) -> None:
        if self.open:
            await self._wire.drain()


class ZeromqPort(End, AgentPort):
    def __init__(
        self, config: ZeromqConfig, info: AgentInfo, plane: Plane, sink: AgentSink, proofs: LinkProofs
    ) -> None:
        self.info = with_protocol(info)
        super().__init__(config, plane, f"agent {info.agent_id}", self.info, proofs)
        self._links: AgentLinks[Wire] = AgentLinks(sink, self.guard, self.info, proofs)
        self._replies: dict[Wire, _Reply] = {}
        self._status: AgentStatus | None = None
        self._early: set[Wire] = set()
        self._handlers = {
            TaskRequest: self._on_message,
            Cancel: self._on_message,
            Credit: self._on_message,
            Command: self._on_message,
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
        if self.guard.closed:
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
        hub_id = _hub_id(wire)
        wire.hub, wire.introduced, wire.spare = None, False, False
        self._early.discard(wire)
        reply = self._replies.pop(wire, None)
        if reply is not None:
            reply.open = False
            wire.drop_waiting()
            self._links.ended(wire, reason)
            self.use_spare(lambda spare: _hub_id(spare) == hub_id)

    def _send_hello(self, wire: Wire) -> None:
        if self._status is None:
            self._early.add(wire)
            return
        wire.introduced = True
        info = self.proofs.shown(self.info, wire.link_key)
        self.send_own(wire, AgentHello(PROTOCOL, self.plane, info, self._status))

    def _on_hello(self, wire: Wire, hello: HubHello) -> None:
        introduced = wire.introduced and wire not in self._replies
        self.ended(wire, "it introduced itself again")
        hub = hello.info
        if self.wrong_hello(wire, hello, self._links):
            return
        wire.hub = hub
        if self.plane == "client":
            self._send_hello(wire)
            return
        wire.introduced = introduced
        old = self._links.find(hub.hub_id)
        if old is not None and old.hub is not None and old.hub.incarnation == hub.incarnation:
            wire.spare = True  # one hub with two addresses: the first link stays
        elif self._join(wire, hub):
            self.send_own(wire, Ready())

    def _on_ready(self, wire: Wire, ready: Ready) -> None:
        if wire not in self._replies and wire.hub is not None:
            self._join(wire, wire.hub)

    def _join(self, wire: Wire, hub: HubInfo) -> bool:
        self._replies[wire] = _Reply(self, wire)
        try:
            old = self._links.join(wire, hub, wire.key, wire.link_key)
        except LinkRefused as error:
            del self._replies[wire]
            self.refuse(wire, str(error), error.for_peer)
            return False
        if old is not None:
            self.part(old, f"hub {hub.hub_id} has connected anew from {wire.peer}")
        self.unlinked.linked(wire.address)
        return self._links.joined(wire)

    def _on_message(self, wire: Wire, message: ToAgent) -> None:
        reply = self._replies.get(wire)
        if reply is not None:
            self._links.received(wire, message, reply)

    def _on_goodbye(self, wire: Wire, goodbye: Goodbye) -> None:
        self.peer_left(wire, goodbye, wire in self._replies)


def _hub_id(wire: Wire) -> str:
    return wire.hub.hub_id if wire.hub is not None else ""
