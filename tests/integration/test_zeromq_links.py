"""Links of ZeroMQ that end and come back: two lives of one agent, peers that misbehave, processes that are paused."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
import zmq
from tests.integration import bare_hub
from tests.integration.connections import OneLifeAtATime
from tests.integration.test_zeromq_transport import address, keys
from tests.integration.wire_bench import Bench, echo, log_of, request
from tests.integration.wire_faults import Log
from zmq.utils.monitor import parse_monitor_message

from anywire import errors
from anywire.messages import MAX_DELTAS, AgentInfo, AgentStatus, Chunk, HubInfo
from anywire.protocol import PROTOCOL as VERSION
from anywire.testing.doubles import Script
from anywire.testing.recorder import PATIENCE, RecordingHubSink
from anywire.testing.rig import Rig
from anywire.testing.rig import request as rig_request
from anywire.transport import MAX_MESSAGE_BYTES
from anywire_zeromq.codec import PROTOCOL, AgentHello, Ready, encode
from reserved import free_ports


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(stack, "zeromq")


@pytest_asyncio.fixture
async def rig(options_of: Callable[[str], dict[str, Any]]) -> AsyncIterator[Rig]:
    async with Rig("zeromq", options_of("zeromq")) as rig:
        yield rig


@pytest.fixture
def log() -> Iterator[Log]:
    with log_of("anywire_zeromq") as log:
        yield log


@pytest.fixture
def zmq_context() -> Iterator[zmq.Context[Any]]:
    """For peers of a test's own."""
    context: zmq.Context[Any] = zmq.Context()
    yield context
    context.destroy(0)


def links(sink: RecordingHubSink) -> list[tuple[Any, ...]]:
    return [event[:3] for event in sink.events if event[0] in ("joined", "lost")]


class TestLives(OneLifeAtATime):
    scheme = "tcp://"


# Coming back


@pytest.mark.parametrize("first", [5, 7])
async def test_the_life_that_was_refused_joins_when_the_later_one_has_ended(bench: Bench, log: Log, first: int) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    ends = {}
    for incarnation in (first, 12 - first):
        ends[incarnation], _, _ = await bench.port(incarnation=incarnation, on_task=echo, agent_addresses=address(port))
        if incarnation == first:
            await sink.event("joined", "a", first)
    await sink.event("joined", "a", 7)
    await log.says("does not let agent a join: agent a is here already in a later life")
    await ends[7].close()
    await sink.until(lambda: links(sink)[-1] == ("joined", "a", 5))
    hub.send("a", request("t", body="back"))
    assert (await sink.final("t")).deltas == ("back",)
    assert ("lost", "a", 7) in links(sink)
    assert len([event for event in log.events if "in a later life" in event[0]]) == 2, "once at either end"


@pytest.mark.parametrize("at_hub", [True, False], ids=["agent's fault", "hub's fault"])
async def test_a_process_that_sent_something_unreadable_joins_again(bench: Bench, log: Log, at_hub: bool) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    end, agent, info = await bench.port(on_task=echo, agent_addresses=address(port))
    await sink.event("joined", "a")
    sender: Any = end if at_hub else hub
    wires = sender.wires()
    wires[0].send(b"K\xc1" if at_hub else b"T\xc1")
    await log.says("sent something unreadable")
    await agent.event("hub_lost", "h")
    await sink.until(lambda: len(sink.named("joined")) == 2)
    assert [event[0] for event in links(sink)] == ["joined", "lost", "joined"]
    assert sink.named("joined")[1][2] == info.incarnation
    hub.send("a", request("t", body="again"))
    assert (await sink.final("t")).deltas == ("again",)


async def test_a_kind_of_message_that_a_neighbouring_version_adds_is_ignored(bench: Bench) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    end, agent, _ = await bench.port(on_task=echo, agent_addresses=address(port))
    await sink.event("joined", "a")
    senders: list[Any] = [hub, end]
    for sender in senders:
        sender.wires()[0].send(b"?\x90")
    hub.send("a", request("t", body="still linked"))
    assert (await sink.final("t")).deltas == ("still linked",)
    assert not agent.named("hub_lost")


