"""What every transport needs and none should write again.

A transport keeps its addresses, its connections and its settings; how much may wait for a peer, which of two lives of
an agent counts, when a sink may be called and what a message weighs is decided here, once. A third party may build
on all names below; each can be used without the others.

Bounds          `BoundedOptions` `payload_bytes` `check_payload` `check_payload_bytes`
                `WriteRoom` `MayCongest` `NewestStatus`
Bytes           `Codec` (with `Accepted`, `Goodbye`, `UnknownKind`), `encoded_limit`, `frame`, `Unpacker`
Callbacks       `Guard` `OnceLog`
Who is linked   `HubLinks` `AgentLinks` `LinkRefused` `with_protocol` `check_protocol` `implausible` `is_loopback`
Connecting      `keep_dialling` `Backoff` `StopDialling`
Whole ends      `ChannelHub` and `ChannelPort` over any `Channel`
Channels        `StreamChannel` over a stream of bytes (TCP, Unix sockets), `PacketPeer` over a wire without connections
                (datagrams, a broker's subjects), `EncodedChannel` and `BufferedChannel` as
                bases of others; `close_all`
Links           `Link` with `Joined`, `Received`, `Lost`: a link over packets, without I/O
"""

from anywire.once_log import OnceLog
from anywire.transport_tools.addresses import is_loopback
from anywire.transport_tools.buffered_channel import BufferedChannel
from anywire.transport_tools.channel import CLOSE_TIMEOUT, Channel, ChannelOwner, close_all
from anywire.transport_tools.codec import Accepted, Codec, Goodbye, UnknownKind, encoded_limit
from anywire.transport_tools.dialling import Backoff, StopDialling, keep_dialling
from anywire.transport_tools.encoded_channel import EncodedChannel
from anywire.transport_tools.ends import ChannelHub, ChannelPort
from anywire.transport_tools.frames import Unpacker, frame
from anywire.transport_tools.guard import Guard
from anywire.transport_tools.hellos import implausible
from anywire.transport_tools.link import Joined, Link, Lost, Received
from anywire.transport_tools.links import AgentLinks, HubLinks
from anywire.transport_tools.options import BoundedOptions
from anywire.transport_tools.packet_peer import PacketChannel, PacketPeer
from anywire.transport_tools.payload import check_payload, check_payload_bytes, payload_bytes
from anywire.transport_tools.room import MayCongest, NewestStatus, WriteRoom
from anywire.transport_tools.stream import StreamChannel
from anywire.transport_tools.versions import LinkRefused, check_protocol, with_protocol

__all__ = [
    "CLOSE_TIMEOUT",
    "Accepted",
    "AgentLinks",
    "Backoff",
    "BoundedOptions",
    "BufferedChannel",
    "Channel",
    "ChannelHub",
    "ChannelOwner",
    "ChannelPort",
    "Codec",
    "EncodedChannel",
    "Goodbye",
    "Guard",
    "HubLinks",
    "Joined",
    "Link",
    "LinkRefused",
    "Lost",
    "MayCongest",
    "NewestStatus",
    "OnceLog",
    "PacketChannel",
    "PacketPeer",
    "Received",
    "StopDialling",
    "StreamChannel",
    "UnknownKind",
    "Unpacker",
    "WriteRoom",
    "check_payload",
    "check_payload_bytes",
    "check_protocol",
    "close_all",
    "encoded_limit",
    "frame",
    "implausible",
    "is_loopback",
    "keep_dialling",
    "payload_bytes",
    "with_protocol",
]
