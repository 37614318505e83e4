"""What every transport needs and none should write again.

A transport keeps its addresses, its connections and its settings; how much may wait for a peer, which of two lives of
an agent counts, when a sink may be called and what a message weighs is decided here, once. A third party may build
on all names below; each can be used without the others.

Bounds          `BoundedOptions` `payload_bytes` `check_payload` `check_payload_bytes`
                `WriteRoom` `MayCongest` `NewestStatus`
Bytes           `Codec` (with `Accepted`, `Goodbye`, `UnknownKind`), `encoded_limit`, `frame`, `Unpacker`
Callbacks       `Guard` `OnceLog`
Who is linked   `HubLinks` `AgentLinks` `LinkRefused` `ImplausibleHello` `with_protocol`
                `check_protocol` `implausible` `is_loopback` `LinkProofs`
Certificates    `EndCertificate` with `new_end_certificate` `END_NAME` `certificate_digest`
Addresses       `listening_addresses` `takes_any_port` `none_is_free` `free_addresses` `lan_addresses`
                `meeting_addresses` `encryption_told` `option_of` `own_address` `WILDCARD`
Connecting      `keep_dialling` `Backoff` `StopDialling`, `Unlinked` with `findings`
Listening       `stop_accepting`
Whole ends      `ChannelHub` and `ChannelPort` over any `Channel`
Channels        `StreamChannel` over a stream of bytes (TCP, Unix sockets), `PacketPeer` over a wire without connections
                (datagrams, a broker's subjects), `EncodedChannel` and `BufferedChannel` as
                bases of others; `close_all`
Links           `Link` with `Joined`, `Received`, `Lost`: a link over packets, without I/O
"""

from anywire.once_log import OnceLog
from anywire.transport_tools.accepting import stop_accepting
from anywire.transport_tools.addresses import WILDCARD, is_loopback, own_address
from anywire.transport_tools.buffered_channel import BufferedChannel
from anywire.transport_tools.channel import CLOSE_TIMEOUT, Channel, ChannelOwner, close_all
from anywire.transport_tools.codec import Accepted, Codec, Goodbye, UnknownKind, encoded_limit
from anywire.transport_tools.dialling import Backoff, StopDialling, keep_dialling
from anywire.transport_tools.directory import (
    encryption_told,
    free_addresses,
    lan_addresses,
    listening_addresses,
    meeting_addresses,
    none_is_free,
    option_of,
    takes_any_port,
)
from anywire.transport_tools.encoded_channel import EncodedChannel
from anywire.transport_tools.end_certificates import (
    END_NAME,
    EndCertificate,
    certificate_digest,
    new_end_certificate,
)
from anywire.transport_tools.ends import ChannelHub, ChannelPort
from anywire.transport_tools.frames import Unpacker, frame
from anywire.transport_tools.guard import Guard
from anywire.transport_tools.hellos import implausible
from anywire.transport_tools.link import Joined, Link, Lost, Received
from anywire.transport_tools.links import AgentLinks, HubLinks
from anywire.transport_tools.options import BoundedOptions
from anywire.transport_tools.packet_peer import PacketChannel, PacketPeer
from anywire.transport_tools.payload import check_payload, check_payload_bytes, payload_bytes
from anywire.transport_tools.proofs import LinkProofs
from anywire.transport_tools.room import MayCongest, NewestStatus, WriteRoom
from anywire.transport_tools.stream import StreamChannel
from anywire.transport_tools.unlinked import Unlinked, findings
from anywire.transport_tools.versions import ImplausibleHello, LinkRefused, check_protocol, with_protocol

__all__ = [
    "CLOSE_TIMEOUT",
    "END_NAME",
    "WILDCARD",
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
    "EndCertificate",
    "Goodbye",
    "Guard",
    "HubLinks",
    "ImplausibleHello",
    "Joined",
    "Link",
    "LinkProofs",
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
    "Unlinked",
    "Unpacker",
    "WriteRoom",
    "certificate_digest",
    "check_payload",
    "check_payload_bytes",
    "check_protocol",
    "close_all",
    "encoded_limit",
    "encryption_told",
    "findings",
    "frame",
    "free_addresses",
    "implausible",
    "is_loopback",
    "keep_dialling",
    "lan_addresses",
    "listening_addresses",
    "meeting_addresses",
    "new_end_certificate",
    "none_is_free",
    "option_of",
    "own_address",
    "payload_bytes",
    "stop_accepting",
    "takes_any_port",
    "with_protocol",
]
