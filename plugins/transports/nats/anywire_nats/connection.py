"""The connection that carries all links of an end: packets out and in, and whether the server is there.

Before Python 3.12 `asyncio.wait_for`, which nats-py uses, may swallow that its task is cancelled. So every loop here
looks at `Connection.over`, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from anywire.errors import TransportUnavailable
from anywire.lease import AwakeTime, Silence
from anywire.transport_tools import CLOSE_TIMEOUT
from anywire_nats.client import ENDED, FOR_EVER
from anywire_nats.config import ServerConfig
from anywire_nats.session import CONNECT_TIMEOUT, Session

log = logging.getLogger(__name__)

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


class Connection(Session):
    """A connection to the server at ``url``; made by `open_connection`.

    ``on_lost`` is called once with a reason when it has ended, unless by `close`. ``on_beat`` is called once in
    ``lease`` seconds. ``awake`` is shared by all that belongs to one end.
    """

    def __init__(
        self, url: str, *, lease: float, awake: AwakeTime, on_lost: Callable[[str], None], on_beat: Callable[[], None]
    ) -> None:
        super().__init__(url)
        self._lease, self._awake = lease, awake
        self._on_lost, self._on_beat = on_lost, on_beat
        self._subscriptions: list[Any] = []
        self._waiting: asyncio.Queue[tuple[str, bytes, str]] = asyncio.Queue()
        self._bytes = 0  # that wait
        self._tasks: list[asyncio.Task[None]] = []
        self._silence: Silence | None = None

    async def connect(self, config: ServerConfig, name: str, **options: Any) -> None:
        await super().connect(config, name, no_echo=True, **options)
        if self.max_payload < LEAST_PAYLOAD:
            raise TransportUnavailable(
                f"the NATS server at {self.address} cannot be used: its max_payload is {self.max_payload}, "
                f"set {LEAST_PAYLOAD} or more"
            )

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
            self._subscriptions.append(await self.client.subscribe(subject, cb=take, pending_bytes_limit=MOST_UNREAD))
        except ENDED as error:
            raise self.lost(error) from error

    async def settle(self) -> None:
        """Wait until the server has the subscriptions; then begin to send. Raises `TransportUnavailable`."""
        try:
            await self.client.settle(CONNECT_TIMEOUT)
        except ENDED as error:
            raise self.lost(error) from error
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
                    await self.client.flush(FOR_EVER)
            except (TimeoutError, *ENDED) as error:
                log.debug("not all was sent to the NATS server at %s: %r", self.address, error)
                self.client.abort()
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
        await self.end()

    async def _send(self) -> None:
        """Give nats-py what waits: it takes more when the server has taken what went before."""
        while not self.over.done():
            subject, data, back = await self._waiting.get()
            self._bytes -= len(data)
            try:
                await self.client.publish(subject, data, reply=back)
            except ENDED as error:  # links send again what is lost
                log.debug("a packet was not sent to the NATS server at %s: %r", self.address, error)
            finally:
                self._waiting.task_done()

    async def _attend(self) -> None:
        """Call ``on_beat`` in each lease, and ask the server whether it is there."""
        try:
            while not self.over.done():
                await self.client.flush(FOR_EVER)
                if self._silence is not None:
                    self._silence.heard()
                await asyncio.wait([self.over], timeout=self._lease)
                self._on_beat()
        except ENDED as error:
            self.lost(error)

    def _silent(self) -> None:
        self._ended(f"the NATS server at {self.address} has not answered for {SILENT_LEASES} leases")
        self.client.abort()

    def _ended(self, reason: str) -> None:
        if not self.over.done():
            self.over.set_result(reason)
            if self._tasks:
                self._on_lost(reason)


async def open_connection(
    config: ServerConfig,
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
