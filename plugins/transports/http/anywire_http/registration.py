"""How an agent makes itself known to orchestrators: it registers, and again whenever the link is lost."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Protocol

import aiohttp
import msgspec
from yarl import URL

from anywire.clock import SystemClock
from anywire.errors import AgentUnavailable, AnywireError
from anywire.lease import AwakeTime
from anywire.messages import AgentInfo
from anywire.transport import Plane
from anywire.transport_tools import AgentLinks, Backoff, OnceLog, Unlinked, keep_dialling
from anywire.transport_tools.timeouts import awake_timeout
from anywire_http.client import new_session
from anywire_http.config import HttpConfig
from anywire_http.faults import for_status, mapped
from anywire_http.portlink import PortLink
from anywire_http.wire import PROTOCOL, Registration, Welcome, decode, encode, fault_text, whole_body

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
"""Seconds: the longest first pause between attempts to reach an absent orchestrator, and the longest of all."""

ANSWER_S = 15.0
"""Seconds that an orchestrator may take to reach the agent and answer."""


_ONCE = {"Connection": "close"}
"""A connection that is kept would be one from an address that this machine may no longer have."""


class RegisteredPort(Protocol):
    """The agent's end, as its registrar sees it."""

    config: HttpConfig
    info: AgentInfo
    plane: Plane
    url: str
    links: AgentLinks[PortLink]
    unlinked: Unlinked

    async def follow_address(self) -> None: ...


class Registrar:
    """Keeps an agent registered at every address, be there an orchestrator now or not."""

    def __init__(self, port: RegisteredPort) -> None:
        self._port = port
        self._awake = AwakeTime(SystemClock())
        self._keeping: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    def start(self, addresses: list[str]) -> None:
        self._session = new_session(self._port.config)
        for address in addresses:
            attempt = partial(self._attempt, self._session, address, OnceLog(log))
            keeping = keep_dialling(attempt, address, backoff=Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S))
            self._keeping.append(asyncio.create_task(keeping))

    async def close(self) -> None:
        for each in self._keeping:
            each.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _attempt(self, session: aiohttp.ClientSession, address: str, once: OnceLog) -> bool:
        """Register, and wait for the end of the link; whether there was one."""
        try:
            await self._port.follow_address()
            hub_id = await self._register(session, address)
        except AgentUnavailable as error:  # nobody there is normal
            log.debug("%s", error)
            self._port.unlinked.linked(address)
            return False
        except AnywireError as error:
            once.warn(str(error), "%s", error)
            self._port.unlinked.note(address, str(error))
            return False
        self._port.unlinked.linked(address)
        while (link := self._port.links.find(hub_id)) is not None:
            await link.ended.wait()
        return True

    async def _register(self, session: aiohttp.ClientSession, address: str) -> str:
        """The id of the hub that is linked now. Raises what stands in the way."""
        port = self._port
        body = encode(Registration(PROTOCOL, port.plane, port.url, port.info))
        doing = f"registering agent {port.info.agent_id} at {address}"
        url = URL(f"{address}/agents/register")
        try:
            async with (
                awake_timeout(self._awake, ANSWER_S),
                session.post(url, data=body, headers=_ONCE, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise for_status(response.status)(f"{doing}: {await fault_text(response)}")
                return decode(await whole_body(response), Welcome).hub.hub_id
        except (aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
            raise mapped(error, doing) from error
