"""A channel over a stream of bytes, such as TCP or a Unix socket, as an `asyncio.Protocol`."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from anywire.transport_tools.channel import CLOSE_TIMEOUT, ChannelOwner
from anywire.transport_tools.codec import Codec, Goodbye
from anywire.transport_tools.encoded_channel import EncodedChannel
from anywire.transport_tools.frames import Unpacker

HELLO_BYTES = 256 * 1024
"""Bytes that a message of a peer may have before it is linked, encoded: a hello has some hundreds. A stranger makes
this end keep no more than that."""


class StreamChannel(EncodedChannel, asyncio.Protocol):
    """A `Channel`. Give ``loop.create_connection``, ``create_unix_server`` and the like one for each connection.

    Takes ``owner``, ``codec``, ``max_message_bytes``, ``buffer_bytes`` and ``peer`` as `EncodedChannel` does. Bytes
    that cannot be read, and messages that the owner will not have, end it with a goodbye that says why.
    """

    def __init__(self, owner: ChannelOwner, codec: Codec, **bounds: Any) -> None:
        super().__init__(owner, codec, **bounds)
        self._unpacker = Unpacker(min(self._limit, HELLO_BYTES))
        self._is_new = True
        """Whether it was no link when it last heard of the peer."""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def close(self, reason: str, *, refused: bool = False) -> None:
        transport = self._transport
        if self._over or transport is None:
            return
        self.send_control(Goodbye(reason, refused))
        # Half of it: what the peer still sends is read until it ends its half, or this end would reset the connection.
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()
        self._timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, transport.abort)
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
            for message in self._unpacker.feed(data):
                self._receive(message)
                if self.over:
                    return
                if self._is_new and self.linked:
                    self._is_new, self._unpacker.limit = False, self._limit
        except Exception as error:
            self._fail(error)

    def eof_received(self) -> None:
        # The peer may have stopped reading too: what waits for it would then keep a dead link.
        self.abort("the peer closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection broke: {exc}" if exc is not None else "the connection ended")
        if self._timer is not None:
            self._timer.cancel()
        if not self._ended.done():
            self._ended.set_result(None)

    def resume_writing(self) -> None:
        if not self._over:
            self._room.set_waiting(self._count_waiting())

    def _encoded(self, message: Any) -> bytes:
        return self._codec.framed(message)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _count_waiting(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0
