"""Hot standby over DDS with real processes: deaths, pauses, orderly ends, and ports that are not free."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.long_form import SOAK

from anywire import Client, errors
from standby_group import (
    ACTIVE,
    LEASE,
    PATIENCE,
    STANDS_BY,
    STREAM,
    Group,
    answered_over_http,
    group,
    take_over,
)

pytestmark = pytest.mark.timeout(180)
DEATHS = 10 if SOAK else 3


@pytest.fixture
async def fleet(tmp_path: Path, dds_domain: int) -> AsyncIterator[Group]:
    """Answers of two words come at once, longer ones never end."""
    async with group(tmp_path, dds_domain, itl=30, length=100_000) as made:
        yield made


async def streamed(client: Client, began: asyncio.Event) -> errors.AnywireError:
    """The error with which an endless stream over DDS ends."""
    async with aclosing(client.stream(**STREAM)) as pieces:
        try:
            async for _ in pieces:
                began.set()
        except errors.AnywireError as error:
            return error
    pytest.fail("it came to an end")


async def streamed_over_http(http: httpx.AsyncClient, began: asyncio.Event) -> str:
    """How an endless stream over HTTP ends: what was said last."""
    last = ""
    async with http.stream("POST", "/v1/chat/completions", json=STREAM | {"stream": True}) as answer:
        async for line in answer.aiter_lines():
            if line:
                last = line
                began.set()
    return last


def browser(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE)


async def lives(http: httpx.AsyncClient) -> dict[str, tuple[int, int]]:
    """The agents that are ready, with their process and incarnation."""
    agents: list[dict[str, Any]] = (await http.get("/api/v1/agents")).json()["data"]
    return {each["id"]: (each["pid"], each["incarnation"]) for each in agents if each["state"] == "ready"}


async def test_after_every_death_another_one_takes_over(fleet: Group) -> None:
    await fleet.agents("a1", "a2")
    active = await fleet.active()
    standing = [await fleet.standby(), await fleet.standby()]
    async with Client("dds", domain=fleet.domain) as client, browser(active.url) as http:
        await answered_over_http(http)
        before = await lives(http)
        assert set(before) == {"a1", "a2"}
        for _ in range(DEATHS):
            began = asyncio.Event(), asyncio.Event()
            running = asyncio.create_task(streamed(client, began[0]))
            over_http = asyncio.create_task(streamed_over_http(http, began[1]))
            await asyncio.wait_for(asyncio.gather(*(each.wait() for each in began)), PATIENCE)
            active.send(signal.SIGKILL)
            with pytest.raises(httpx.TransportError):
                await over_http
            await take_over(time.monotonic(), client, http)
            assert isinstance(await asyncio.wait_for(running, PATIENCE), errors.AgentLost)
            assert await lives(http) == before
            (active,) = [each for each in standing if each.said(ACTIVE)]
            standing.remove(active)
            await active.says("ready: http")
            standing.append(await fleet.standby())
            assert [each.said(ACTIVE) for each in standing] == [0, 0]
        assert {each.agent_id for each in client.hub.agents()} == {
            (await active.says(ACTIVE)).partition(f" {ACTIVE}")[0].split()[-1]
        }


async def test_a_paused_one_finds_itself_replaced_and_stands_by(fleet: Group) -> None:
    await fleet.agents("a1")
    first = await fleet.active("--port", "0", "--strength", "9")
    second = await fleet.standby("--port", "0")
    async with Client("dds", domain=fleet.domain) as client, browser(first.url) as http:
        began = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(streamed(client, began[0]))
        over_http = asyncio.create_task(streamed_over_http(http, began[1]))
        await asyncio.wait_for(asyncio.gather(*(each.wait() for each in began)), PATIENCE)
        first.send(signal.SIGSTOP)
        await second.says("ready: http")
        assert isinstance(await asyncio.wait_for(running, PATIENCE), errors.AgentLost)
        assert (await client.chat(**STREAM, max_tokens=2))["choices"]
        await second.says("holds against any earlier one")
        first.send(signal.SIGCONT)
        # It is the stronger one, but the other was elected later.
        await first.says("is deposed")
        last = await asyncio.wait_for(over_http, PATIENCE)
        assert '"error"' in last
        await first.says(STANDS_BY)
        with pytest.raises(httpx.ConnectError):
            await http.get("/health")
        assert second.said("deposed") == 0
        async with browser(second.url) as other:
            assert (await answered_over_http(other)).status_code == 200
        second.send(signal.SIGKILL)
        await first.says("ready: http", times=2)
        assert (await client.chat(**STREAM, max_tokens=2))["choices"]


async def test_a_standby_that_was_paused_disturbs_nobody(fleet: Group) -> None:
    active = await fleet.active()
    standby = await fleet.standby("--strength", "9")
    standby.send(signal.SIGSTOP)
    await asyncio.sleep(2 * LEASE)  # a pause is a time, and nobody says when a standby is missed
    standby.send(signal.SIGCONT)
    await standby.says("stood still")
    active.send(signal.SIGKILL)
    await standby.says("ready: http")
    assert standby.said(ACTIVE) == 1
    assert active.said("deposed") == 0


async def test_an_orderly_end_hands_over_at_once_and_finishes_what_runs(fleet: Group) -> None:
    await fleet.agents("a1")
    active = await fleet.active()
    standby = await fleet.standby()
    async with Client("dds", domain=fleet.domain) as client, browser(active.url) as http:
        began = asyncio.Event()

        async def read() -> int:
            pieces = 0
            async with aclosing(client.stream(**STREAM, max_tokens=300)) as stream:
                async for piece in stream:
                    pieces += bool(piece.text)
                    began.set()
            return pieces

        running = asyncio.create_task(read())
        await asyncio.wait_for(began.wait(), PATIENCE)
        active.send(signal.SIGTERM)
        await standby.says("ready: http")
        # No lease has run out: the old one still serves what it began, while the new one serves what comes, at the same
        # address.
        assert not running.done()
        assert active.process.returncode is None
        assert (await answered_over_http(http)).status_code == 200
        assert (await client.chat(**STREAM, max_tokens=2))["choices"]
        assert await running == 300
        assert await active.ended() == 0


async def test_the_port_of_something_else_leaves_it_to_the_next(fleet: Group) -> None:
    active = await fleet.active("--port", "0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        blocked = await fleet.standby("--port", port, "--strength", "9")
        free = await fleet.standby("--port", "0")
        active.send(signal.SIGKILL)
        error = await blocked.says("cannot take over")
        assert port in error
        await free.says("ready: http")
        await blocked.says(STANDS_BY, times=2)
    free.send(signal.SIGKILL)
    await blocked.says(f"ready: http://127.0.0.1:{port}")


async def test_a_newcomer_lets_the_active_one_be(fleet: Group) -> None:
    active = await fleet.active("--port", "0")
    stronger = await fleet.standby("--strength", "1000")
    line = await stronger.says(STANDS_BY)
    assert f"pid {active.process.pid}" in line
    assert socket.gethostname() in line
    async with browser(f"http://127.0.0.1:{fleet.port}") as http:
        with pytest.raises(httpx.ConnectError):
            await http.get("/health")
    assert await stronger.end(signal.SIGTERM) == 0
    assert active.said("deposed") == 0
