"""One agent at the hub: the stream that lives as long as the link, beside its tasks."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Protocol

import aiohttp
import msgspec
from yarl import URL

from anywire import errors
from anywire.clock import SystemClock
from anywire.errors import AnywireError
from anywire.lease import AwakeTime
from anywire.messages import AgentInfo, AgentStatus, Command, FromAgent, HubInfo, TaskRequest, ToAgent
from anywire.printable import printable
from anywire.transport import Plane
from anywire.transport_tools import CLOSE_TIMEOUT, EndCertificate, LinkProofs
from anywire.transport_tools.timeouts import awake_timeout
from anywire_http.client import LinkSession
from anywire_http.config import HttpConfig
from anywire_http.faults import for_status, mapped
from anywire_http.tasks import Tasks
from anywire_http.wire import (
    LINK_HEADER,
    PROTOCOL,
    HubHello,
    Lines,
    LinkLine,
    decode,
    encode,
    encoded_limit,
    fault_text,
    other_framing,
    other_plane,
)

log = logging.getLogger(__name__)

HELLO_S = 5.0
"""Seconds that an agent may take to answer a hub that opens a link."""

ANSWERS_S = 1.0
"""Seconds for which the answers of an agent that said goodbye are waited for; they are on their way."""


class LinkOwner(Protocol):
    """The hub, as its links see it."""

    config: HttpConfig
    info: HubInfo
    plane: Plane
    proofs: LinkProofs
    certificate: EndCertificate | None

    def join(self, link: AgentLink, info: AgentInfo, status: AgentStatus) -> None:
        """Raises `LinkRefused`."""
        ...

    def received(self, link: AgentLink, message: AgentStatus | FromAgent) -> None: ...
    def failed(self, link: AgentLink, task_id: str, attempt: int, error: AnywireError) -> None: ...
    def lost(self, link: AgentLink, reason: str) -> None: ...


class AgentLink:
    """`start` it; it is over when `closed` returns. ``expected`` is the agent that must be there."""

    def __init__(self, owner: LinkOwner, url: str, expected: AgentInfo | None = None) -> None:
        self.owner, self.url = owner, url
        self.info: AgentInfo | None = None
        self.alive = False
        """Whether it has joined and was not lost."""
        self.answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Empty once joined; else why that did not come about."""
        self.ended = asyncio.Event()
        self._expected = expected
        self._session = LinkSession(owner.config, owner.certificate, url, **{LINK_HEADER: secrets.token_hex(16)})
        self._link_url = URL(f"{self._session.url}/link")
        self._tasks = Tasks(self, self.owner.config, self._session)
        self._awake = AwakeTime(SystemClock())
        self._task: asyncio.Task[None] | None = None
        self._reason = ""
        self._ending = False

    @property
    def key(self) -> bytes:
        """See `anywire.transport_tools.LinkProofs`."""
        return self._session.link_key

    def start(self) -> asyncio.Task[None]:
        self._task = asyncio.create_task(self._run())
        return self._task

    def stop(self, reason: str) -> None:
        """End it soon; `LinkOwner.lost` follows when it had joined."""
        self._reason = self._reason or reason
        if self._task is not None and not self._ending:
            self._task.cancel()

    def end(self, reason: str) -> None:
        """End it at once."""
        self._leave(reason)
        self.stop(reason)

    async def close(self, reason: str) -> None:
        """Send what was accepted, for `CLOSE_TIMEOUT` at most, then end it and release everything."""
        if self.alive:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._tasks.arrived()
            except TimeoutError:
                log.debug("the agent at %s has not taken everything", self.url)
        self.end(reason)
        if self._task is not None:
            await asyncio.wait([self._task])

    def send(self, message: ToAgent) -> None:
        if isinstance(message, TaskRequest | Command):
            self._tasks.send(message)
        else:
            self._tasks.control(message)

    async def drain(self) -> None:
        await self._tasks.drain()

    # What its tasks and commands say

    def received(self, message: FromAgent) -> None:
        if self.alive:
            self.owner.received(self, message)

    def failed(self, key: tuple[str, int], error: AnywireError) -> None:
        if self.alive:
            self.owner.failed(self, *key, error)

    # Life

    def _leave(self, reason: str) -> list[asyncio.Task[None]]:
        if self.alive:
            self.alive = False
            self.owner.lost(self, reason)
        return self._tasks.stop()

    async def _run(self) -> None:
        reason = ""
        try:
            reason = await self._follow()
        except asyncio.CancelledError:
            reason = "stopped"
        except AnywireError as error:
            reason = str(error)
        except (aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
            reason = str(mapped(error, f"the link to {self.url}"))
        except Exception as error:
            log.exception("the link to %s failed", self.url)
            reason = f"the link to {self.url} failed: {type(error).__name__}"
        finally:
            self._ending = True
            reason = self._reason or reason or "its connection ended"
            if not self.answered.done():
                self.answered.set_result(reason)
            running = self._leave(reason)
            self.ended.set()
            await asyncio.gather(*running, return_exceptions=True)
            await self._session.close()

    async def _follow(self) -> str:
        """Open the link, read it to its end, and return the agent's goodbye, if any."""
        owner = self.owner
        hello = encode(HubHello(PROTOCOL, owner.plane, owner.proofs.shown(owner.info, self.key)))
        async with (
            awake_timeout(self._awake, HELLO_S) as opening,
            self._session.post(self._link_url, data=hello) as response,
        ):
            if response.status != 200:
                raise for_status(response.status)(f"{self.url} refused: {await fault_text(response)}")
            self._session.stay_with(response)
            lines = Lines(response.content, encoded_limit(owner.config.max_message_bytes))
            several = await lines.some()
            opening.cancel()
            while several:
                for line in several:
                    goodbye = self._read(decode(line, LinkLine))
                    if goodbye:
                        await self._last_answers()
                        return goodbye
                several = await lines.some()
        return ""

    def _read(self, line: LinkLine) -> str:
        if line.hello is not None:
            self._join(line)
        elif line.status is not None and self.alive:
            self.owner.received(self, line.status)
        return printable(line.goodbye)

    def _join(self, line: LinkLine) -> None:
        hello, expected = line.hello, self._expected
        assert hello is not None
        if self.alive:
            raise errors.TransportError(f"{self.url} said hello twice")
        info = hello.info
        wrong = other_framing(hello.protocol) or other_plane(hello.plane, self.owner.plane)
        if expected is not None and (info.agent_id, info.incarnation) != (expected.agent_id, expected.incarnation):
            there = printable(info.agent_id, 80)
            wrong = wrong or f"agent {there} answers there, not {expected.agent_id} in this incarnation"
        if wrong:
            raise errors.TransportUnavailable(f"{self.url}: {wrong}")
        self.info = info
        self.owner.join(self, info, hello.status)
        if not self.answered.done():
            self.answered.set_result("")

    async def _last_answers(self) -> None:
        try:
            async with awake_timeout(self._awake, ANSWERS_S):
                await self._tasks.answered()
        except TimeoutError:
            log.debug("the agent at %s has left answers without an end", self.url)
