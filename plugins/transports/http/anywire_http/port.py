"""The agent's end: a server that hubs open links to, and send their tasks and commands to, one POST each."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
from collections.abc import Coroutine, Iterable
from typing import Any

import msgspec
from aiohttp import web
from yarl import URL

from anywire.errors import AnywireError, TransportUnavailable
from anywire.messages import AgentInfo, AgentStatus, Command, TaskRequest
from anywire.printable import printable
from anywire.transport import AgentPort, AgentSink, Plane
from anywire.transport_tools import (
    CLOSE_TIMEOUT,
    AgentLinks,
    EndCertificate,
    Guard,
    LinkProofs,
    LinkRefused,
    OnceLog,
    Unlinked,
    listening_addresses,
    own_address,
    takes_any_port,
    with_protocol,
)
from anywire_http.config import HttpConfig, is_local, is_wildcard
from anywire_http.exchange import Answer, Exchange
from anywire_http.faults import status_of
from anywire_http.portlink import PortLink
from anywire_http.registration import Registrar
from anywire_http.server import Server
from anywire_http.wire import (
    JSON,
    JSON_LINES,
    LINK_HEADER,
    ORDER_HEADER,
    PROTOCOL,
    AgentHello,
    ControlLine,
    HubHello,
    LinkLine,
    check_size,
    decode,
    decode_hello,
    encode,
    fault,
    key_of,
    other_framing,
    other_plane,
)

log = logging.getLogger(__name__)

ORDER_DIGITS = 18
"""Most digits that a task's place in the order may have."""


