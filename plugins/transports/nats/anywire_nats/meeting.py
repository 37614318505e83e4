"""The peers of one end at a NATS server: who is there, a link to each, and the connection that carries them all."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from functools import partial

from anywire.clock import SystemClock
from anywire.errors import TransportUnavailable
from anywire.identity import new_incarnation
from anywire.lease import AwakeTime
from anywire.once_log import OnceLog
from anywire.transport import Plane
from anywire.transport_tools import Backoff, ChannelOwner, Codec, PacketPeer, StopDialling, keep_dialling
from anywire_nats.config import NatsConfig
from anywire_nats.connection import Connection, open_connection
from anywire_nats.subjects import Subjects, sender

log = logging.getLogger(__name__)
once = OnceLog(log)
"""For what all ends of this process lose together."""

CODEC = Codec()

PACKET_BYTES = 32 * 1024
"""The largest packet, where the server takes such: as much as nats-py reads at a time."""

LONGEST_PAUSE = 2.0
"""Seconds between two attempts to connect, at most."""

MOST_PEERS = 10_000
"""Peers of one end, linked or not. Each name that is heard of counts until it was silent for a lease."""


class Meeting:
    """Connects ``end`` to the servers, and to every end of the other kind on its plane.

    ``dials`` is True for a hub. ``name`` is who this end is, for people who look at the server. ``lease`` is how many
    seconds this end may be silent.
    """

    def __init__(
        self, config: NatsConfig, end: ChannelOwner, plane: Plane, name: str, lease: float, *, dials: bool
    ) -> None:
        self._config, self._end, self._plane, self._lease, self._dials = config, end, plane, lease, dials
        self._label = f"anywire {'hub' if dials else 'agent'} {name}"
        self._awake = AwakeTime(SystemClock())
        self._peers: dict[str, PacketPeer] = {}
        self._connection: Connection | None = None
        self._subjects = self._new_subjects()
        self._dialling: asyncio.Task[None] | None = None
        self._leaving = False
        self._away = ""  # why there is no connection
        self._last = ""  # address of the server that was lost
        self._settings: dict[str, str] = {}
        self._once = OnceLog(log)

    async def open(self) -> None:
        """Raises `TransportUnavailable`."""
        await self._connect()
        address = ", ".join(self._config.servers)
        backoff = Backoff(self._lease / 20, min(self._lease / 2, LONGEST_PAUSE))
        self._dialling = asyncio.create_task(keep_dialling(self._stay_connected, address, backoff=backoff))

    async def leave(self) -> None:
        """Take nobody new."""
        self._leaving = True

    async def close(self) -> None:
        """Close the channels first. Returns when the goodbyes were sent, or after a bounded time."""
        self._leaving = True
        while self._dialling is not None and not self._dialling.done():
            self._dialling.cancel()  # more than once, since it may be swallowed: see `anywire_nats.connection`
            await asyncio.wait([self._dialling], timeout=0.1)
        self._forget_all("it closed")
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def settings(self) -> dict[str, str]:
        """What is in force now, or was until the connection was lost."""
        if self._connection is not None:
            self._settings = self._connection.settings()
        return self._settings

    def findings(self) -> list[tuple[str, str]]:
        """What is not as it should be, each with what would do."""
        if self._away:
            return [(self._away, "start the server, or correct transports.nats.servers")]
        if self._connection is not None and self._connection.denied:
            return [(self._connection.denied, "change the permissions of this end's user at the server")]
        return []

    async def _stay_connected(self) -> bool:
        """Connect where there is no connection, and return when it has ended."""
        if self._leaving:
            raise StopDialling
        connection = self._connection
        if connection is None:
            try:
                connection = await self._connect()
            except TransportUnavailable as error:
                self._away = str(error)
                raise
            log.info("connected to the NATS server at %s again", connection.address)
            once.reset()
        self._away = ""
        self._away = await asyncio.shield(connection.over)
        once.warn(self._away, "%s; links come back when it does", self._away)
        self._last = connection.url
        await connection.close()
        self._connection = None
        return True

    def _new_subjects(self) -> Subjects:
        """Those of a new name: whoever still has the old one finds nobody there."""
        return Subjects(self._config.fleet_name, self._plane, secrets.token_hex(8), dials=self._dials)

    async def _connect(self) -> Connection:
        """Connect, and say that this end is there."""
        connection = await open_connection(
            self._config,
            self._label,
            last=self._last,
            lease=self._lease,
            awake=self._awake,
            on_lost=self._forget_all,
            on_beat=self._say_again,
        )
        self._connection, self._subjects = connection, self._new_subjects()
        try:
            await connection.subscribe(self._subjects.inbox, self._received)
            await connection.subscribe(self._subjects.others, self._heard_of)
            await connection.settle()
            connection.publish(self._subjects.here)
        except BaseException:
            self._forget_all("it is not connected")
            await connection.close()
            self._connection = None
            raise
        self._settings = connection.settings()
        return connection

    def _say_again(self) -> None:
        """Of the two kinds of ends hubs say again that they are there: there are fewer of them."""
        if self._connection is not None and self._dials and not self._leaving:
            self._connection.publish(self._subjects.here)

    def _heard_of(self, subject: str, data: bytes, unheard: bool) -> None:
        """An end of the other kind says that it is there."""
        name = sender(subject)
        if self._dials:
            self._peer(name)
            return
        peer = self._peers.get(name)
        if self._connection is not None and (peer is None or peer.link.state != "joined"):
            self._connection.publish(self._subjects.to(name))

    def _received(self, subject: str, data: bytes, unheard: bool) -> None:
        name = sender(subject)
        if unheard:
            self._forget(name, "the NATS server says that it is gone")
            return
        peer = self._peer(name)
        if peer is not None and data:
            peer.received(data)

    def _peer(self, name: str) -> PacketPeer | None:
        """The peer of that name. None when this end takes nobody new."""
        found = self._peers.get(name)
        connection, subjects = self._connection, self._subjects
        if found is not None or connection is None or self._leaving:
            return found
        if len(self._peers) >= MOST_PEERS:
            self._once.warn("peers", "over %d ends are heard of at the NATS server: others are ignored", MOST_PEERS)
            return None
        peer = PacketPeer(
            self._end,
            CODEC,
            _sending(connection, subjects.to(name), subjects.back(name)),
            session=new_incarnation(),
            lease=self._lease,
            awake=self._awake,
            dial=self._dials,
            on_idle=partial(self._forget, name, "it was silent"),
            packet_bytes=min(PACKET_BYTES, connection.max_payload),
            max_message_bytes=self._config.max_message_bytes,
            buffer_bytes=self._config.buffer_bytes,
            peer=f"{'an agent' if self._dials else 'a hub'} at NATS ({name})",
        )
        self._peers[name] = peer
        return peer

    def _forget(self, name: str, reason: str) -> None:
        peer = self._peers.pop(name, None)
        if peer is not None:
            peer.gone(reason)
            peer.close()

    def _forget_all(self, reason: str) -> None:
        for name in list(self._peers):
            self._forget(name, reason)


def _sending(connection: Connection, subject: str, back: str) -> Callable[[bytes], None]:
    def send(packet: bytes) -> None:
        connection.publish(subject, packet, back)

    return send
