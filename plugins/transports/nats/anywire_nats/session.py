"""One connection to a NATS server through nats-py, from its opening to its end.

nats-py connects again by itself and sends then what it has buffered, which nobody here wants: what is sent is sent on
one connection, or is lost and known to be. With that turned off it may tell nobody that a connection has ended: always
before its version 2.16, and still where something was to be sent. So it is left on, and told to wait in the callback
that comes before: `Session.end` ends that wait.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from contextlib import suppress
from typing import Any

import nats.errors

from anywire.errors import TransportUnavailable
from anywire.once_log import OnceLog
from anywire.printable import printable
from anywire.transport_tools import CLOSE_TIMEOUT
from anywire_nats.client import ENDED, Client
from anywire_nats.config import ServerConfig
from anywire_nats.faults import mapped, meaning
from anywire_nats.login import login

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 5.0
"""Seconds that a server may take until this end is connected to it."""
MOST_DENIED = 1000
"""Subjects that are remembered as denied."""
_DENIED = re.compile(r'permissions violation for publish to "([^"]+)"', re.IGNORECASE)


class Session:
    """A connection to the server at ``url``. ``allowed`` says where the subjects are listed that this end must be
    allowed to use, for the sentence that names one which it is not."""

    def __init__(self, url: str, allowed: str = "those that the README of anywire-nats lists") -> None:
        self.url, self.address = url, url.partition("://")[2]
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done with the reason when it has ended."""
        self.denied = ""
        """What the server does not let this end do, in a sentence; empty when it has said nothing."""
        self.client = Client()
        self._denied: set[str] = set()
        self._allowed, self._option = allowed, ServerConfig.option
        self._connected = False
        self._cause: Exception | None = None  # the newest error that nats-py has told
        self._once = OnceLog(log)

    @property
    def max_payload(self) -> int:
        """Bytes of the largest message that the server takes."""
        return int(self.client.max_payload)

    def denies(self, subject: str) -> bool:
        """Whether the server has said on this connection that it takes nothing for ``subject`` from this end's user."""
        return subject.lower() in self._denied  # nats-py tells what the server says in lower case

    def settings(self) -> dict[str, str]:
        return {
            "server": self.address,
            "server_version": str(self.client.connected_server_version).removeprefix("<nats server v").rstrip(">"),
            "max_payload": str(self.max_payload),
            "security": "tls" if self.client.is_encrypted else "none",
            "nats_py": Client.library_version,
        }

    async def connect(self, config: ServerConfig, name: str, **options: Any) -> None:
        """``options`` are further ones of nats-py's ``connect``. Raises `TransportUnavailable`, which names the server
        and what would do; `end` it then."""
        doing = f"the NATS server at {self.address} cannot be used"
        self._option = config.option
        self.client.must_be_encrypted = config.encrypted
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self.client.connect(
                    self.url,
                    name=printable(name, 100),
                    error_cb=self._failed,
                    disconnected_cb=self._disconnected,
                    connect_timeout=CONNECT_TIMEOUT,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    **login(config),
                    **options,
                )
        except TransportUnavailable:
            raise
        except Exception as error:
            ended = isinstance(error, (ConnectionError, nats.errors.UnexpectedEOF))
            if ended and self.client.is_encrypted and not config.tls_cert:
                # Its word of that may have come too late.
                raise mapped(ssl.SSLError(str(error)), doing, config.option) from error
            raise mapped(error, doing, config.option) from error
        self._connected = True
        if config.encrypted and not self.client.is_encrypted:
            raise mapped(nats.errors.SecureConnWantedError(), doing, config.option)

    async def end(self) -> None:
        """End the connection, whatever is to be sent still; idempotent."""
        if not self.over.done():
            self.over.set_result("it closed")
        if self._connected:  # else nothing of it runs, and after TLS has failed it would wait for ever
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    with suppress(*ENDED):
                        await self.client.close()
            except TimeoutError as error:
                log.debug("closing the connection to the NATS server at %s: %r", self.address, error)
        self.client.abort()

    def lost(self, error: Exception) -> TransportUnavailable:
        """Say that it has ended with ``error``; what is to be raised to whoever has used it."""
        reason = f"the NATS server at {self.address} went away: {meaning(error, self._option)}"
        self._ended(reason)
        return TransportUnavailable(reason)

    def _ended(self, reason: str) -> None:
        if not self.over.done():
            self.over.set_result(reason)

    async def _disconnected(self) -> None:
        """nats-py has lost the connection, or closed it."""
        self.lost(self._cause or nats.errors.UnexpectedEOF())
        if self.client.is_reconnecting:
            await asyncio.Event().wait()

    async def _failed(self, error: Exception) -> None:
        """Whatever nats-py has to tell beside its results."""
        text = printable(str(error), 300)
        if isinstance(error, nats.errors.SlowConsumerError):
            self._once.warn("unread", "messages of the NATS server at %s come too quickly: some are lost", self.address)
        elif "permissions violation" in text.lower():
            self.denied = (
                f"the NATS server at {self.address} does not let this end's user use its subjects ({text}): "
                f"allow {self._allowed}"
            )
            self._once.warn(text, "%s", self.denied)
            if (found := _DENIED.search(text)) and len(self._denied) < MOST_DENIED:
                self._denied.add(found[1].lower())
        elif isinstance(error, (TimeoutError, *ENDED)):
            if not self._connected:
                raise error  # ends `connect`, which would try the same again
            self._cause = error
            log.debug("the NATS server at %s: %r", self.address, error)
        else:
            log.error("nats-py failed at the NATS server at %s", self.address, exc_info=error)
