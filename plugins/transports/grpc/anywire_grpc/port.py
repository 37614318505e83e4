"""The agent's end: the hubs it is linked to, each over the stream it introduced itself on."""

from __future__ import annotations

import logging
from itertools import chain

from google.protobuf.message import DecodeError

from anywire.errors import AnywireError
from anywire.messages import AgentInfo, AgentStatus, FromAgent
from anywire.transport import AgentPort, AgentSink, Plane
from anywire.transport_tools import AgentLinks, LinkProofs, NewestStatus, OnceLog, with_protocol
from anywire_grpc.codec import (
    check_size,
    decode_hub_frame,
    encode_agent_hello,
    encode_from_agent,
    encode_status,
    read_cancel,
    read_command,
    read_credit,
    read_hub_info,
    read_tasks,
)
from anywire_grpc.config import GrpcConfig
from anywire_grpc.end import End
from anywire_grpc.link_pb2 import HubHello
from anywire_grpc.wire import Wire

log = logging.getLogger(__name__)


class _Reply:
    """The way back to one hub, for each of its tasks and commands."""

    def __init__(self, port: GrpcPort, wire: Wire) -> None:
        self._port, self._wire = port, wire

    def send(self, message: FromAgent) -> None:
        if self._wire.open:
            self._wire.send(encode_from_agent(message, self._port.config.max_message_bytes))

    async def drain(self) -> None:
        await self._wire.drain()


class GrpcPort(End, AgentPort):
    def __init__(self, config: GrpcConfig, info: AgentInfo, plane: Plane, sink: AgentSink, proofs: LinkProofs) -> None:
        super().__init__(config, plane, f"agent {info.agent_id}", info.lease_ms, proofs)
        self.info = with_protocol(info)
        self._links: AgentLinks[Wire] = AgentLinks(sink, self.guard, self.info, proofs)
        self._status: AgentStatus | None = None
        self._once = OnceLog(log)

    @property
    def links(self) -> AgentLinks[Wire]:
        return self._links

    async def open(self) -> str:
        """Returns the address listened on, empty where hubs listen. Nobody is told of the agent before `report`."""
        if self.plane == "client":
            return await self.listen()
        self.check_dialling()
        return ""

    def report(self, status: AgentStatus) -> None:
        if self.guard.closed:
            return
        try:
            encode_status(status)
        except AnywireError as error:
            self._once.warn(str(error), "a status of %s is left out: %s", self.me, error)
            return
        first, self._status = self._status is None, status
        if first:
            if self.plane == "client":
                self.answer()
            else:
                self.dial()
            return
        for wire in self.wires:
            if wire.statuses is not None:
                wire.statuses.put(status)

    # What hubs say

    def opened(self, wire: Wire) -> None:
        if self.plane == "agent":
            self._send_hello(wire)

    def received(self, wire: Wire, data: bytes) -> None:
        frame, body = decode_hub_frame(data)
        if frame.HasField("hello"):
            self._introduced(wire, frame.hello)
        if wire.reply is None:
            raise DecodeError("it did not begin with a hello")
        # One after the other: what came before one that cannot be read is still passed on.
        for message in chain(
            read_tasks(frame, body),
            map(read_cancel, frame.cancels),
            map(read_credit, frame.credits),
            map(read_command, frame.commands),
        ):
            check_size(message, self.config.max_message_bytes)
            if wire.open:
                self._links.received(wire, message, wire.reply)

    def _send_hello(self, wire: Wire) -> None:
        assert self._status is not None
        wire.statuses = NewestStatus(wire.room, lambda status: wire.send(encode_status(status), bounded=False))
        wire.introduce(encode_agent_hello(self.proofs.shown(self.info, wire.link_key), self._status))

    def _introduced(self, wire: Wire, hello: HubHello) -> None:
        if wire.name:
            raise DecodeError("it introduced itself twice")
        hub = read_hub_info(hello)
        self._links.check_hello(hub, wire.certificate, wire.link_key)
        wire.reply = _Reply(self, wire)
        if self.plane == "client":
            self._send_hello(wire)
        self.named(wire, hub.hub_id)
        self.replaced(self._links.join(wire, hub, wire.certificate, wire.link_key))
