"""The hub's end: its links by agent, those that agents asked for and, on the client plane, those it opens itself."""

from __future__ import annotations

import asyncio
import logging

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from anywire.errors import AgentUnavailable, AnywireError, TransportUnavailable
from anywire.messages import AgentInfo, HubInfo, TaskRequest, ToAgent
from anywire.transport import Hub, HubSink, Plane
from anywire_http.client import new_session
from anywire_http.config import HttpConfig
from anywire_http.faults import for_status, mapped
from anywire_http.link import HELLO_S, AgentLink
from anywire_http.registration import FIRST_PAUSE_S, LONGEST_PAUSE_S
from anywire_http.server import Server
from anywire_http.wire import (
    JSON,
    PROTOCOL,
    AgentHello,
    Fault,
    Registration,
    Welcome,
    decode,
    encode,
    fault_text,
    mismatch,
)

log = logging.getLogger(__name__)


class HttpHub(Hub):
    def __init__(self, config: HttpConfig, info: HubInfo, plane: Plane, sink: HubSink) -> None:
        self.config, self.info, self.plane, self.sink = config, info, plane, sink
        self.closed = False
        self.url = ""
        """Where it listens; empty on the client plane."""
        self._links: dict[str, AgentLink] = {}
        self._all: set[AgentLink] = set()
        self._dialling: list[asyncio.Task[None]] = []
        self._server = Server(config, f"hub {info.hub_id}", {("POST", "/agents/register"): self._register})

    async def open(self) -> None:
        """Raises `TransportUnavailable`."""
        if self.plane == "agent":
            self.url = await self._server.listen(self.config.agent_addresses)
            log.info("hub %s listens on %s for agents", self.info.hub_id, self.url)
        else:
            self._dialling = [asyncio.create_task(self._keep(address)) for address in self.config.client_addresses]

    def send(self, agent_id: str, message: ToAgent) -> None:
        link = self._links.get(agent_id)
        if link is None:
            raise AgentUnavailable(f"no link to agent {agent_id!r} over http", agent_id=agent_id)
        if isinstance(message, TaskRequest):
            link.send(message)
        else:
            link.control(message)

    async def drain(self, agent_id: str) -> None:
        link = self._links.get(agent_id)
        if link is not None:
            await link.drain()

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        for each in self._dialling:
            each.cancel()
        links = list(self._all)
        for link in links:
            link.end("the hub closed")
        await asyncio.gather(*self._dialling, *(link.closed() for link in links), return_exceptions=True)
        await self._server.close()

    # What links say

    def joined(self, link: AgentLink) -> None:
        info = link.info
        assert info is not None
        assert link.status is not None
        old = self._links.get(info.agent_id)
        if old is not None:
            old.end("replaced by a new connection")
        self._links[info.agent_id] = link
        self.sink.agent_joined(info)
        if self._links.get(info.agent_id) is link:
            self.sink.agent_reported(link.status)

    def lost(self, link: AgentLink, reason: str) -> None:
        info = link.info
        if info is not None and self._links.get(info.agent_id) is link:
            del self._links[info.agent_id]
            if not self.closed:
                self.sink.agent_lost(info.agent_id, info.incarnation, reason)

    def _new_link(self, url: str, expected: AgentInfo | None = None) -> AgentLink:
        link = AgentLink(self, url, expected)
        self._all.add(link)
        link.start().add_done_callback(lambda _: self._all.discard(link))
        return link

    # Agents that register

    async def _register(self, request: web.BaseRequest) -> web.StreamResponse:
        status, body = await self.register(await self._server.read(request), request.remote or "unknown")
        return web.Response(status=status, body=body, content_type=JSON)

    async def register(self, data: bytes, peer: str) -> tuple[int, bytes]:
        """Link the agent that ``data``, the body of a registration, tells of; status and body of the answer.

        The answer comes when the link is there, or says why it is not. ``peer`` names the sender in the log.
        """
        try:
            registration = decode(data, Registration)
            URL(registration.url)
        except (msgspec.MsgspecError, ValueError) as error:
            return _refused(400, peer, str(mapped(error, "this is no registration")))
        wrong = mismatch(registration.protocol, registration.plane, self.plane)
        known = self._links.get(registration.info.agent_id)
        if known is not None and known.info is not None and known.info.incarnation > registration.info.incarnation:
            wrong = wrong or f"agent {registration.info.agent_id} is linked already, in a newer incarnation"
        if wrong:
            return _refused(409, peer, wrong)
        if self.closed:
            return 503, encode(Fault("the hub is closing"))
        link = self._new_link(registration.url, registration.info)
        # Shielded: the link goes on even if the agent does not wait for the answer.
        reason = await asyncio.shield(link.answered)
        if reason:
            return _refused(502, peer, f"hub {self.info.hub_id} could not link it: {reason}")
        return 200, encode(Welcome(PROTOCOL, self.info))

    # Agents that are looked for

    async def _keep(self, address: str) -> None:
        pause, told = FIRST_PAUSE_S, ""
        session = new_session(self.config)
        try:
            while True:
                try:
                    await self._follow(session, address)
                    pause, told = FIRST_PAUSE_S, ""
                except AnywireError as error:
                    # Nobody there is normal, and so is saying the same again; anything else is news.
                    absent = isinstance(error, AgentUnavailable)
                    quiet = absent or str(error) == told
                    log.log(logging.DEBUG if quiet else logging.WARNING, "%s", error)
                    told = told if absent else str(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        finally:
            await session.close()

    async def _follow(self, session: aiohttp.ClientSession, address: str) -> None:
        """Link who is there, unless that is done already under another address, and wait for the link's end."""
        timeout = aiohttp.ClientTimeout(total=HELLO_S)
        try:
            async with session.get(URL(f"{address}/agent"), timeout=timeout, allow_redirects=False) as response:
                if response.status != 200:
                    raise for_status(response.status)(f"{address} refused: {await fault_text(response)}")
                there = decode(await response.read(), AgentHello).info
        except (aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
            raise mapped(error, f"looking for an agent at {address}") from error
        link = self._links.get(there.agent_id)
        if link is None or link.info is None or link.info.incarnation != there.incarnation:
            link = self._new_link(address)
            reason = await link.answered
            if reason:
                raise TransportUnavailable(reason)
        await link.ended.wait()


def _refused(status: int, peer: str, reason: str) -> tuple[int, bytes]:
    log.warning("an agent at %s is not registered: %s", peer, reason)
    return status, encode(Fault(reason))