async def test_a_hub_with_two_addresses_is_one_link(bench: Bench) -> None:
    (port,) = free_ports(1)
    both = [address(port), f"tcp://localhost:{port}"]
    first, sink = await bench.hub(agent_addresses=address(port))
    end, _, _ = await bench.port(on_task=echo, agent_addresses=both)
    await sink.event("joined", "a")
    number = 0
    while not any(wire.spare for wire in end.wires()):  # type: ignore[attr-defined]
        number += 1
        first.send("a", request(f"t{number}"))
        await sink.final(f"t{number}")
    assert [event[0] for event in links(sink)] == ["joined"]
    await first.close()
    second, sink = await bench.hub("second", agent_addresses=address(port))
    await sink.event("joined", "a")
    second.send("a", request("u", "second"))
    await sink.final("u")
    assert [event[0] for event in links(sink)] == ["joined"]


async def test_a_later_life_of_a_hub_replaces_the_earlier_and_never_the_other_way(bench: Bench, log: Log) -> None:
    ports = free_ports(3)
    addresses = [address(port) for port in ports]
    _, agent, _ = await bench.port(on_task=echo, agent_addresses=addresses)
    await bench.hub("h", incarnation=5, agent_addresses=addresses[0])
    await agent.event("hub_joined", "h", 5)
    later, sink = await bench.hub("h", incarnation=7, agent_addresses=addresses[1])
    await agent.event("hub_joined", "h", 7)
    await bench.hub("h", incarnation=6, agent_addresses=addresses[2])
    await log.says(f"{addresses[2]} is not linked to agent a: hub h is here already in a later life")
    await sink.event("joined", "a")
    later.send("a", request("t"))
    await sink.final("t")
    seen = [event[:3] for event in agent.events if event[0].startswith("hub_")]
    assert seen == [("hub_joined", "h", 5), ("hub_lost", "h", 5), ("hub_joined", "h", 7)]


# Peers that misbehave


async def test_old_zmtp_and_messages_of_many_parts_cost_nothing(bench: Bench, log: Log) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    await bench.port(on_task=echo, agent_addresses=address(port))
    await sink.event("joined", "a")
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"\x01\x00")
        for number in range(80):
            raw.sendall(b"\x02\x01a\x02\x00b" * 20)
            hub.send("a", request(f"t{number}"))
        for number in range(80):
            await sink.final(f"t{number}")
        await log.says("old version of ZMTP")
    assert len(log.events) == 1


async def test_a_key_that_is_not_admitted_costs_one_line_however_often_it_tries(
    bench: Bench, log: Log, zmq_context: zmq.Context[Any]
) -> None:
    (port,) = free_ports(1)
    (hub_public, hub_secret), (agent_public, agent_secret) = keys(), keys()
    _, sink = await bench.hub(agent_addresses=address(port), secret_key=hub_secret, allowed_keys=agent_public)
    unknown = zmq.curve_keypair()

    def refused_at_once(count: int) -> None:
        """So many connections of one key at the same time, each until it was refused."""
        dealers = [zmq_context.socket(zmq.DEALER) for _ in range(count)]
        monitors = []
        for dealer in dealers:
            dealer.curve_publickey, dealer.curve_secretkey = unknown
            dealer.curve_serverkey = hub_public.encode()
            monitors.append(dealer.get_monitor_socket(zmq.Event.HANDSHAKE_FAILED_AUTH))
        for dealer in dealers:
            dealer.connect(address(port))
        for monitor in monitors:
            assert monitor.poll(PATIENCE * 1000)
            parse_monitor_message(monitor.recv_multipart())
        for dealer, monitor in zip(dealers, monitors, strict=True):
            dealer.disable_monitor()
            monitor.close(0)
            dealer.close(0)

    await asyncio.to_thread(refused_at_once, 20)
    await bench.port(agent_addresses=address(port), secret_key=agent_secret, server_key=hub_public)
    await sink.event("joined", "a")
    lines = [event[0] for event in log.events]
    assert ["not in allowed_keys" in line for line in lines] == [True], lines


