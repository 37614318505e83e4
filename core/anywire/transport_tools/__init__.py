"""What every transport needs and none should write again.

A transport keeps its addresses, its connections and its settings; how much may wait for a peer, which of two lives of
an agent counts, when a sink may be called and what a message weighs is decided here, once. A third party may build
on all names below; each can be used without the others.

Bounds          `BoundedOptions` `payload_bytes` `check_payload` `check_payload_bytes` `WriteRoom` `NewestStatus`
Bytes           `Codec` (with `Accepted`, `Goodbye`), `encoded_limit`, `frame`, `Unpacker`
Callbacks       `Guard` `OnceLog`
Who is linked   `HubLinks` `AgentLinks` `LinkRefused`
Connecting      `keep_dialling` `Backoff` `StopDialling`
Whole ends      `ChannelHub` and `ChannelPort` over any `Channel`
Channels        `StreamChannel` over a stream of bytes (TCP, Unix sockets), `PacketPeer` over a wire without connections
                (datagrams, a broker's subjects), `EncodedChannel` as base of others; `close_all`
Links           `Link` with `Joined`, `Received`, `Lost`: a link over packets, without I/O
"""

from anywire.transport_tools.channel import CLOSE_TIMEOUT, Channel, ChannelOwner, close_all
from anywire.transport_tools.codec import Accepted, Codec, Goodbye, encoded_limit
from anywire.transport_tools.dialling import Backoff, StopDialling, keep_dialling
from anywire.transport_tools.encoded_channel import EncodedChannel
from anywire.transport_tools.ends import ChannelHub, ChannelPort
from anywire.transport_tools.frames import Unpacker, frame
from anywire.transport_tools.guard import Guard, OnceLog
from anywire.transport_tools.link import Joined, Link, Lost, Received
from anywire.transport_tools.links import AgentLinks, HubLinks, LinkRefused
from anywire.transport_tools.options import BoundedOptions
from anywire.transport_tools.packet_peer import PacketChannel, PacketPeer
from anywire.transport_tools.payload import check_payload, check_payload_bytes, payload_bytes
from anywire.transport_tools.room import NewestStatus, WriteRoom
from anywire.transport_tools.stream import StreamChannel

__all__ = [
    "CLOSE_TIMEOUT",
    "Accepted",
    "AgentLinks",
    "Backoff",
    "BoundedOptions",
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
    "NewestStatus",
    "OnceLog",
    "PacketChannel",
    "PacketPeer",
    "Received",
    "StopDialling",
    "StreamChannel",
    "Unpacker",
    "WriteRoom",
    "check_payload",
    "check_payload_bytes",
    "close_all",
    "encoded_limit",
    "frame",
    "keep_dialling",
    "payload_bytes",
]
