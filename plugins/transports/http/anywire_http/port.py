"""The agent's end: a server that hubs open links to, and send their tasks to, one POST each."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine, Iterable
from typing import Any

from aiohttp import web

from anywire.errors import TransportUnavailable
from anywire.messages import AgentInfo, AgentStatus, HubInfo, TaskRequest
from anywire.transport import AgentPort, AgentSink, Plane
from anywire_http.config import HttpConfig, is_wildcard
from anywire_http.exchange import Exchange, TaskReply
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
    decode,
    encode,
    fault,
    mismatch,
)

log = logging.getLogger(__name__)

LINGER_S = 1.0
"""How long what was accepted may take to leave when the port closes."""


class PortLink:
    """A hub linked to this agent: what is to be told to it, and its tasks in the order it sent them."""

    def __init__(self, hub: HubInfo, sink: AgentSink) -> None:
        self.hub = hub
        self.ended = asyncio.Event()
        self.gone = asyncio.Event()
        """Its request is answered to the end."""
        self._sink = sink
        self._next = 0
        self._early: dict[int, tuple[TaskRequest, Exchange] | None] = {}
        self._exchanges: set[Exchange] = set()
        self._settled = asyncio.Event()
        self._settled.set()
        self._status: AgentStatus | None = None
        self._farewell = ""
        self._wake: asyncio.Future[None] | None = None

    def arrived(self, order: int, task: tuple[TaskRequest, Exchange] | None) -> None:
        """Pass tasks on in the order sent; None is one that cannot be: the next may go."""
        self._early[order] = task
        while self._next in self._early and not self.ended.is_set():
            item = self._early.pop(self._next)
            self._next += 1
            if item is not None:
                self._sink.task_received(item[0], TaskReply(item[1]))

    async def answer(self, exchange: Exchange, request: web.BaseRequest) -> web.StreamResponse:
        self._exchanges.add(exchange)
        self._settled.clear()
        try:
            return await exchange.answer(request)
        finally:
            self._exchanges.discard(exchange)
            if not self._exchanges:
                self._settled.set()

    async def settle(self) -> None:
        """End all answers and wait until they are written."""
        for exchange in self._exchanges:
            exchange.end()
        await self._settled.wait()

    def report(self, status: AgentStatus) -> None:
        """The newest replaces one the hub has not taken yet."""
        self._status = status
        self._wake_up()

    def end(self, farewell: str = "") -> None:
        self._farewell = farewell
        self.ended.set()
        self._early.clear()
        for exchange in self._exchanges:
            exchange.end()
        self._wake_up()

    async def next_line(self) -> bytes:
        """What is to be told next; empty at the end."""
        while self._status is None and not self.ended.is_set():
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        if self.ended.is_set():
            farewell, self._farewell = self._farewell, ""
            return encode(LinkLine(farewell=farewell)) + b"\n" if farewell else b""
        line, self._status = encode(LinkLine(status=self._status)) + b"\n", None
        return line

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class HttpPort(AgentPort):
    def __init__(self, config: HttpConfig, info: AgentInfo, plane: Plane, sink: AgentSink) -> None:
        self.config, self.info, self.plane, self.sink = config, info, plane, sink
        self.closed = False
        self.url = ""
        self.links: dict[str, PortLink] = {}
        self._by_id: dict[str, PortLink] = {}
        self._status: AgentStatus | None = None
        self._registrar: Registrar | None = None
        routes = {
            ("GET", "/agent"): self._introduce,
            ("POST", "/link"): self._link,
            ("POST", "/tasks"): self._task,
            ("POST", "/control"): self._control,
        }
        self._server = Server(config, f"agent {info.agent_id}", routes)

    async def open(self) -> None:
        """Raises `TransportUnavailable`."""
        config = self.config
        if self.plane == "client":
            self.url = await self._server.listen(config.client_addresses)
        else:
            bound = await self._server.listen([config.agent_listen])
            self.url = config.agent_url or bound
            if is_wildcard(self.url):
                await self._server.close()
                raise TransportUnavailable(
                    f"orchestrators cannot connect to {bound}: set agent_url to how they reach this machine"
                )
            self._registrar = Registrar(self)
        log.info("agent %s listens on %s for the %s plane", self.info.agent_id, self.url, self.plane)

    def report(self, status: AgentStatus) -> None:
        if self.closed:
            return
        first, self._status = self._status is None, status
        for link in self.links.values():
            link.report(status)
        if first and self._registrar is not None:
            self._registrar.start(self.config.agent_addresses)

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._registrar is not None:
            await self._registrar.close()
        links = list(self.links.values())
        # First the answers, then the farewells: a hub that reads one waits for the answers still on their way.
        await _bounded(link.settle() for link in links)
        for link in links:
            link.end("the agent closed")
        await _bounded(link.gone.wait() for link in links)
        await self._server.close()

    # What hubs ask

    async def _introduce(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._status is None:
            return fault(503, f"agent {self.info.agent_id} is not ready to be linked")
        hello = AgentHello(PROTOCOL, self.plane, self.info, self._status)
        return web.Response(body=encode(hello), content_type=JSON)

    async def _link(self, request: web.BaseRequest) -> web.StreamResponse:
        hello = await self._server.body(request, HubHello)
        wrong = mismatch(hello.protocol, hello.plane, self.plane)
        old = self.links.get(hello.info.hub_id)
        if old is not None and old.hub.incarnation > hello.info.incarnation:
            wrong = wrong or f"hub {hello.info.hub_id} is linked already, in a newer incarnation"
        if wrong:
            log.warning("hub %s (%s) is not linked: %s", hello.info.hub_id, request.remote, wrong)
            return fault(409, wrong)
        link_id = request.headers.get(LINK_HEADER, "")
        if self._status is None or self.closed or not link_id:
            return fault(503, f"agent {self.info.agent_id} is not ready to be linked")
        if old is not None:
            self._lose(old, "replaced by a new connection")
        _notice_silence(request, hello.info.lease_ms)
        link = PortLink(hello.info, self.sink)
        self.links[hello.info.hub_id] = self._by_id[link_id] = link
        self.sink.hub_joined(hello.info.hub_id, hello.info.incarnation)
        first = LinkLine(hello=AgentHello(PROTOCOL, self.plane, self.info, self._status))
        response = web.StreamResponse(headers={"Content-Type": JSON_LINES})
        try:
            await response.prepare(request)
            data = encode(first) + b"\n"
            while data:
                await response.write(data)
                data = await link.next_line()
            await response.write_eof()
        except OSError:
            log.debug("hub %s has gone", hello.info.hub_id)
        finally:
            link.gone.set()
            self._by_id.pop(link_id, None)
            self._lose(link, "its connection ended")
        return response

    async def _task(self, request: web.BaseRequest) -> web.StreamResponse:
        link = self._by_id.get(request.headers.get(LINK_HEADER, ""))
        order = request.headers.get(ORDER_HEADER, "")
        if link is None or not order.isdecimal():
            return fault(410, "a task must name an open link and its order")
        arrived: tuple[TaskRequest, Exchange] | None = None
        try:
            task = await self._server.body(request, TaskRequest)
            arrived = task, Exchange(self.config.max_message_bytes)
        finally:
            link.arrived(int(order), arrived)
        if link.ended.is_set():
            return fault(410, "the link has ended")
        return await link.answer(arrived[1], request)

    async def _control(self, request: web.BaseRequest) -> web.StreamResponse:
        link = self._by_id.get(request.headers.get(LINK_HEADER, ""))
        lines = [decode(line, ControlLine) for line in (await self._server.read(request)).splitlines()]
        if link is None or link.ended.is_set():
            return fault(410, "control must name an open link")
        for line in lines:
            if line.cancel is not None:
                self.sink.cancel_received(line.cancel)
            elif line.credit is not None:
                self.sink.credit_received(line.credit)
            elif line.drain is not None:
                self.sink.drain_requested(line.drain.reason)
        return web.Response()

    # Inside

    def _lose(self, link: PortLink, reason: str) -> None:
        if self.links.get(link.hub.hub_id) is link:
            del self.links[link.hub.hub_id]
            link.end()
            if not self.closed:
                self.sink.hub_lost(link.hub.hub_id, link.hub.incarnation, reason)


async def _bounded(waits: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Wait for all, but not longer than `LINGER_S`."""
    tasks = [asyncio.ensure_future(each) for each in waits]
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=LINGER_S)
        for task in late:
            task.cancel()


def _notice_silence(request: web.BaseRequest, lease_ms: int) -> None:
    """Let the kernel give the connection up when the hub's machine acknowledges nothing for its lease."""
    raw = request.get_extra_info("socket")
    if raw is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, lease_ms)