@pytest.mark.parametrize("incarnation", [5, 6, 7], ids=["an earlier life", "the same life", "a later life"])
@pytest.mark.parametrize("plane", ["agent", "client"])
async def test_a_name_cannot_be_taken_by_another_key(bench: Bench, log: Log, plane: Any, incarnation: int) -> None:
    (port,) = free_ports(1)
    (there_public, there_secret), (good_public, good_secret), (rogue_public, rogue_secret) = keys(), keys(), keys()
    where: dict[str, Any] = {f"{plane}_addresses": address(port)}
    listening = where | {"secret_key": there_secret, "allowed_keys": [good_public, rogue_public]}
    good, rogue = (where | {"server_key": there_public, "secret_key": each} for each in (good_secret, rogue_secret))
    told: Any
    if plane == "agent":
        hub, sink = await bench.hub(**listening)
        _, there, _ = await bench.port("a", incarnation=6, on_task=echo, **good)
        await sink.event("joined", "a", 6)
        _, told, _ = await bench.port("a", incarnation=incarnation, **rogue)
    else:
        _, there, _ = await bench.port("a", on_task=echo, plane=plane, **listening)
        hub, sink = await bench.hub("h", incarnation=6, plane=plane, **good)
        await there.event("hub_joined", "h", 6)
        _, told = await bench.hub("h", incarnation=incarnation, plane=plane, **rogue)
    await log.says("does not let", "is here already with another key or certificate")
    await sink.event("joined", "a")
    hub.send("a", request("t"))
    await sink.final("t")
    assert len(links(sink)) == len(there.named("hub_joined")) == 1
    assert not told.events


# When callbacks come


async def test_nothing_is_reported_before_opening_has_returned_nor_after_close_was_called(
    bench: Bench, zmq_context: zmq.Context[Any]
) -> None:
    (port,) = free_ports(1)
    transport, sink = bench.transport(agent_addresses=address(port)), RecordingHubSink()
    with zmq_context.socket(zmq.DEALER) as agent:
        agent.connect(address(port))
        agent.send(encode(AgentHello(PROTOCOL, "agent", AgentInfo("a", 1, protocol=VERSION), AgentStatus("a", 1))))
        agent.send(encode(Ready()))
        opening = asyncio.ensure_future(transport.open_hub(HubInfo("h", 1), "agent", sink))
        hub = await asyncio.wait_for(opening, PATIENCE)
        sink.add("open")
        await sink.event("joined", "a")
        for number in range(1000):
            agent.send(encode(Chunk("h", "t", 1, number, ("x",))))
        await sink.event("chunk", "t")
        closing = asyncio.ensure_future(hub.close())
        await asyncio.sleep(0)
        reported = len(sink.events)
        await closing
    assert sink.events[0] == ("open",)
    assert len(sink.events) == reported


# Bounds


