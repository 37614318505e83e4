"""HTTP makes a connection for each task: all of a link lead to the end that has proved who it is on the first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from anywire.testing.kit.answers import echo
from anywire.testing.kit.identities import AGENT, HUB, Admitting
from anywire.testing.log_recorder import LogRecorder
from anywire.testing.recorder import Recorder
from anywire.testing.rig import Rig, request
from anywire.transport_tools import new_end_certificate
from anywire_http.client import LinkSession
from reserved import free_ports


class Between:
    """Leads the first connection to ``port``, and each later one to a server of its own, which shows what it reads."""

    def __init__(self) -> None:
        self.heard = Recorder()
        self.port = self.first_to = 0
        self._own = 0
        self._piping: set[asyncio.Task[None]] = set()

    async def start(self, stack: AsyncExitStack) -> None:
        own = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=new_end_certificate().server_context())
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self._own, self.port = (each.sockets[0].getsockname()[1] for each in (own, server))
        for each in (own, server):
            stack.callback(each.close)
        stack.push_async_callback(self._end)

    async def _end(self) -> None:
        for each in self._piping:
            each.cancel()
        await asyncio.gather(*self._piping, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.add("heard", await reader.read(4096))
        writer.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._piping.add(task)
        port, self.first_to = self.first_to or self._own, 0
        self.heard.add("connected", port == self._own)
        there, to_there = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pipe(reader, to_there))
                both.create_task(_pipe(there, writer))
        finally:
            writer.close()
            to_there.close()
            self._piping.discard(task)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()
    except OSError:
        writer.close()


@pytest.fixture
async def between() -> AsyncIterator[Between]:
    async with AsyncExitStack() as stack:
        between = Between()
        await between.start(stack)
        yield between


@pytest.mark.parametrize("stays", [True, False])
async def test_who_comes_between_later_gets_no_task(
    between: Between, monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    if not stays:  # shows that the others could be heard
        monkeypatch.setattr(LinkSession, "stay_with", lambda self, response: None)
    hub_port, agent_port = free_ports(2)
    between.first_to = agent_port
    agent = {"agent_listen": f"http://127.0.0.1:{agent_port}", "agent_url": f"http://127.0.0.1:{between.port}"}
    async with Rig("http", {"agent_addresses": f"http://127.0.0.1:{hub_port}"}) as rig:
        hub, sink, info = await rig.hub("h", who=HUB, admits=Admitting(AGENT))
        await rig.port("a", echo, who=AGENT, options=agent)
        await sink.event("joined", "a")
        hub.send("a", request(info, "t", body='{"planted": "secret"}'))
        await between.heard.event("connected", True)
        await sink.until(lambda: [each for each in sink.events if each[0] in ("send_failed", "lost")])
        heard = [each[1] for each in between.heard.events if each[0] == "heard"]
        assert any(b"planted" in each or b"POST" in each for each in heard) is not stays


@pytest.mark.parametrize("hub_has_one", [True, False])
async def test_where_one_end_alone_has_an_identity_the_log_says_so(hub_has_one: bool) -> None:
    (port,) = free_ports(1)
    async with Rig("http", {"agent_addresses": f"http://127.0.0.1:{port}"}) as rig:
        with LogRecorder() as logged:
            await rig.hub("h", who=HUB if hub_has_one else None)
            await rig.port("a", who=None if hub_has_one else AGENT)
            said = await logged.message("could not link it at")
        assert ("both ends need an identity, or neither" in said) is hub_has_one
