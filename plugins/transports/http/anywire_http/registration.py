"""How an agent makes itself known to orchestrators: it registers, and again whenever the link is lost."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import aiohttp
import msgspec
from yarl import URL

from anywire.errors import AgentUnavailable, AnywireError
from anywire_http.client import new_session
from anywire_http.faults import for_status, mapped
from anywire_http.wire import PROTOCOL, Registration, Welcome, decode, encode, fault_text

if TYPE_CHECKING:
    from anywire_http.port import HttpPort

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
"""Pauses between attempts to reach an absent orchestrator; each is twice the one before."""

ANSWER_S = 15.0
"""How long an orchestrator may take to reach the agent and answer."""


class Registrar:
    """Keeps an agent registered at every address, be there an orchestrator now or not."""

    def __init__(self, port: HttpPort) -> None:
        self._port = port
        self._keeping: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    def start(self, addresses: list[str]) -> None:
        self._session = new_session(self._port.config)
        self._keeping = [asyncio.create_task(self._keep(self._session, address)) for address in addresses]

    async def close(self) -> None:
        for each in self._keeping:
            each.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _keep(self, session: aiohttp.ClientSession, address: str) -> None:
        pause, told = FIRST_PAUSE_S, ""
        while True:
            try:
                hub_id = await self._register(session, address)
            except AnywireError as error:
                # Nobody there is normal, and so is saying the same again; anything else is news.
                absent = isinstance(error, AgentUnavailable)
                quiet = absent or str(error) == told
                log.log(logging.DEBUG if quiet else logging.WARNING, "%s", error)
                told = told if absent else str(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
                continue
            pause, told = FIRST_PAUSE_S, ""
            while (link := self._port.links.get(hub_id)) is not None:
                await link.ended.wait()
            await asyncio.sleep(pause)

    async def _register(self, session: aiohttp.ClientSession, address: str) -> str:
        """The id of the hub that is linked now. Raises what stands in the way."""
        port = self._port
        body = encode(Registration(PROTOCOL, port.plane, port.url, port.info))
        doing = f"registering agent {port.info.agent_id} at {address}"
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        try:
            async with session.post(
                URL(f"{address}/agents/register"), data=body, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise for_status(response.status)(f"{doing}: {await fault_text(response)}")
                return decode(await response.read(), Welcome).hub.hub_id
        except (aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
            raise mapped(error, doing) from error