async def test_the_largest_body_and_the_largest_answer_travel(bench: Bench) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    await bench.port(on_task=echo, agent_addresses=address(port))
    await sink.event("joined", "a")
    body = "\u00e4" * (MAX_MESSAGE_BYTES // 2)
    hub.send("a", request("t", body=body))
    assert (await sink.final("t")).deltas == (body,)
    with pytest.raises(errors.PayloadTooLarge, match=str(MAX_MESSAGE_BYTES)):
        hub.send("a", request("u", body=body + "x"))


async def test_an_answer_of_many_short_pieces_is_of_legal_size(bench: Bench) -> None:
    (port,) = free_ports(1)
    limit = 2**20
    hub, sink = await bench.hub(agent_addresses=address(port), max_message_bytes=limit)
    _, agent, _ = await bench.port(agent_addresses=address(port), max_message_bytes=limit)
    await sink.event("joined", "a")
    hub.send("a", request("t"))
    reply = (await agent.event("task", "t"))[4]
    reply.send(Chunk("h", "t", 1, 0, ("x" * 10,) * MAX_DELTAS, final=True))
    assert len((await sink.final("t")).deltas) == MAX_DELTAS


async def test_an_agent_that_is_paused_congests_its_hub_and_disturbs_nobody(rig: Rig) -> None:
    hub, sink, info = await rig.hub()
    peer = await rig.peer("agent", "slow", slots=10_000)
    await sink.event("joined", "slow")
    await rig.port("quick", echo)
    await sink.event("joined", "quick")
    peer.pause()
    sent, size, full = 0, 200_000, 0
    while True:
        with pytest.raises(errors.Congested, match="wait for"):  # noqa: PT012
            while True:
                hub.send("slow", rig_request(info, f"t{sent}", body=Script(tag=f"t{sent}", filler="x" * size).body()))
                sent += 1
                await asyncio.sleep(0)
        assert sent * size < 40 * 2**20, "what the kernel and ZeroMQ hold besides is bounded, too"
        room = asyncio.ensure_future(hub.drain("slow"))
        hub.send("quick", request(f"q{full}", info.hub_id, "unhindered"))
        assert (await sink.final(f"q{full}")).deltas == ("unhindered",)
        if not room.done():
            break
        full += 1  # ZeroMQ's thread had not handed to the kernel yet what the kernel has room for
    peer.resume()
    await asyncio.wait_for(room, PATIENCE)
    hub.send("slow", rig_request(info, "last", body=Script(tag="last", filler="x" * (MAX_MESSAGE_BYTES - 1000)).body()))
    await peer.event("started", "last", 1)
    assert [event[1] for event in peer.named("started")] == [*(f"t{number}" for number in range(sent)), "last"]


async def test_statuses_for_a_hub_that_does_not_read_replace_each_other(bench: Bench) -> None:
    (port,) = free_ports(1)
    proxy = await bench.proxy(port)
    hub, sink = await bench.hub(agent_addresses=address(port))
    end, agent, info = await bench.port(agent_addresses=address(proxy.port))
    await sink.event("joined", "a")
    hub.send("a", request("t"))
    reply = (await agent.event("task", "t"))[4]
    proxy.hold()
    sent = 0
    with pytest.raises(errors.Congested):  # noqa: PT012
        while True:
            reply.send(Chunk("h", "t", 1, sent, ("y" * 100_000,)))
            sent += 1
    for number in range(10_000):
        end.report(AgentStatus("a", info.incarnation, active=number))
    proxy.flow()
    await sink.until(lambda: sink.named("reported")[-1][3].active == 9_999)
    assert len(sink.named("reported")) == 2
    assert len(sink.chunks("t")) == sent


# Processes that are paused


@pytest.mark.parametrize("leases", [1.3, 3.0])
async def test_a_hub_that_is_paused_loses_no_agent_and_no_stream(bench: Bench, leases: float) -> None:
    (port,) = free_ports(1)
    end, agent, info = await bench.port(agent_addresses=address(port))
    hub = await bare_hub.start("zeromq", {"agent_addresses": address(port)})
    bench.stack.push_async_callback(hub.stop)
    reply = (await agent.event("task", "t"))[4]
    hub.pause()
    for number in range(10):
        await asyncio.sleep(leases * info.lease_ms / 10_000)
        end.report(AgentStatus("a", info.incarnation))
        reply.send(Chunk("h", "t", 1, number, (f"{number}",)))
    hub.resume()
    reply.send(Chunk("h", "t", 1, 10, ("end",)))
    await hub.event("chunk", "t", "end")
    assert [event[2] for event in hub.named("chunk")] == [*map(str, range(10)), "end"]
    assert [event[0] for event in hub.events if event[0] in ("joined", "lost")] == ["joined"]
    assert [event[0] for event in agent.events if event[0].startswith("hub_")] == ["hub_joined"]


async def test_an_agent_that_is_paused_keeps_its_connection_and_the_hub_its_link(rig: Rig) -> None:
    hub, sink, info = await rig.hub()
    peer = await rig.peer("agent", "a", lease=0.3)
    await sink.event("joined", "a")
    peer.pause()
    hub.send("a", rig_request(info, "t", body=Script(tag="t").body()))
    await asyncio.sleep(5 * 0.3)
    peer.resume()
    await sink.final("t")
    assert [event[0] for event in links(sink)] == ["joined"]
