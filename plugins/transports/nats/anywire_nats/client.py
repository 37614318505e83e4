"""nats-py's client, with what links need and it has not."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import nats.aio.client
import nats.errors
import nats.protocol.parser

FOR_EVER = 10_000_000
"""Seconds; nats-py takes no None."""

ENDED = (nats.errors.Error, OSError, RuntimeError)
"""What nats-py and streams raise when a connection has ended."""


# nats-py takes a form feed and a vertical tab for an end of a subject, which servers do not, and gives the connection
# up at a message with such a subject: whoever publishes one would end connections here for ever.
_NAME, _GAP = rb"([^ \t\r\n]+)", rb"[ \t]+"
_HEAD = _GAP + _NAME + _GAP + _NAME + _GAP + rb"(" + _NAME + _GAP + rb")?"
nats.protocol.parser.MSG_RE = re.compile(rb"\AMSG" + _HEAD + rb"(\d+)\r\n")
nats.protocol.parser.HMSG_RE = re.compile(rb"\AHMSG" + _HEAD + rb"(\d+)" + _GAP + rb"(\d+)\r\n")


class Client(nats.aio.client.Client):  # type: ignore[misc]  # nats-py has no types
    """nats-py's client. All that is used of its inside stands here."""

    library_version: ClassVar[str] = str(nats.aio.client.__version__)
    must_be_encrypted = False
    """Whether nothing is to be said to a server that does not use TLS."""

    @property
    def is_encrypted(self) -> bool:
        writer = self._writer()
        return writer is not None and writer.get_extra_info("ssl_object") is not None

    async def settle(self, seconds: float) -> None:
        """Wait until the server has taken all that was said so far, and has said what it refuses. The ping of a flush
        overtakes what waits to be sent; when it is answered, that has left, and a second one comes after it."""
        await self.flush(seconds)
        await self.flush(seconds)

    def abort(self) -> None:
        """End the connection now, whatever is to be sent still. `close` leaves subscriptions waiting where something
        was to be sent on a connection that had ended: they are stopped here."""
        for subscription in list(self._subs.values()):
            subscription._stop_processing()
        self._subs.clear()
        writer = self._writer()
        if writer is not None:
            writer.transport.abort()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """A subject of any bytes is read: nats-py reads nothing more from a connection once it could not read one."""
        if not subject.isascii():
            subject = subject.decode(errors="replace").encode()
        await super()._process_msg(sid, subject, reply, data, headers)

    async def _process_headers(self, headers: bytes) -> Any:
        """None also for headers that cannot be read: whoever publishes may send any bytes."""
        try:
            return await super()._process_headers(headers)
        except Exception:  # whatever nats-py raises for them
            return None

    def _writer(self) -> Any:
        return getattr(self._transport, "_io_writer", None)

    def _connect_command(self) -> bytes:
        """What this end says of itself, its password too: nats-py says it to servers without TLS as well."""
        if self.must_be_encrypted and not self.is_encrypted:
            raise nats.errors.SecureConnWantedError
        if self.is_encrypted and (protocol := self._writer().transport.get_protocol()) is not None:
            # nats-py has not told it so, and asyncio would warn when the connection ends.
            protocol._over_ssl = True
        found: bytes = super()._connect_command()
        return found
