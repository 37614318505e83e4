"""Connections that begin with TLS: accepted here, and given to their protocol once the peer has shown what it must."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from anywire.listening.connection_limit import LEAST, descriptors
from anywire.once_log import OnceLog

if TYPE_CHECKING:
    from anywire.listening.certificates import ServerCertificate

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
"""Seconds that a peer may take for its handshake, and for what is left of a connection that is closed."""
AT_ONCE = LEAST
"""Connections that are taken from a socket before the event loop goes on with others."""
RETRY_S = 1.0
"""Seconds until connections are taken again after the system had no descriptor for one; as asyncio does."""
_REASONS = {
    "HTTP_REQUEST": "it speaks HTTP without TLS; its address must begin with https",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it has shown no certificate, and server.tls.client_ca asks for one",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority of this server's certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not take this server's certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not take this server's certificate",
    "CERTIFICATE_VERIFY_FAILED": "its certificate does not come from an authority in server.tls.client_ca, or has "
    "expired",
}
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Handshakes:
    """Accepts the connections of listening ``sockets``, which it closes in the end. asyncio's own server keeps the
    context that it began with, and bounds no handshakes: a stranger who connects and says nothing would hold as many
    descriptors as it likes.

    A connection gets what ``certificate`` is when it is accepted. When the handshakes under way take over an eighth of
    this process's descriptors, the oldest is cut off.
    """

    def __init__(
        self,
        server: str,
        sockets: Sequence[socket.socket],
        factory: Callable[[], asyncio.Protocol],
        certificate: ServerCertificate,
    ) -> None:
        self._name, self._factory, self._certificate = server, factory, certificate
        self._sockets = list(sockets)
        self._loop = asyncio.get_running_loop()
        self._open: dict[asyncio.Task[None], None] = {}
        self._most = max(LEAST, descriptors() // 8)
        self._once = OnceLog(log)
        for each in self._sockets:
            self._loop.add_reader(each, self._accept, each)

    def stop(self) -> None:
        """Accept nothing more. Handshakes under way go on until `close`."""
        for each in self._sockets:
            self._loop.remove_reader(each)
            each.close()
        self._sockets.clear()

    async def close(self) -> None:
        """Cut off the handshakes under way."""
        self.stop()
        await asyncio.sleep(0)  # each has begun, and so its connection is closed when it is cancelled
        for each in self._open:
            each.cancel()
        if self._open:
            await asyncio.wait(list(self._open))

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                self._once.warn("room", "%s cannot take a connection for now: %s", self._name, error.strerror)
                self._loop.remove_reader(listening)
                self._loop.call_later(RETRY_S, self._resume, listening)
                return
            connection.setblocking(False)
            shaking = self._loop.create_task(self._shake(connection, str(peer[0])))
            self._open[shaking] = None
            shaking.add_done_callback(self._ended)
            if len(self._open) > self._most:
                self._once.warn(
                    "many", "%s has %d TLS handshakes under way: the oldest is cut off", self._name, self._most
                )
                oldest = next(iter(self._open))
                del self._open[oldest]
                oldest.cancel()

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    async def _shake(self, connection: socket.socket, peer: str) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._factory,
                connection,
                ssl=self._certificate.context,
                ssl_handshake_timeout=TIMEOUT_S,
                ssl_shutdown_timeout=TIMEOUT_S,
            )
        except OSError as error:
            reason = getattr(error, "reason", None)  # of ssl.SSLError
            if reason is None:
                log.debug("%s broke off a TLS handshake: %s", peer, error)
            else:
                what = _REASONS.get(reason, reason.replace("_", " ").lower())
                self._once.warn((peer, reason), "%s: no TLS connection with %s: %s", self._name, peer, what)

    def _ended(self, shaking: asyncio.Task[None]) -> None:
        self._open.pop(shaking, None)
        with contextlib.suppress(asyncio.CancelledError):
            shaking.result()
