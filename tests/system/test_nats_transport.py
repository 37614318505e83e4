"""What is NATS's own: the server that is killed, paused or absent, and how links come back."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
import pytest
from tests.integration.anywire_processes import body, start
from tests.integration.nats_servers import (
    NatsServer,
    bench,
    exchange,
    needs_nats_server,
    refusal,
    serve,
    server,
    times,
)
from tests.integration.wire_bench import Bench, echo, request
from tests.long_form import SOAK
from tests.patience import FACTOR, PATIENCE

from anywire.testing.kit.pauses import Control
from anywire.testing.patience import expect
from anywire.testing.rig import Rig
from anywire_nats import connection, meeting
from anywire_nats.session import CONNECT_TIMEOUT
from reserved import free_ports

__all__ = ["bench", "serve", "server", "start"]  # fixtures

pytestmark = needs_nats_server


# The server


async def test_a_server_that_is_not_there_is_told_in_one_line(bench: Bench) -> None:
    first, second = free_ports(2)
    assert await refusal(bench, servers=f"nats://127.0.0.1:{first}") == (
        f"the NATS server at 127.0.0.1:{first} cannot be used: nobody listens there: start it (`nats-server`), or name "
        "another in transports.nats.servers"
    )
    both = await refusal(bench, servers=[f"nats://127.0.0.1:{first}", f"nats://127.0.0.1:{second}"])
    assert f":{first} cannot be used" in both
    assert f":{second} cannot be used" in both


async def test_something_else_that_listens_there_is_told(bench: Bench) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with other:
        url = f"nats://127.0.0.1:{other.sockets[0].getsockname()[1]}"
        assert "something else than a NATS server listens there" in await refusal(bench, servers=url)


async def test_the_next_server_is_used_when_the_first_is_not_there(bench: Bench, server: NatsServer) -> None:
    (nobody,) = free_ports(1)
    await exchange(bench, servers=[f"nats://127.0.0.1:{nobody}", server.url])


async def test_links_come_back_within_two_leases_of_a_killed_server(bench: Bench, server: NatsServer) -> None:
    """Under load: each task that was sent before is answered, or its link was lost; nothing comes twice."""
    lease = 1.0
    hub, sink = await bench.hub(servers=server.url)
    for number in range(4):
        await bench.port(f"a{number}", on_task=echo, servers=server.url)
        await sink.event("joined", f"a{number}")
    chance = random.Random(7)
    for life in range(2, 22 if SOAK else 4):
        for number in range(40):
            hub.send(f"a{number % 4}", request(f"{life}.{number}", body="x" * 20_000))
        await asyncio.sleep(chance.uniform(0.0, 0.05))
        await server.stop()
        await sink.until(partial(times, sink, "lost", 4 * (life - 1)), "all links are lost")
        assert all(f"127.0.0.1:{server.port}" in event[3] for event in sink.named("lost"))
        await asyncio.sleep(chance.choice((0.0, chance.uniform(0.0, 3 * lease))))
        await server.restart()
        control, begin = Control(), time.monotonic()
        await sink.until(partial(times, sink, "joined", 4 * life), "all links are back")
        took = time.monotonic() - begin
        assert not control.stop() or took < 2 * lease, f"the links were back after {took:.1f} s"
        hub.send("a0", request(f"{life}.after", body="here"))
        assert (await sink.final(f"{life}.after")).deltas == ("here",)
    answered = [event[1] for event in sink.named("chunk")]
    assert len(answered) == len(set(answered))


async def test_a_fleet_goes_on_after_its_server_was_killed(start: Any, server: NatsServer) -> None:
    named = ("--set", f"transports.nats.servers={server.url}", "--set", "transports.nats.local=true")
    up = await start("up", "--transport", "nats", "--engine", "synthetic", "--agents", "2", "--port", "0", *named)
    async with httpx.AsyncClient(base_url=up.url, timeout=PATIENCE) as client:
        for _ in range(2):
            answers = [client.post("/v1/chat/completions", json=body(number, stream=False)) for number in range(4)]
            assert [each.status_code for each in await asyncio.gather(*answers)] == [200] * 4
            await server.cut()
    await up.end(signal.SIGINT)
    assert up.process.returncode == 0


async def test_ends_close_at_any_moment_whether_the_server_is_there_or_not(bench: Bench, server: NatsServer) -> None:
    chance = random.Random(11)
    for number in range(100 if SOAK else 10):
        hub, _ = await bench.hub(f"h{number}", servers=server.url, lease_ms=60_000)
        port, _, _ = await bench.port(f"a{number}", servers=server.url, lease_ms=60_000)
        if number % 3:
            await server.stop()
        await asyncio.sleep(chance.uniform(0.0, 0.1))
        await expect(asyncio.gather(hub.close(), port.close()), "both ends closed")
        if number % 3:
            await server.restart()


async def test_an_end_closes_though_the_library_swallows_that_it_is_cancelled(
    bench: Bench, server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trying, opened = asyncio.Event(), connection.open_connection

    async def stubborn(*args: Any, **named: Any) -> connection.Connection:
        trying.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(PATIENCE)
        return await opened(*args, **named)

    hub, _ = await bench.hub(servers=server.url)
    monkeypatch.setattr(meeting, "open_connection", stubborn)
    await server.cut()
    await expect(trying.wait(), "the hub connects again")
    await expect(hub.close(), "the hub closed")


async def test_a_server_that_hangs_is_given_up_for_the_next_one(bench: Bench, serve: Any) -> None:
    (cluster,) = free_ports(1)
    first = await serve(f'cluster: {{name: c, listen: "127.0.0.1:{cluster}"}}')
    second = await serve(f'cluster: {{name: c, listen: "127.0.0.1:-1", routes: ["nats://127.0.0.1:{cluster}"]}}')
    hub, sink = await bench.hub(servers=[first.url, second.url], lease_ms=300)
    _, _, agent = await bench.port(on_task=echo, servers=[second.url], lease_ms=300)
    await sink.event("joined", "a")
    begin = time.monotonic()
    first.pause()
    try:
        await sink.event("lost", "a", agent.incarnation)
        await sink.until(lambda: len(sink.named("joined")) == 2, "the agent joins again through the other server")
        assert time.monotonic() - begin < CONNECT_TIMEOUT * FACTOR, "the server that hangs was tried first"
    finally:
        first.resume()
    hub.send("a", request("t", body="here"))
    assert (await sink.final("t")).deltas == ("here",)


async def test_links_over_a_paused_server_come_back_when_it_does(bench: Bench, server: NatsServer) -> None:
    hub, sink = await bench.hub(servers=server.url)
    await bench.port(on_task=echo, servers=server.url)
    await sink.event("joined", "a")
    server.pause()
    try:
        _, _, _, reason = await sink.event("lost", "a")
        assert "silent" in reason
    finally:
        server.resume()
    await sink.until(lambda: len(sink.named("joined")) == 2, "the agent joins again")
    hub.send("a", request("t", body="here"))
    assert (await sink.final("t")).deltas == ("here",)


async def test_a_killed_agent_is_lost_before_its_lease_is_over(server: NatsServer) -> None:
    async with Rig("nats", {"servers": server.url}) as rig:
        agent = await rig.peer("bare_agent", "a", lease=20 * FACTOR)
        _, sink, _ = await rig.hub(lease=1.0)
        await sink.event("joined", "a")
        begin = time.monotonic()
        await agent.crash()
        _, _, _, reason = await sink.event("lost", "a")
        assert "it is gone" in reason
        assert time.monotonic() - begin < 10 * FACTOR


async def test_an_end_that_nobody_has_heard_of_is_met_all_the_same(bench: Bench, serve: Any) -> None:
    """As in a cluster whose servers learn too late of a subscription: what the agent says of itself gets lost."""
    denied = 'permissions: {publish: {deny: "anywire.default.agent.agents.*"}}'
    users = f"{{user: hub, password: hub}}, {{user: agent, password: agent, {denied}}}"
    server = await serve(f"authorization: {{users: [{users}]}}")
    _, sink = await bench.hub(servers=server.url, user="hub", password="hub")
    await bench.port(servers=server.url, user="agent", password="agent")
    await sink.event("joined", "a")
