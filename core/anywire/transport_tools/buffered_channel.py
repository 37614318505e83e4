"""What channels with a write buffer have in common, whatever they carry: room, the newest status, and their end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from anywire.errors import TransportError
from anywire.messages import AgentStatus
from anywire.transport_tools.channel import Channel
from anywire.transport_tools.room import NewestStatus, WriteRoom

log = logging.getLogger(__name__)


class BufferedChannel(Channel):
    """Base of a `Channel`; a subclass has ``send``, ``close`` and ``abort``, and keeps ``_room`` and ``_over``.

    ``buffer_bytes`` is how much may wait for the peer, ``peer`` names the other end in log lines.
    """

    def __init__(self, buffer_bytes: int, peer: str) -> None:
        self.linked = False
        self._peer = peer
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over = False
        self._room = WriteRoom(buffer_bytes, peer)
        self._newest = NewestStatus(self._room, self.send_control)

    @property
    def peer(self) -> str:
        return self._peer

    @property
    def ended(self) -> asyncio.Future[None]:
        return self._ended

    def send_control(self, message: Any) -> None:
        try:
            self.send(message)
        except TransportError as error:
            log.warning("not sent to %s: %s", self._peer, error)

    def report(self, status: AgentStatus) -> None:
        if not self._over:
            self._newest.put(status)

    async def drain(self) -> None:
        await self._room.drain()
