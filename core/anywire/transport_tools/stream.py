"""A channel over a stream of bytes, such as TCP or a Unix socket, as an `asyncio.Protocol`."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from anywire.errors import PayloadTooLarge, TransportError
from anywire.messages import AgentStatus, Chunk, TaskRequest
from anywire.transport import BUFFER_BYTES, MAX_MESSAGE_BYTES
from anywire.transport_tools.channel import CLOSE_TIMEOUT, ChannelOwner
from anywire.transport_tools.codec import Codec, Goodbye, encoded_limit
from anywire.transport_tools.frames import Unpacker, frame
from anywire.transport_tools.payload import check_payload
from anywire.transport_tools.room import NewestStatus, WriteRoom

log = logging.getLogger(__name__)


class StreamChannel(asyncio.Protocol):
    """A `Channel`. Give ``loop.create_connection``, ``create_unix_server`` and the like one for each connection.

    ``owner`` is called on the loop. ``codec`` must be alike at both ends; one can serve all channels. ``peer`` names
    the other end in log lines. Bytes that cannot be read, and messages that the owner does not want, end it.
    """

    def __init__(
        self,
        owner: ChannelOwner,
        codec: Codec,
        *,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        buffer_bytes: int = BUFFER_BYTES,
        peer: str = "a peer",
    ) -> None:
        self.peer = peer
        self.linked = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._owner, self._codec, self._max = owner, codec, max_message_bytes
        self._unpacker = Unpacker(encoded_limit(max_message_bytes))
        self._room = WriteRoom(buffer_bytes, peer)
        self._newest = NewestStatus(self._room, self.send_control)
        self._transport: asyncio.Transport | None = None
        self._over = False
        self._limit: asyncio.TimerHandle | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended, or begun to."""
        return self._over

    def send(self, message: Any) -> None:
        if self._over or self._transport is None:
            return
        check_payload(message, self._max)
        data = self._codec.encode(message)
        if len(data) > self._unpacker.limit:
            raise PayloadTooLarge(
                f"the message has {len(data)} encoded bytes, for payloads of {self._max} bytes the limit is "
                f"{self._unpacker.limit}: raise max_message_bytes at both ends"
            )
        if isinstance(message, TaskRequest | Chunk):
            self._room.set_waiting(self._transport.get_write_buffer_size())
            self._room.admit(len(data))
        self._transport.write(frame(data))
        self._room.set_waiting(self._transport.get_write_buffer_size())

    def send_control(self, message: Any) -> None:
        try:
            self.send(message)
        except TransportError as error:
            log.warning("not sent to %s: %s", self.peer, error)

    def report(self, status: AgentStatus) -> None:
        if not self._over:
            self._newest.put(status)

    async def drain(self) -> None:
        await self._room.drain()

    def close(self, reason: str, *, refused: bool = False) -> None:
        transport = self._transport
        if self._over or transport is None:
            return
        self.send_control(Goodbye(reason, refused))
        # Half of it: what the peer still sends is read until it ends its half, or this end would reset the connection.
        transport.write_eof() if transport.can_write_eof() else transport.close()
        self._limit = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, transport.abort)
        self._end(reason)

    def abort(self, reason: str) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._end(reason)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass
        self._transport.set_write_buffer_limits(high=self._room.low, low=self._room.low)
        self._owner.channel_opened(self)

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        try:
            for each in self._unpacker.feed(data):
                message = self._codec.decode(each)
                check_payload(message, self._max)
                self._owner.channel_received(self, message)
                if self.over:
                    return
        except TransportError as error:
            log.warning("the connection to %s is ended: %s", self.peer, error)
            self.close(str(error))
        except Exception as error:
            log.exception("the connection to %s is ended: a message was not handled", self.peer)
            self.close(f"a message was not handled: {error!r}")

    def eof_received(self) -> None:
        # The peer reads on perhaps, and perhaps not: then what waits for it would keep a dead link.
        self.abort("the peer closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection broke: {exc}" if exc is not None else "the connection ended")
        if self._limit is not None:
            self._limit.cancel()
        if not self.ended.done():
            self.ended.set_result(None)

    def resume_writing(self) -> None:
        if self._transport is not None and not self._over:
            self._room.set_waiting(self._transport.get_write_buffer_size())

    def _end(self, reason: str) -> None:
        if not self._over:
            self._over = True
            self._room.close()
            self._owner.channel_ended(self, reason)
