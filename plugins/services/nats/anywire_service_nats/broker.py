"""The one connection of this service to its NATS servers, made again for ever, and JetStream over it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias

import nats.errors
import nats.js.errors

from anywire.errors import AnywireError, TransportUnavailable
from anywire.once_log import OnceLog
from anywire.printable import printable
from anywire.transport_tools import Backoff, keep_dialling
from anywire_nats.client import ENDED
from anywire_nats.config import ServerConfig
from anywire_nats.session import Session

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds between two attempts to connect: at most at first, and at most at all."""
WORK_PAUSE, LONGEST_WORK_PAUSE = 0.5, 30.0
"""Seconds after which work that has failed on a connection that lasts is begun again: at first, and at most where it
fails for what nobody foresaw."""
FIRST_TRY = 2.0
"""Seconds that `Broker.open` waits for the servers."""
PING_SECONDS, MOST_PINGS = 5, 2
"""A server that does not answer a ping is lost after so many more of them."""
REPLY_TIMEOUT = 5.0
"""Seconds in which JetStream must answer a request."""
ALLOWED = "`$JS.API.>`, `_INBOX.>` and the subjects that the README of anywire-service-nats lists"

FAILED = (*ENDED, TimeoutError, AnywireError)
"""What a call over a connection raises when it has ended, or JetStream does not do what it was asked."""

JetStream: TypeAlias = Any
"""nats-py's ``JetStreamContext``, which has no types."""
Work = Callable[[JetStream], Awaitable[None]]


