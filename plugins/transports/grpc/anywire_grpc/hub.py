"""The hub's end: its agents by name, each over the stream it introduced itself on."""

from __future__ import annotations

from itertools import chain

from google.protobuf.message import DecodeError

from anywire.messages import HubInfo, ToAgent
from anywire.transport import Hub, HubSink, Plane
from anywire.transport_tools import HubLinks, LinkProofs, MayCongest, with_protocol
from anywire_grpc.codec import (
    check_size,
    decode_agent_frame,
    encode_hub_hello,
    encode_to_agent,
    read_agent_info,
    read_chunk,
    read_progress,
    read_result,
    read_status,
)
from anywire_grpc.config import GrpcConfig
from anywire_grpc.end import End
from anywire_grpc.link_pb2 import AgentHello
from anywire_grpc.wire import Wire


class GrpcHub(End, Hub):
    def __init__(self, config: GrpcConfig, info: HubInfo, plane: Plane, sink: HubSink, proofs: LinkProofs) -> None:
        super().__init__(config, plane, f"hub {info.hub_id}", info.lease_ms, proofs)
        self.info = with_protocol(info)
        self._links: HubLinks[Wire] = HubLinks(sink, self.guard, self.info, proofs)

    @property
    def links(self) -> HubLinks[Wire]:
        return self._links

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
        wire = self._links.get(agent_id)
        data = encode_to_agent(message, self.config.max_message_bytes)
        wire.send(data, bounded=isinstance(message, MayCongest))

    async def drain(self, agent_id: str) -> None:
        wire = self._links.find(agent_id)
        if wire is not None:
            await wire.drain()

    # What agents say

    def opened(self, wire: Wire) -> None:
        if self.plane == "client":
            self._send_hello(wire)

    def received(self, wire: Wire, data: bytes) -> None:
        frame = decode_agent_frame(data)
        if frame.HasField("hello"):
            self._introduced(wire, frame.hello)
        elif not wire.name:
            raise DecodeError("it did not begin with a hello")
        # One after the other: what came before one that cannot be read is still passed on.
        for message in chain(
            map(read_chunk, frame.chunks),
            map(read_status, frame.statuses),
            map(read_result, frame.results),
            map(read_progress, frame.progress),
        ):
            check_size(message, self.config.max_message_bytes)
            if wire.open:
                self._links.received(wire, message)

    def _send_hello(self, wire: Wire) -> None:
        wire.introduce(encode_hub_hello(self.proofs.shown(self.info, wire.link_key)))

    def _introduced(self, wire: Wire, hello: AgentHello) -> None:
        if wire.name:
            raise DecodeError("it introduced itself twice")
        info = read_agent_info(hello.info)
        self._links.check_hello(info, wire.certificate, wire.link_key)
        status = read_status(hello.status)
        if self.plane == "agent":
            self._send_hello(wire)
        self.named(wire, info.agent_id)
        self.replaced(self._links.join(wire, info, wire.certificate, wire.link_key))
        self._links.received(wire, status)
