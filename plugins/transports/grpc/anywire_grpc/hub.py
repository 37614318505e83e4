"""The hub's end: its agents by name, each over the stream it introduced itself on."""

from __future__ import annotations

import grpc
from google.protobuf.message import DecodeError

from anywire.errors import AgentUnavailable
from anywire.messages import HubInfo, TaskRequest, ToAgent
from anywire.transport import Hub, HubSink, Plane
from anywire_grpc.codec import (
    decode_agent_frame,
    encode_hub_hello,
    encode_to_agent,
    read_agent_info,
    read_chunk,
    read_status,
)
from anywire_grpc.config import GrpcConfig
from anywire_grpc.end import End
from anywire_grpc.link_pb2 import AgentHello
from anywire_grpc.wire import Wire


class GrpcHub(End, Hub):
    def __init__(self, config: GrpcConfig, info: HubInfo, plane: Plane, sink: HubSink) -> None:
        super().__init__(config, plane, f"hub {info.hub_id}", info.lease_ms)
        self.info, self.sink = info, sink
        self._hello = encode_hub_hello(info)

    async def open(self) -> str:
        """Returns the address listened on, empty where agents listen."""
        if self.plane == "agent":
            address = await self.listen()
            self.answer()
            return address
        self.check_dialling()
        self.dial()
        return ""

    def send(self, agent_id: str, message: ToAgent) -> None:
        wire = self.links.get(agent_id)
        if wire is None:
            raise AgentUnavailable(f"no link to agent {agent_id!r} over grpc", agent_id=agent_id)
        wire.send(self.checked(encode_to_agent(message)), bounded=type(message) is TaskRequest)

    async def drain(self, agent_id: str) -> None:
        wire = self.links.get(agent_id)
        if wire is not None:
            await wire.drain()

    # What agents say

    def opened(self, wire: Wire) -> None:
        if self.plane == "client":
            wire.send(self._hello)

    def received(self, wire: Wire, data: bytes) -> None:
        frame = decode_agent_frame(data)
        if frame.HasField("hello"):
            self._introduced(wire, frame.hello)
        elif not wire.name:
            raise DecodeError("it did not begin with a hello")
        if wire.open:
            for chunk in frame.chunks:
                self.sink.chunk_received(read_chunk(chunk))
            for status in frame.statuses:
                self.sink.agent_reported(read_status(status))

    def lost(self, wire: Wire, reason: str) -> None:
        assert wire.agent is not None
        self.sink.agent_lost(wire.agent.agent_id, wire.agent.incarnation, reason)

    def _introduced(self, wire: Wire, hello: AgentHello) -> None:
        if wire.name:
            raise DecodeError("it introduced itself twice")
        info, status = read_agent_info(hello.info), read_status(hello.status)
        known = self.links.get(info.agent_id)
        if known is not None and known.agent is not None and known.agent.incarnation > info.incarnation:
            reason = f"agent {info.agent_id} is linked already, in a newer incarnation"
            self.refuse(wire, grpc.StatusCode.FAILED_PRECONDITION, reason)
            return
        self.join(wire, info.agent_id)
        wire.agent = info
        if self.plane == "agent":
            wire.send(self._hello)
        self.sink.agent_joined(info)
        self.sink.agent_reported(status)