class Broker:
    """Connects to the servers of ``config`` as ``name``, and again whenever the connection has ended, until `close`.

    Says in one line when the servers are away, and in one when they are back. Each connection has a `jetstream` of its
    own; nothing of an earlier one counts on it: subscriptions are made anew. Work that lasts is given to
    `each_connection`, which does that.
    """

    def __init__(self, config: ServerConfig, name: str = "anywire service") -> None:
        self.config, self._name = config, name
        self.away = "it is not open"
        """Why there is no connection; empty while there is one."""
        self._session: Session | None = None
        self._jetstream: JetStream | None = None
        self._last = ""  # url of the server that was used
        self._dialling: asyncio.Task[None] | None = None
        self._tried: asyncio.Event = asyncio.Event()
        self._callbacks: list[Callable[[bool], object]] = []
        self._works: list[Work] = []
        self._running: list[asyncio.Task[None]] = []
        self._lost = ""  # why the connection before has ended
        self._told = False  # whether it is said that the servers are away
        self._once = OnceLog(log)

    @property
    def connected(self) -> bool:
        return self._jetstream is not None

    @property
    def jetstream(self) -> JetStream:
        """JetStream over the connection that there is now. Raises `TransportUnavailable` where there is none."""
        if self._jetstream is None:
            raise TransportUnavailable(self.away)
        return self._jetstream

    @property
    def client(self) -> Any:
        """nats-py's client of the connection that there is now. Raises `TransportUnavailable` where there is none."""
        if self._session is None or self._jetstream is None:
            raise TransportUnavailable(self.away)
        return self._session.client

    @property
    def max_payload(self) -> int:
        """Bytes of the largest message that the server takes, headers included. 0 while there is no connection."""
        return self._session.max_payload if self._session is not None else 0

    @property
    def server_version(self) -> str:
        """Version of the server that this is connected to; empty while there is no connection."""
        return self._session.settings()["server_version"] if self._session is not None else ""

    @property
    def denied(self) -> str:
        """What the server does not let this service do, in a sentence; empty when it has said nothing."""
        return self._session.denied if self._session is not None else ""

    def denies(self, subject: str) -> bool:
        """Whether the server has said that this service may not publish to ``subject``."""
        return self._session is not None and self._session.denies(subject)

    def changed(self, callback: Callable[[bool], object]) -> Callable[[], None]:
        """Call ``callback`` with True when a connection is there and with False when it has ended; returns what ends
        that. It must return quickly. It is not called for what is so already: look at `connected`."""
        self._callbacks.append(callback)

        def end() -> None:
            with suppress(ValueError):
                self._callbacks.remove(callback)

        return end

    def each_connection(self, work: Work) -> None:
        """Await ``work`` with the `jetstream` of each connection, and cancel it when that has ended, before the next
        one begins. When it raises it is begun again after `WORK_PAUSE`; what is neither in `FAILED` nor told by whoever
        raises it is logged. When it returns it is done with that connection. Call it before `open`, or at any time."""
        self._works.append(work)
        if self._session is not None and self._jetstream is not None:
            self._running.append(asyncio.create_task(_repeat(work, self._jetstream, self._session)))

    async def open(self) -> None:
        """Connect, and stay connected. Returns once this was tried once with each server, or after `FIRST_TRY`,
        whatever came of it."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._dialling = asyncio.create_task(
            keep_dialling(self._stay_connected, ", ".join(self.config.servers), backoff=backoff)
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_TRY):
                await self._tried.wait()

    async def close(self) -> None:
        """End the connection and all work on it. Safe to call twice, and without `open`."""
        # More than once: before Python 3.12 `asyncio.wait_for`, which nats-py uses, may swallow it.
        while self._dialling is not None and not self._dialling.done():
            self._dialling.cancel()
            await asyncio.wait([self._dialling], timeout=0.1)
        await self._disconnect("it is closed")

    async def _stay_connected(self) -> bool:
        """Connect, and return when the connection has ended."""
        try:
            session, jetstream = await self._connect()
        except TransportUnavailable as error:
            self.away, self._told = str(error), True
            self._once.warn(self.away, "%s; it is tried again until it can be used", error)
            return False
        finally:
            self._tried.set()
        if self._told:
            log.info("connected to the NATS server at %s", session.address)
        elif self._lost:
            log.info("%s; connected to the one at %s", self._lost, session.address)
        self._told = False
        self._once.reset()
        try:
            self._begin(session, jetstream)
            self._lost = await asyncio.shield(session.over)
        finally:
            await self._disconnect(session.over.result() if session.over.done() else "it is closed")
        return True

    async def _connect(self) -> tuple[Session, JetStream]:
        reasons: list[str] = []
        cause: TransportUnavailable | None = None
        for url in sorted(self.config.servers, key=lambda each: each == self._last):
            session = Session(url, ALLOWED)
            try:
                await session.connect(
                    self.config, self._name, ping_interval=PING_SECONDS, max_outstanding_pings=MOST_PINGS
                )
                jetstream = session.client.jetstream(timeout=REPLY_TIMEOUT)
                await _check(session, jetstream)
            except BaseException as error:
                await session.end()
                if not isinstance(error, TransportUnavailable):
                    raise
                cause = error
                reasons.append(str(error))
            else:
                return session, jetstream
        raise TransportUnavailable("; ".join(reasons)) from cause

    def _begin(self, session: Session, jetstream: JetStream) -> None:
        self._session, self._jetstream, self._last, self.away = session, jetstream, session.url, ""
        self._running = [asyncio.create_task(_repeat(work, jetstream, session)) for work in self._works]
        self._tell(connected=True)

    async def _disconnect(self, reason: str) -> None:
        self.away = reason
        session, self._session, self._jetstream = self._session, None, None
        if session is None:
            return
        self._tell(connected=False)
        await session.end()
        running, self._running = self._running, []
        while left := [task for task in running if not task.done()]:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=0.1)

    def _tell(self, *, connected: bool) -> None:
        for callback in list(self._callbacks):
            try:
                callback(connected)
            except Exception:
                log.exception("a part of the service nats could not deal with a change of the connection")


async def _check(session: Session, jetstream: JetStream) -> None:
    """Raise `TransportUnavailable` when the server has no JetStream for this end."""
    try:
        await jetstream.account_info()
    except nats.js.errors.ServiceUnavailableError as error:
        raise TransportUnavailable(
            f"the NATS server at {session.address} has no JetStream: start it with `nats-server --jetstream`"
        ) from error
    except (nats.js.errors.APIError, nats.errors.NoRespondersError) as error:
        text = printable(str(getattr(error, "description", "") or error), 300)
        raise TransportUnavailable(
            f"the NATS server at {session.address} has no JetStream for this end ({text}): "
            "start it with `nats-server --jetstream`, and enable it for the account of this end's user"
        ) from error
    except (*ENDED, TimeoutError) as error:
        raise TransportUnavailable(session.denied) if session.denied else session.lost(error) from error


async def _repeat(work: Work, jetstream: JetStream, session: Session) -> None:
    longest = WORK_PAUSE
    while not session.over.done():
        pause = WORK_PAUSE
        try:
            await work(jetstream)
        except FAILED as error:
            log.debug("work over the connection to the NATS server at %s: %r", session.address, error)
        except Exception:
            log.exception("work over the connection to the NATS server at %s failed", session.address)
            pause = longest = min(2 * longest, LONGEST_WORK_PAUSE)
        else:
            return
        await asyncio.wait([session.over], timeout=pause)