class HttpPort(AgentPort):
    def __init__(
        self,
        config: HttpConfig,
        info: AgentInfo,
        plane: Plane,
        sink: AgentSink,
        proofs: LinkProofs,
        certificate: EndCertificate | None,
    ) -> None:
        self.config, self.info, self.plane = config, with_protocol(info), plane
        self._proofs, self._certificate = proofs, certificate
        self.guard = Guard()
        self.links: AgentLinks[PortLink] = AgentLinks(sink, self.guard, self.info, proofs)
        self.url = ""
        self._by_id: dict[str, PortLink] = {}
        """Links by what their requests name in `LINK_HEADER`."""
        self._status: AgentStatus | None = None
        self._registrar: Registrar | None = None
        self._once = OnceLog(log)
        self.unlinked = Unlinked()
        self._moving: asyncio.Task[None] | None = None
        self._routes = {
            ("GET", "/agent"): self._introduce,
            ("POST", "/link"): self._link,
            ("POST", "/tasks"): self._task,
            ("POST", "/commands"): self._command,
            ("POST", "/control"): self._control,
        }
        self._server = self._new_server()

    async def open(self) -> None:
        """Raises `TransportUnavailable`."""
        config = self.config
        if self.plane == "client":
            self.url = await self._server.listen(listening_addresses(config, "client"), "client")
        else:
            bound = await self._server.listen([_seen_address(config) or config.agent_listen])
            self.url = config.agent_url or bound
            if is_wildcard(self.url):
                await self._server.close()
                raise TransportUnavailable(
                    f"orchestrators cannot connect to {bound}: set agent_url to how they reach this machine"
                )
            self._registrar = Registrar(self)
        log.info("agent %s listens on %s for the %s plane", self.info.agent_id, self.url, self.plane)

    async def follow_address(self) -> None:
        """Listen on the address that orchestrators see now, if it is another than at the opening: this machine may have
        been given a new one. An address that the configuration names stays. Raises `TransportUnavailable`."""
        seen = _seen_address(self.config)
        if self._moving is None and seen and not self._by_id and URL(seen).host != URL(self.url).host:
            self._moving = asyncio.ensure_future(self._move(seen))
        if self._moving is not None:
            await asyncio.shield(self._moving)

    async def _move(self, seen: str) -> None:
        try:
            former, self._server = self._server, self._new_server()
            await former.close()
            before, self.url = self.url, await self._server.listen([seen])
            log.warning(
                "the address of this machine has changed: agent %s listens on %s and not on %s any more",
                self.info.agent_id, self.url, before,
            )  # fmt: skip
        finally:
            self._moving = None

    def _new_server(self) -> Server:
        name, certificate = f"agent {self.info.agent_id}", self._certificate
        return Server(self.config, name, self._routes, certificate=certificate, protected=self._proofs.asks)

    def report(self, status: AgentStatus) -> None:
        if self.guard.closed:
            return
        try:
            encode(status)
        except AnywireError as error:
            self._once.warn(str(error), "a status of agent %s is left out: %s", self.info.agent_id, error)
            return
        first, self._status = self._status is None, status
        for link in self._by_id.values():
            link.report(status)
        if first and self._registrar is not None:
            self._registrar.start([each for each in self.config.agent_addresses if not takes_any_port(each)])

    async def close(self) -> None:
        if self.guard.closed:
            return
        self.guard.close()
        if self._registrar is not None:
            await self._registrar.close()
        links = list(self._by_id.values())
        # First the answers, then the goodbyes: a hub that reads one waits for the answers still on their way.
        await _bounded(link.settle() for link in links)
        for link in links:
            link.end("the agent closed")
        await _bounded(link.gone.wait() for link in links)
        await self._server.close()

    # What hubs ask

    async def _introduce(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._status is None:
            return fault(503, f"agent {self.info.agent_id} is not ready to be linked")
        # Its proof is for those that it is linked to.
        hello = AgentHello(PROTOCOL, self.plane, msgspec.structs.replace(self.info, proof=""), self._status)
        return web.Response(body=encode(hello), content_type=JSON)

    async def _link(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            hello = decode_hello(await self._server.read(request), HubHello, self.info)
            hub = hello.info
            if wrong := other_framing(hello.protocol):
                return self._refused(409, request, hub.hub_id, wrong)
            key = _certificate_of(request)
            self.links.check_hello(hub, key=key)
        except LinkRefused as error:
            self._log_refusal(request, str(error))
            return fault(status_of(error), error.for_peer)
        if wrong := other_plane(hello.plane, self.plane):
            return self._refused(409, request, hub.hub_id, wrong)
        link_id = request.headers.get(LINK_HEADER, "")
        if self._status is None or self.guard.closed or not link_id or link_id in self._by_id:
            return fault(503, f"agent {self.info.agent_id} is not ready to be linked")
        most = self._server.connections.most // 2  # the others are for the tasks of those that are linked
        if len(self._by_id) >= most:
            self._log_refusal(request, f"{most} hubs are linked already")
            return fault(503, f"{most} hubs are linked to agent {self.info.agent_id} already")
        _limit_unacknowledged(request, hub.lease_ms)
        link = PortLink(hub, self.config.buffer_bytes, self._received)
        old = self.links.join(link, hub, key=key)
        if old is not None:
            old.end()
        self._by_id[link_id] = link
        info = self._proofs.shown(self.info, key)
        first = LinkLine(hello=AgentHello(PROTOCOL, self.plane, info, self._status))
        response = web.StreamResponse(headers={"Content-Type": JSON_LINES})
        try:
            await response.prepare(request)
            data = encode(first) + b"\n"
            while data:
                await response.write(data)
                data = await link.next_line()
            await response.write_eof()
        except OSError:
            log.debug("hub %s has gone", hub.hub_id)
        finally:
            link.gone.set()
            del self._by_id[link_id]
            link.end()
            self.links.ended(link, "its connection ended")
        return response

    async def _task(self, request: web.BaseRequest) -> web.StreamResponse:
        link = self._by_id.get(request.headers.get(LINK_HEADER, ""))
        place = request.headers.get(ORDER_HEADER, "")
        if link is None or not (place.isascii() and place.isdecimal() and len(place) <= ORDER_DIGITS):
            return fault(410, "a task must name an open link and its order")
        order = int(place)
        if not link.expects(order):
            return fault(400, f"a task with order {order} has come already")
        arrived: tuple[TaskRequest, Exchange] | None = None
        try:
            task = await self._server.task(request)
            check_size(task, self.config.max_message_bytes)
            arrived = task, Exchange(key_of(task), self.config.max_message_bytes, link.room)
        finally:
            link.arrived(order, arrived)
        if link.ended.is_set():
            return fault(410, "the link has ended")
        return await link.answer(arrived[1], request)

    async def _command(self, request: web.BaseRequest) -> web.StreamResponse:
        link = self._by_id.get(request.headers.get(LINK_HEADER, ""))
        if link is None:
            return fault(410, "a command must name an open link")
        command = await self._server.body(request, Command)
        check_size(command, self.config.max_message_bytes)
        if link.ended.is_set():
            return fault(410, "the link has ended")
        exchange = Exchange(key_of(command), self.config.max_message_bytes, link.room)
        link.commanded(command, exchange)
        return await link.answer(exchange, request)

    async def _control(self, request: web.BaseRequest) -> web.StreamResponse:
        link = self._by_id.get(request.headers.get(LINK_HEADER, ""))
        if link is None:
            return fault(410, "control must name an open link")
        lines = [decode(line, ControlLine) for line in (await self._server.read(request)).splitlines()]
        if link.ended.is_set() or not self.links.joined(link):
            return fault(410, "control must name an open link")
        for line in lines:
            message = line.cancel or line.credit
            if message is not None:
                self.links.received(link, message, _NO_REPLY)
        return web.Response()

    # Inside

    def _received(self, link: PortLink, message: TaskRequest | Command, reply: Answer) -> None:
        if self.links.joined(link):
            self.links.received(link, message, reply)

    def _refused(self, status: int, request: web.BaseRequest, hub_id: str, reason: str) -> web.Response:
        self._log_refusal(request, f"hub {printable(hub_id, 80)}: {reason}")
        return fault(status, reason)

    def _log_refusal(self, request: web.BaseRequest, reason: str) -> None:
        self._once.warn(reason, "a hub at %s is not linked to agent %s: %s", request.remote, self.info.agent_id, reason)
        self.unlinked.note(str(request.remote), f"a hub at {request.remote} is not linked: {reason}")


def _seen_address(config: HttpConfig) -> str:
    """Where to listen for tasks of orchestrators on other machines: they connect to this one, so that naming them opens
    it, on the address that they see. Empty when none is on another machine, when this one is in no network now, or when
    the configuration names an address."""
    away = [each for each in config.agent_addresses if not is_local(each)]
    if "agent_listen" in config.model_fields_set or config.agent_url or not away:
        return ""
    seen = own_address(URL(away[0]).host or "")
    return str(URL(config.agent_listen).with_host(seen)) if seen else ""


class _NoReply:
    """For messages that are not answered."""

    def send(self, message: object) -> None:
        """Sends nothing."""

    async def drain(self) -> None:
        """Returns at once."""


_NO_REPLY = _NoReply()


async def _bounded(waits: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Wait for all, but not longer than `CLOSE_TIMEOUT`."""
    tasks = [asyncio.ensure_future(each) for each in waits]
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT)
        for task in late:
            task.cancel()


def _certificate_of(request: web.BaseRequest) -> bytes:
    """The SHA-256 of the certificate that the other end has shown; empty without TLS."""
    shown = request.get_extra_info("ssl_object")
    return hashlib.sha256(shown.getpeercert(binary_form=True)).digest() if shown is not None else b""


def _limit_unacknowledged(request: web.BaseRequest, lease_ms: int) -> None:
    """Let the kernel give the connection up when the hub's machine acknowledges nothing for its lease. A hub that is
    merely paused is not affected: its machine acknowledges."""
    raw = request.get_extra_info("socket")
    if raw is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, lease_ms)
