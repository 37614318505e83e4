"""What channels that carry bytes have in common: encoding, bounds, back-pressure, and how they end."""

from __future__ import annotations

import logging
from typing import Any

from anywire.errors import PayloadTooLarge, TransportError
from anywire.once_log import OnceLog
from anywire.secrecy import without_secrets
from anywire.transport import BUFFER_BYTES, MAX_MESSAGE_BYTES
from anywire.transport_tools.buffered_channel import BufferedChannel
from anywire.transport_tools.channel import ChannelOwner
from anywire.transport_tools.codec import Codec, UnknownKind, encoded_limit
from anywire.transport_tools.payload import check_payload
from anywire.transport_tools.room import MayCongest

log = logging.getLogger(__name__)
once = OnceLog(log)


class EncodedChannel(BufferedChannel):
    """Base of a `Channel` over bytes; a subclass has `_write`, `_count_waiting`, ``close`` and ``abort``.

    ``owner`` is called on the loop. ``codec`` must be alike at both ends; one can serve all channels. ``peer`` names
    the other end in log lines.
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
        super().__init__(buffer_bytes, peer)
        self._owner, self._codec = owner, codec
        self._max, self._limit = max_message_bytes, encoded_limit(max_message_bytes)

    @property
    def over(self) -> bool:
        """Whether it has ended, or begun to."""
        return self._over

    def send(self, message: Any) -> None:
        if self._over:
            return
        check_payload(message, self._max)
        data = self._encoded(message)
        if len(data) > self._limit:
            raise PayloadTooLarge(
                f"the message has {len(data)} encoded bytes, for payloads of {self._max} bytes the limit is "
                f"{self._limit}: raise max_message_bytes at both ends"
            )
        room = self._room
        if isinstance(message, MayCongest):
            room.set_waiting(self._count_waiting())
            room.admit(len(data))
        self._write(data)
        if room.waiting + len(data) > room.low:
            room.set_waiting(self._count_waiting())
        else:
            room.waiting += len(data)  # there is room whether or not it waits

    # For subclasses

    def _encoded(self, message: Any) -> bytes:
        """A message as it is written. Raises `TransportError`."""
        return self._codec.encode(message)

    def _write(self, data: bytes) -> None:
        """Put an encoded message into the buffer."""
        raise NotImplementedError

    def _count_waiting(self) -> int:
        """Bytes that wait in the buffer now."""
        raise NotImplementedError

    def _receive(self, data: bytes) -> None:
        """Give an encoded message to the owner. Raises `TransportError` for what the owner will not have."""
        try:
            message = self._codec.decode(data)
        except UnknownKind as error:
            if not self.linked:
                raise
            once.warn((self._peer, UnknownKind), "%s has sent what this version ignores: %s", self._peer, error)
            return
        check_payload(message, self._max)
        self._owner.channel_received(self, message)

    def _fail(self, error: Exception) -> None:
        """Reading has failed: log why, and close."""
        if isinstance(error, TransportError):
            once.warn((self._peer, str(error)), "the connection to %s is ended: %s", self._peer, error)
            self.close(str(error))
        else:
            log.error("the connection to %s is ended: a message was not handled", self._peer, exc_info=error)
            self.close(without_secrets(f"a message was not handled: {error!r}"))

    def _end(self, reason: str) -> None:
        """It is over: nobody waits for room, and the owner is told once."""
        if not self._over:
            self._over = True
            self._room.close()
            self._owner.channel_ended(self, reason)
