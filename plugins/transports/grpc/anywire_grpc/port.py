"""The agent's end: the hubs it is linked to, each over the stream it introduced itself on."""

from __future__ import annotations

from contextlib import suppress

from google.protobuf.message import DecodeError

from anywire.errors import Congested
from anywire.messages import AgentInfo, AgentStatus, Chunk
from anywire.transport import AgentPort, AgentSink, Plane
from anywire_grpc.codec import (
    decode_hub_frame,
    encode_agent_hello,
    encode_chunk,
    encode_status,
    read_cancel,
    read_credit,
    read_drain,
    read_hub_info,
    read_task,
)
from anywire_grpc.config import GrpcConfig
from anywire_grpc.end import End
from anywire_grpc.link_pb2 import HubHello
from anywire_grpc.wire import Wire


class _Reply:
    """The way back to one hub, for each of its tasks."""

    def __init__(self, port: GrpcPort, wire: Wire) -> None:
        self._port, self._wire = port, wire

    def send(self, chunk: Chunk) -> None:
        self._wire.send(self._port.checked(encode_chunk(chunk)))

    async def drain(self) -> None:
        await self._wire.drain()


class GrpcPort(End, AgentPort):
    def __init__(self, config: GrpcConfig, info: AgentInfo, plane: Plane, sink: AgentSink) -> None:
        super().__init__(config, plane, f"agent {info.agent_id}", info.lease_ms)
        self.info, self.sink = info, sink
        self._status: AgentStatus | None = None

    async def open(self) -> str:
        """Returns the address listened on, empty where hubs listen. Nobody is told of the agent before `report`."""
        if self.plane == "client":
            return await self.listen()
        self.check_dialling()
        return ""

    def report(self, status: AgentStatus) -> None:
        if self.closed:
            return
        first, self._status = self._status is None, status
        if first:
            if self.plane == "client":
                self.answer()
            else:
                self.dial()
            return
        data = encode_status(status)
        for wire in self.wires:
            if wire.greeted:
                with suppress(Congested):  # the next one is newer
                    wire.send(data)

    # What hubs say

    def opened(self, wire: Wire) -> None:
        if self.plane == "agent":
            self._greet(wire)

    def received(self, wire: Wire, data: bytes) -> None:
        frame = decode_hub_frame(data)
        if frame.HasField("hello"):
            self._introduced(wire, frame.hello)
        if wire.reply is None:
            raise DecodeError("it did not begin with a hello")
        for task in frame.tasks:
            self.sink.task_received(read_task(task), wire.reply)
        for cancel in frame.cancels:
            self.sink.cancel_received(read_cancel(cancel))
        for credit in frame.credits:
            self.sink.credit_received(read_credit(credit))
        for drain in frame.drains:
            self.sink.drain_requested(read_drain(drain).reason)

    def lost(self, wire: Wire, reason: str) -> None:
        assert wire.hub is not None
        self.sink.hub_lost(wire.hub.hub_id, wire.hub.incarnation, reason)

    def _greet(self, wire: Wire) -> None:
        assert self._status is not None
        wire.greeted = True
        wire.send(encode_agent_hello(self.info, self._status))

    def _introduced(self, wire: Wire, hello: HubHello) -> None:
        if wire.name:
            raise DecodeError("it introduced itself twice")
        hub = read_hub_info(hello)
        self.join(wire, hub.hub_id)
        wire.hub, wire.reply = hub, _Reply(self, wire)
        if self.plane == "client":
            self._greet(wire)
        self.sink.hub_joined(hub.hub_id, hub.incarnation)
