"""One connection to a NATS server through nats-py, from its opening to its end.

nats-py connects again by itself and sends then what it has buffered, which a link must not. With that turned off it may
tell nobody that a connection has ended: always before its version 2.16, and still where something was to be sent. So it
is left on, and told to wait in the callback that comes before: `Connection.close` ends that wait.

Before Python 3.12 `asyncio.wait_for`, which nats-py uses, may swallow that its task is cancelled. So every loop here
looks at `Connection.over`, too.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import nats.errors

from anywire.errors import TransportUnavailable
from anywire.lease import AwakeTime, Silence
from anywire.once_log import OnceLog
from anywire.printable import printable
from anywire.transport_tools import CLOSE_TIMEOUT
from anywire_nats.client import ENDED, FOR_EVER, Client
from anywire_nats.config import NatsConfig
from anywire_nats.faults import mapped, meaning
from anywire_nats.login import login

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 5.0
"""Seconds that a server may take until this end is connected to it."""

SILENT_LEASES = 4
"""Leases after which a server that does not answer is given up."""

MOST_WAITING = 16 * 1024 * 1024
"""Bytes of packets that may wait for the server. Links send again what is dropped."""

MOST_UNREAD = 64 * 1024 * 1024
"""Bytes of one subscription that may wait to be read. nats-py drops what is over it."""

LEAST_PAYLOAD = 256
"""The least ``max_payload`` of a server with which links work."""

Received = Callable[[str, bytes, bool], None]
"""Called with the subject and the payload of a message, and whether the server says that nobody has subscribed."""


class Connection:
    """A connection to the server at ``url``; made by `open_connection`.

    ``on_lost`` is called once with a reason when it has ended, unless by `close`. ``on_beat`` is called once in
    ``lease`` seconds. ``awake`` is shared by all that belongs to one end.
    """

    def __init__(
        self, url: str, *, lease: float, awake: AwakeTime, on_lost: Callable[[str], None], on_beat: Callable[[], None]
    ) -> None:
        self.url, self.address = url, url.partition("://")[2]
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done with the reason when it has ended."""
        self.denied = ""
        """What the server does not let this end do, in a sentence; empty when it has said nothing."""
        self._client = Client()
        self._lease, self._awake = lease, awake
        self._on_lost, self._on_beat = on_lost, on_beat
        self._subscriptions: list[Any] = []
        self._waiting: asyncio.Queue[tuple[str, bytes, str]] = asyncio.Queue()
        self._bytes = 0  # that wait
        self._tasks: list[asyncio.Task[None]] = []
        self._silence: Silence | None = None
        self._connected = False
        self._cause: Exception | None = None  # the newest error that nats-py has told
        self._once = OnceLog(log)

    @property
    def max_payload(self) -> int:
        """Bytes of the largest message that the server takes."""
        return int(self._client.max_payload)

    def settings(self) -> dict[str, str]:
        return {
            "server": self.address,
            "server_version": str(self._client.connected_server_version).removeprefix("<nats server v").rstrip(">"),
            "max_payload": str(self.max_payload),
            "security": "tls" if self._client.is_encrypted else "none",
            "nats_py": Client.library_version,
        }

    async def connect(self, config: NatsConfig, name: str) -> None:
        """Raises `TransportUnavailable`, which names the server and what would do; `close` it then."""
        doing = f"the NATS server at {self.address} cannot be used"
        self._client.must_be_encrypted = config.encrypted
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._client.connect(
                    self.url,
                    name=printable(name, 100),
                    error_cb=self._failed,
                    disconnected_cb=self._disconnected,
                    connect_timeout=CONNECT_TIMEOUT,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    no_echo=True,
                    **login(config),
                )
        except TransportUnavailable:
            raise
        except Exception as error:
            ended = isinstance(error, (ConnectionError, nats.errors.UnexpectedEOF))
            if ended and self._client.is_encrypted and not config.tls_cert:
                raise mapped(ssl.SSLError(str(error)), doing) from error  # its word of that may have come too late
            raise mapped(error, doing) from error
        self._connected = True
        if config.encrypted and not self._client.is_encrypted:
            raise mapped(nats.errors.SecureConnWantedError(), doing)
        if self.max_payload < LEAST_PAYLOAD:
            raise TransportUnavailable(f"{doing}: its max_payload is {self.max_payload}, set {LEAST_PAYLOAD} or more")

    async def subscribe(self, subject: str, received: Received) -> None:
        """Call ``received`` for each message to ``subject`` until the connection has ended; nothing is missed of what
        comes after `settle`."""

        async def take(message: Any) -> None:
            if self.over.done():
                return
            if self._silence is not None:
                self._silence.heard()
            try:
                unheard = not message.data and (message.headers or {}).get("Status") == "503"
                received(message.subject, message.data, unheard)
            except Exception:
                log.exception("a message of the NATS server at %s was not handled", self.address)

        try:
            self._subscriptions.append(await self._client.subscribe(subject, cb=take, pending_bytes_limit=MOST_UNREAD))
        except ENDED as error:
            raise self._lost(error) from error

    async def settle(self) -> None:
        """Wait until the server has the subscriptions; then begin to send. Raises `TransportUnavailable`."""
        try:
            await self._client.settle(CONNECT_TIMEOUT)
        except ENDED as error:
            raise self._lost(error) from error
        if self.denied:
            raise TransportUnavailable(self.denied)
        if self.over.done():
            raise TransportUnavailable(self.over.result())
        self._silence = Silence(self._awake, SILENT_LEASES * self._lease, self._silent)
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._attend())]

    def publish(self, subject: str, data: bytes = b"", back: str = "") -> None:
        """Send ``data`` soon, or drop it when the connection has ended or too much waits. The server says to ``back``
        when nobody has subscribed to ``subject``."""
        if self.over.done():
            return
        if self._bytes + len(data) > MOST_WAITING:
            self._once.warn("slow", "the NATS server at %s is slow: packets are dropped and sent again", self.address)
            return
        self._bytes += len(data)
        self._waiting.put_nowait((subject, data, back))

    async def close(self) -> None:
        """Send what waits, for `CLOSE_TIMEOUT` at most, and end the connection; idempotent."""
        if self._tasks and not self.over.done():
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._waiting.join()
                    await self._client.flush(FOR_EVER)
            except (TimeoutError, *ENDED) as error:
                log.debug("not all was sent to the NATS server at %s: %r", self.address, error)
                self._client.abort()
        if not self.over.done():
            self.over.set_result("it closed")
        if self._silence is not None:
            self._silence.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for subscription in self._subscriptions:
            with suppress(*ENDED):
                await subscription.unsubscribe()
        self._subscriptions.clear()
        if self._connected:  # else nothing of it runs, and after TLS has failed it would wait for ever
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._client.close()
            except (TimeoutError, *ENDED) as error:
                log.debug("closing the connection to the NATS server at %s: %r", self.address, error)
        self._client.abort()

    async def _send(self) -> None:
        """Give nats-py what waits: it takes more when the server has taken what went before."""
        while not self.over.done():
            subject, data, back = await self._waiting.get()
            self._bytes -= len(data)
            try:
                await self._client.publish(subject, data, reply=back)
            except ENDED as error:  # links send again what is lost
                log.debug("a packet was not sent to the NATS server at %s: %r", self.address, error)
            finally:
                self._waiting.task_done()

    async def _attend(self) -> None:
        """Call ``on_beat`` in each lease, and ask the server whether it is there."""
        try:
            while not self.over.done():
                await self._client.flush(FOR_EVER)
                if self._silence is not None:
                    self._silence.heard()
                await asyncio.wait([self.over], timeout=self._lease)
                self._on_beat()
        except ENDED as error:
            self._lost(error)

    def _silent(self) -> None:
        self._end(f"the NATS server at {self.address} has not answered for {SILENT_LEASES} leases")
        self._client.abort()

    def _lost(self, error: Exception) -> TransportUnavailable:
        reason = f"the NATS server at {self.address} went away: {meaning(error)}"
        self._end(reason)
        return TransportUnavailable(reason)

    def _end(self, reason: str) -> None:
        if not self.over.done():
            self.over.set_result(reason)
            if self._tasks:
                self._on_lost(reason)

    async def _disconnected(self) -> None:
        """nats-py has lost the connection, or closed it."""
        self._lost(self._cause or nats.errors.UnexpectedEOF())
        if self._client.is_reconnecting:
            await asyncio.Event().wait()

    async def _failed(self, error: Exception) -> None:
        """Whatever nats-py has to tell beside its results."""
        text = printable(str(error), 300)
        if isinstance(error, nats.errors.SlowConsumerError):
            self._once.warn("unread", "messages of the NATS server at %s come too quickly: some are lost", self.address)
        elif "permissions violation" in text.lower():
            self.denied = (
                f"the NATS server at {self.address} does not let this end's user use its subjects ({text}): "
                "allow those that the README of anywire-nats lists"
            )
            self._once.warn(text, "%s", self.denied)
        elif isinstance(error, (TimeoutError, *ENDED)):
            if not self._connected:
                raise error  # ends `connect`, which would try the same again
            self._cause = error
            log.debug("the NATS server at %s: %r", self.address, error)
        else:
            log.error("nats-py failed at the NATS server at %s", self.address, exc_info=error)


async def open_connection(
    config: NatsConfig,
    name: str,
    *,
    last: str,
    lease: float,
    awake: AwakeTime,
    on_lost: Callable[[str], None],
    on_beat: Callable[[], None],
) -> Connection:
    """Connect to the first server that takes this end, and try the one at ``last`` after the others. Raises
    `TransportUnavailable`, which says of each why not."""
    reasons: list[str] = []
    cause: TransportUnavailable | None = None
    for url in sorted(config.servers, key=lambda each: each == last):
        connection = Connection(url, lease=lease, awake=awake, on_lost=on_lost, on_beat=on_beat)
        try:
            await connection.connect(config, name)
        except BaseException as error:
            await connection.close()
            if not isinstance(error, TransportUnavailable):
                raise
            cause = error
            reasons.append(str(error))
        else:
            return connection
    raise TransportUnavailable("; ".join(reasons)) from cause
