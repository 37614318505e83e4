"""The protocol version of both ends: each says its own in its hello, and a peer with another one is refused by name."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from anywire.errors import TransportError
from anywire.messages import AgentInfo, HubInfo
from anywire.printable import printable
from anywire.protocol import PROTOCOL, protocol_mismatch

Info = TypeVar("Info", HubInfo, AgentInfo)

MAX_NAME = 200
"""Characters of a peer's id in a sentence."""


class LinkRefused(TransportError):
    """This life of a peer will not be a link: it is the lesser incarnation of two, speaks another protocol, or says of
    itself what cannot be.

    Log the text, tell the peer ``for_peer``, then end its connection.
    """

    def __init__(self, message: str, for_peer: str = "") -> None:
        super().__init__(message)
        self.for_peer = for_peer or message


class ImplausibleHello(LinkRefused):
    """Nobody can mean what a hello says; see `anywire.transport_tools.implausible`."""


def with_protocol(info: Info) -> Info:
    """What an end that is opened with ``info`` says of itself: with this package's version unless it names one."""
    return info if info.protocol else msgspec.structs.replace(info, protocol=PROTOCOL)


def check_protocol(peer: HubInfo | AgentInfo, own: HubInfo | AgentInfo) -> None:
    """Raises `LinkRefused` when ``peer``, as its hello says, does not speak the version of ``own``.

    Both sentences name the two versions, and each the other end's id.
    """
    ours = own.protocol or PROTOCOL
    mismatch = protocol_mismatch(peer.protocol, ours)
    if mismatch:
        theirs = protocol_mismatch(ours, peer.protocol or "none")
        raise LinkRefused(f"{_name(peer)}: {mismatch}", f"{_name(own)}: {theirs}")


def _name(info: HubInfo | AgentInfo) -> str:
    role, peer_id = ("hub", info.hub_id) if isinstance(info, HubInfo) else ("agent", info.agent_id)
    return f"{role} {printable(peer_id, MAX_NAME)}"
