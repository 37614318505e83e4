"""Sizes that a NATS server allows, who meets whom at it, and strangers on its subjects."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import nats
import pytest
from tests.integration.nats_servers import (
    NatsServer,
    bench,
    exchange,
    log,
    needs_nats_server,
    refusal,
    serve,
    server,
    times,
)
from tests.integration.wire_bench import Bench, echo, request
from tests.integration.wire_faults import Log

from anywire.identity import hub_info
from anywire.testing.patience import expect
from anywire.testing.recorder import RecordingHubSink
from anywire.transport_tools import Link
from anywire_nats import connection, meeting

__all__ = ["bench", "log", "serve", "server"]  # fixtures

pytestmark = needs_nats_server


# Its limits


async def test_messages_over_max_payload_go_in_fragments(bench: Bench, serve: Any) -> None:
    server = await serve("max_payload: 1024")
    await exchange(bench, "x" * 300_000, servers=server.url)


async def test_a_max_payload_that_is_less_after_a_restart_is_kept(bench: Bench, server: NatsServer) -> None:
    hub, sink = await bench.hub(servers=server.url)
    await bench.port(on_task=echo, servers=server.url)
    await sink.event("joined", "a")
    server.settings = "max_payload: 1024"
    await server.cut()
    await sink.until(partial(times, sink, "joined", 2), "the link is back")
    hub.send("a", request("t", body="x" * 50_000))
    assert (await sink.final("t")).deltas == ("x" * 50_000,)


async def test_a_message_of_the_largest_size_passes_the_usual_limits(bench: Bench, server: NatsServer) -> None:
    await exchange(bench, "ä" * (4 * 1024 * 1024), servers=server.url)


async def test_a_max_payload_with_which_no_link_works_is_told(bench: Bench, serve: Any) -> None:
    server = await serve("max_payload: 100")
    assert "its max_payload is 100, set 256 or more" in await refusal(bench, servers=server.url)


async def test_packets_that_the_server_does_not_take_soon_enough_are_sent_again(
    bench: Bench, server: NatsServer, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MOST_WAITING", 100_000)
    await exchange(bench, "x" * 3_000_000, servers=server.url)
    assert log.count("is slow: packets are dropped and sent again") >= 1


async def test_names_without_end_are_ignored_until_nobody_has_them(
    bench: Bench, server: NatsServer, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meeting, "MOST_PEERS", 5)
    _, sink = await bench.hub(servers=server.url)
    stranger = await nats.connect(server.url)
    try:
        for number in range(10):
            await stranger.publish(f"anywire.default.agent.agents.stranger{number}", b"")
        await log.says("over 5 ends are heard of at the NATS server: others are ignored")
        await bench.port(servers=server.url)
        await sink.event("joined", "a")
    finally:
        await stranger.close()


# Who meets whom


async def test_fleets_do_not_meet(bench: Bench, server: NatsServer) -> None:
    _, sink = await bench.hub("h", servers=server.url, fleet="blue")
    _, other = await bench.hub("i", servers=server.url, fleet="blue.red")
    await bench.port("a", servers=server.url, fleet="blue")
    await bench.port("b", servers=server.url, fleet="blue.red")
    await sink.event("joined", "a")
    await other.event("joined", "b")
    assert {event[1] for each in (sink, other) for event in each.named("joined")} == {"a", "b"}
    assert len(sink.named("joined") + other.named("joined")) == 2


async def test_strangers_on_the_subjects_disturb_nobody(bench: Bench, server: NatsServer, log: Log) -> None:
    hub, sink = await bench.hub(servers=server.url)
    await bench.port(on_task=echo, servers=server.url)
    await sink.event("joined", "a")
    names: dict[str, str] = {}
    heard = asyncio.Event()

    async def hear(message: Any) -> None:
        *_, kind, name = message.subject.split(".")
        names[kind] = name
        heard.set()

    stranger = await nats.connect(server.url)
    try:
        await stranger.subscribe("anywire.default.agent.hubs.*", cb=hear)
        await expect(heard.wait(), "the hub says again that it is there")
        inbox = f"anywire.default.agent.to_hub.{names['hubs']}"
        chance = random.Random(3)
        hello = next(iter(_opened(chance.randrange(1, 2**60))))
        for number in range(300):
            data = hello if number % 3 == 0 else chance.randbytes(chance.randrange(200))
            await stranger.publish(f"{inbox}.stranger{number % 50}", data, reply="anywire.nowhere")
        for subject in ("anywire.default.agent.agents.nobody", f"{inbox}.nobody", "anywire.default.agent.hubs.nobody"):
            await stranger.publish(subject, b"")
        await stranger.flush()
        hub.send("a", request("t", body="fine"))
        assert (await sink.final("t")).deltas == ("fine",)
        assert [event[1] for event in sink.named("joined")] == ["a"]
        assert not sink.named("lost")
        assert not log.tracebacks
    finally:
        await stranger.close()


def _opened(session: int) -> Iterator[bytes]:
    link = Link(b"", session, 1.0, message_bytes=1000)
    link.open(0.0)
    return link.packets(0.0)


async def test_what_is_in_force_is_told(bench: Bench, server: NatsServer) -> None:
    transport = bench.transport(servers=server.url, fleet="lab")
    hub = await transport.open_hub(hub_info("h"), "agent", RecordingHubSink())
    try:
        told = transport.effective_settings()
        assert told["server"] == f"127.0.0.1:{server.port}"
        assert told["server_version"][0].isdigit()
        assert (told["max_payload"], told["security"], told["fleet"]) == ("1048576", "none", "lab")
        assert transport.findings() == []
        await server.stop()
        await expect(_told(transport), "a finding")
        assert f"127.0.0.1:{server.port}" in transport.findings()[0][0]
    finally:
        await hub.close()
    assert transport.findings() == []


async def _told(transport: Any) -> None:
    while not transport.findings():  # noqa: ASYNC110  # nothing tells of a new finding
        await asyncio.sleep(0.01)
