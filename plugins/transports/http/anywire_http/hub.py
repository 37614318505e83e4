"""The hub's end: its links by agent, those that agents asked for and, on the client plane, those it opens itself."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from itertools import filterfalse

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from anywire.clock import SystemClock
from anywire.errors import AgentUnavailable, AnywireError, TransportUnavailable
from anywire.lease import AwakeTime
from anywire.messages import AgentInfo, AgentStatus, FromAgent, HubInfo, ToAgent
from anywire.transport import Hub, HubSink, Plane
from anywire.transport_tools import (
    Backoff,
    EndCertificate,
    Guard,
    HubLinks,
    LinkProofs,
    LinkRefused,
    OnceLog,
    Unlinked,
    check_protocol,
    keep_dialling,
    listening_addresses,
    takes_any_port,
    with_protocol,
)
from anywire.transport_tools.timeouts import awake_timeout
from anywire_http.client import LinkSession
from anywire_http.config import HttpConfig, check_address
from anywire_http.faults import for_status, mapped, status_of
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
    decode_hello,
    encode,
    fault_text,
    other_framing,
    other_plane,
    whole_body,
)

log = logging.getLogger(__name__)


MOST_OPENING = 1024
"""Links that may be being opened at a time because agents have registered."""


class HttpHub(Hub):
    def __init__(
        self,
        config: HttpConfig,
        info: HubInfo,
        plane: Plane,
        sink: HubSink,
        proofs: LinkProofs,
        certificate: EndCertificate | None,
    ) -> None:
        self.config, self.info, self.plane, self.sink = config, with_protocol(info), plane, sink
        self.proofs, self.certificate = proofs, certificate
        self.guard = Guard()
        self.url = ""
        """Where it listens; empty on the client plane."""
        self._links: HubLinks[AgentLink] = HubLinks(sink, self.guard, self.info, proofs)
        self._all: set[AgentLink] = set()
        self._dialling: list[asyncio.Task[None]] = []
        self._awake = AwakeTime(SystemClock())
        self._once = OnceLog(log)
        self.unlinked = Unlinked()
        # Without TLS: who registers is looked for where it says that it is, and proves there who it is.
        routes = {("POST", "/agents/register"): self._register}
        self._server = Server(config, f"hub {info.hub_id}", routes, protected=proofs.asks)

    async def open(self) -> None:
        """Raises `TransportUnavailable`."""
        if self.plane == "agent":
            self.url = await self._server.listen(listening_addresses(self.config, "agent"))
            log.info("hub %s listens on %s for agents", self.info.hub_id, self.url)
            return
        for address in filterfalse(takes_any_port, self.config.client_addresses):
            attempt = partial(self._attempt, address, OnceLog(log))
            keeping = keep_dialling(attempt, address, backoff=Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S))
            self._dialling.append(asyncio.create_task(keeping))

    def send(self, agent_id: str, message: ToAgent) -> None:
        self._links.get(agent_id).send(message)

    async def drain(self, agent_id: str) -> None:
        link = self._links.find(agent_id)
        if link is not None:
            await link.drain()

    async def close(self) -> None:
        if self.guard.closed:
            return
        self.guard.close()
        for each in self._dialling:
            each.cancel()
        closing = [link.close("the hub closed") for link in self._all]
        for outcome in await asyncio.gather(*self._dialling, *closing, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.error("closing hub %s: %s", self.info.hub_id, outcome, exc_info=outcome)
        await self._server.close()

    # What links say

    def join(self, link: AgentLink, info: AgentInfo, status: AgentStatus) -> None:
        old = self._links.find(info.agent_id)
        self._links.check_hello(info, key=link.key)
        link.alive = True
        self._links.join(link, info, key=link.key)
        if old is not None:
            old.end("replaced by a new connection")
        self.received(link, status)

    def received(self, link: AgentLink, message: AgentStatus | FromAgent) -> None:
        if self._links.joined(link):
            self._links.received(link, message)

    def failed(self, link: AgentLink, task_id: str, attempt: int, error: AnywireError) -> None:
        info = link.info
        if info is not None and self._links.joined(link):
            self.guard.call(self.sink.send_failed, info.agent_id, info.incarnation, task_id, attempt, error)

    def lost(self, link: AgentLink, reason: str) -> None:
        self._links.ended(link, reason)

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
        """Link the agent that ``data``, the body of a registration, describes; status and body of the answer.

        The answer comes when the link is there, or says why it is not. ``peer`` names the sender in the log.
        """
        try:
            registration = decode_hello(data, Registration, self.info)
            if wrong := other_framing(registration.protocol):
                return self._refused(409, peer, wrong)
            info = registration.info
            self._links.check_hello(info, key=None)
            url = check_address(registration.url)
        except LinkRefused as error:
            return self._refused(status_of(error), peer, str(error), error.for_peer)
        except (msgspec.MsgspecError, ValueError) as error:
            return self._refused(400, peer, str(mapped(error, "this is no registration")))
        if wrong := other_plane(registration.plane, self.plane):
            return self._refused(409, peer, wrong)
        if self.guard.closed:
            return 503, encode(Fault("the hub is closing"))
        if sum(not link.answered.done() for link in self._all) >= MOST_OPENING:
            return 503, encode(Fault(f"{MOST_OPENING} agents are being linked: register again later"))
        link = self._new_link(url, info)
        # Shielded: the link goes on even if the agent does not wait for the answer.
        reason = await asyncio.shield(link.answered)
        if reason:
            # What is there, if anything, is for this hub's log: whoever registers could ask so for any address.
            mine = f"hub {self.info.hub_id} could not link it"
            told = f"{mine} at {url}: this agent cannot be reached there. The hub's log says why"
            return self._refused(502, peer, f"{mine} at {url}: {reason}", told)
        return 200, encode(Welcome(PROTOCOL, self.info))

    def _refused(self, status: int, peer: str, reason: str, for_peer: str = "") -> tuple[int, bytes]:
        self._once.warn((peer, reason), "an agent at %s is not registered: %s", peer, reason)
        self.unlinked.note(peer, f"an agent at {peer} is not registered: {reason}")
        return status, encode(Fault(for_peer or reason))

    # Agents that are looked for

    async def _attempt(self, address: str, once: OnceLog) -> bool:
        """Link who is there, unless that is done already under another address, and wait for the link's end."""
        try:
            link = await self._look(address)
        except AgentUnavailable as error:  # nobody there is normal
            log.debug("%s", error)
            self.unlinked.linked(address)
            return False
        except AnywireError as error:
            once.warn(str(error), "%s", error)
            self.unlinked.note(address, str(error))
            return False
        self.unlinked.linked(address)
        await link.ended.wait()
        return True

    async def _look(self, address: str) -> AgentLink:
        """The link to the agent at ``address``. Raises what stands in the way."""
        session = LinkSession(self.config, self.certificate, address)
        try:
            async with (
                awake_timeout(self._awake, HELLO_S),
                session.get(URL(f"{session.url}/agent")) as response,
            ):
                if response.status != 200:
                    raise for_status(response.status)(f"{address} refused: {await fault_text(response)}")
                there = decode_hello(await whole_body(response), AgentHello, self.info).info
        except (aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
            raise mapped(error, f"looking for an agent at {address}") from error
        finally:
            await session.close()
        try:
            if not there.protocol:  # it would take this hub; an agent that names a version refuses this hub itself
                check_protocol(there, self.info)
            self._links.check(there.agent_id, there.incarnation)
        except LinkRefused as error:
            raise TransportUnavailable(f"{address} is not linked to hub {self.info.hub_id}: {error}") from error
        link = self._links.find(there.agent_id)
        if link is not None and link.info is not None and link.info.incarnation == there.incarnation:
            return link
        link = self._new_link(address)
        reason = await link.answered
        if reason:
            raise TransportUnavailable(reason)
        return link
