"""One hub at the agent: what is to be told to it, its tasks in the order it sent them, and its commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from anywire.messages import AgentStatus, Command, HubInfo, TaskRequest
from anywire_http.exchange import Answer, Exchange, HubRoom
from anywire_http.wire import LinkLine, encode

BEGIN_S = 0.02
"""Seconds after which the head of an answer is sent at the latest, so that the hub knows which tasks have arrived."""


class PortLink:
    """A hub linked to this agent. ``received`` is given each task with its reply, in the order sent, and each command
    with its reply as it comes."""

    def __init__(
        self, hub: HubInfo, buffer_bytes: int, received: Callable[[PortLink, TaskRequest | Command, Answer], None]
    ) -> None:
        self.hub = hub
        self.room = HubRoom(buffer_bytes, f"hub {hub.hub_id}")
        self.ended = asyncio.Event()
        self.gone = asyncio.Event()
        """Its request is answered to the end."""
        self._received = received
        self._next = 0
        self._early: dict[int, tuple[TaskRequest, Exchange] | None] = {}
        self._exchanges: set[Exchange] = set()
        self._beginning: asyncio.TimerHandle | None = None
        self._settled = asyncio.Event()
        self._settled.set()
        self._status: AgentStatus | None = None
        self._goodbye = ""
        self._wake: asyncio.Future[None] | None = None

    def expects(self, order: int) -> bool:
        """Whether the task of this place in the order has not come yet."""
        return order >= self._next and order not in self._early

    def arrived(self, order: int, task: tuple[TaskRequest, Exchange] | None) -> None:
        """Pass tasks on in the order sent; None is one that cannot be: the next may go."""
        self._early[order] = task
        while self._next in self._early and not self.ended.is_set():
            item = self._early.pop(self._next)
            self._next += 1
            if item is not None:
                self._received(self, item[0], Answer(item[1]))

    def commanded(self, command: Command, exchange: Exchange) -> None:
        """Pass a command on."""
        self._received(self, command, Answer(exchange))

    async def answer(self, exchange: Exchange, request: web.BaseRequest) -> web.StreamResponse:
        self._exchanges.add(exchange)
        self._settled.clear()
        if self._beginning is None:
            self._beginning = asyncio.get_running_loop().call_later(BEGIN_S, self._begin)
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

    def end(self, goodbye: str = "") -> None:
        self._goodbye = goodbye
        self.ended.set()
        self._early.clear()
        for exchange in self._exchanges:
            exchange.end()
        if self._beginning is not None:
            self._beginning.cancel()
        self.room.room.close()
        self._wake_up()

    async def next_line(self) -> bytes:
        """What is to be told next; empty at the end."""
        while self._status is None and not self.ended.is_set():
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        if self.ended.is_set():
            goodbye, self._goodbye = self._goodbye, ""
            return encode(LinkLine(goodbye=goodbye)) + b"\n" if goodbye else b""
        line, self._status = encode(LinkLine(status=self._status)) + b"\n", None
        return line

    def _begin(self) -> None:
        self._beginning = None
        for exchange in self._exchanges:
            exchange.begin()

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
