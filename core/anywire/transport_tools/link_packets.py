"""The packets of a `anywire.transport_tools.link.Link`: what they hold and how they are encoded.

=========  ======================================================================================
`Hello`    who the sender is, and its lease; sent until the peer has answered
`Data`     one fragment of a message, with its number
`Ack`      nothing more than the head: answers `Data`, and is the ping
`Bye`      the link is over, and why
=========  ======================================================================================

Each packet begins with a head: version and kind (1 byte each), then the sender's session, the session that the sender
believes the receiver to have (0: it does not know), and the number of the next fragment it waits for (8 bytes each,
the most significant first).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

VERSION = 1
HEAD = struct.Struct(">BBQQQ")
HELLO, DATA, ACK, BYE = range(4)
_HELLO = struct.Struct(">I")
_DATA = struct.Struct(">QB")
DATA_HEAD = HEAD.size + _DATA.size
"""Bytes of a `Data` packet beside its fragment."""


class Head(NamedTuple):
    sender: int
    receiver: int
    awaits: int


class Hello(NamedTuple):
    lease_ms: int
    data: bytes


class Data(NamedTuple):
    number: int
    last: bool
    """Whether the message ends with this fragment."""
    fragment: bytes


class Ack(NamedTuple):
    pass


class Bye(NamedTuple):
    reason: str


Body = Hello | Data | Ack | Bye


def pack(head: Head, body: Body) -> bytes:
    match body:
        case Hello(lease_ms, data):
            return HEAD.pack(VERSION, HELLO, *head) + _HELLO.pack(lease_ms) + data
        case Data(number, last, fragment):
            return HEAD.pack(VERSION, DATA, *head) + _DATA.pack(number, last) + fragment
        case Ack():
            return HEAD.pack(VERSION, ACK, *head)
        case Bye(reason):
            return HEAD.pack(VERSION, BYE, *head) + reason.encode(errors="replace")


def unpack(packet: bytes) -> tuple[Head, Body] | None:
    """None for what is no packet of this version."""
    try:
        version, kind, *head = HEAD.unpack_from(packet)
        if version != VERSION:
            return None
        if kind == HELLO:
            (lease_ms,) = _HELLO.unpack_from(packet, HEAD.size)
            return Head(*head), Hello(lease_ms, packet[HEAD.size + _HELLO.size :])
        if kind == DATA:
            number, last = _DATA.unpack_from(packet, HEAD.size)
            return Head(*head), Data(number, bool(last), packet[DATA_HEAD:])
        if kind == ACK:
            return Head(*head), Ack()
        if kind == BYE:
            return Head(*head), Bye(packet[HEAD.size :].decode(errors="replace"))
    except struct.error:
        pass
    return None
