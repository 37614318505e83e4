"""`PacketPeer` by itself: two ends in one process, whose packets go from one to the other in the next turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from tests.patience import PATIENCE

from anywire.clock import SystemClock
from anywire.lease import AwakeTime
from anywire.messages import AgentInfo, AgentStatus, Chunk, HubInfo, TaskRequest
from anywire.testing.recorder import RecordingAgentSink, RecordingHubSink
from anywire.transport_tools import Channel, ChannelHub, ChannelOwner, ChannelPort, Codec, PacketPeer

CODEC = Codec()
LEASE = 0.4


class HelloHub(ChannelHub):
    def channel_opened(self, channel: Channel) -> None:
        super().channel_opened(channel)
        self.send_hello(channel)


class Wire:
    """What one end has given to it is with the other end in the next turn, all of it in that turn."""

    def __init__(self) -> None:
        self.ends: list[PacketPeer] = []
        self.carried: list[list[bytes]] = [[], []]
        self.cut = False
        self._under_way: list[tuple[int, bytes]] = []

    def send(self, of: int, packet: bytes) -> None:
        if not self._under_way:
            asyncio.get_running_loop().call_soon(self._deliver)
        self._under_way.append((of, packet))

    def _deliver(self) -> None:
        under_way, self._under_way = self._under_way, []
        for of, packet in under_way:
            self.carried[of].append(packet)
            if not self.cut and len(self.ends) == 2:
                self.ends[1 - of].received(packet)


class Pair:
    """A hub and an agent over a `Wire`."""

    def __init__(self, **bounds: Any) -> None:
        self.wire, self.hub_sink, self.agent_sink = Wire(), RecordingHubSink(), RecordingAgentSink()
        self.hub = HelloHub(HubInfo("h", 1), self.hub_sink)
        self.port = ChannelPort(AgentInfo("a", 1), self.agent_sink)
        self.port.report(AgentStatus("a", 1))
        awake = AwakeTime(SystemClock())
        self.hub.guard.open()
        self.port.guard.open()
        ends: list[ChannelOwner] = [self.hub, self.port]
        for of, end in enumerate(ends):
            peer = PacketPeer(
                end,
                CODEC,
                partial(self.wire.send, of),
                session=1,
                lease=LEASE,
                awake=awake,
                dial=of == 0,
                **bounds,
            )
            self.wire.ends.append(peer)

    async def close(self) -> None:
        await self.hub.close()
        await self.port.close()
        for peer in self.wire.ends:
            peer.close()


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    made = Pair(buffer_bytes=10_000)
    yield made
    await made.close()


async def test_what_comes_in_one_turn_is_acknowledged_once(pair: Pair) -> None:
    await pair.hub_sink.event("joined", "a")
    await pair.agent_sink.event("hub_joined", "h")
    (channel,) = pair.port.channels
    before = len(pair.wire.carried[0])
    for number in range(50):
        channel.send(Chunk("h", "t", 1, number, ("x",), final=number == 49))
    await pair.hub_sink.final("t")
    for _ in range(5):
        await asyncio.sleep(0)
    assert pair.wire.ends[1].link.finished
    assert len(pair.wire.carried[0]) - before <= 3


async def test_a_task_of_any_size_may_be_sent_as_soon_as_its_agent_joins() -> None:
    pair, large = Pair(buffer_bytes=10_000), "x" * 100_000
    joined, failed = pair.hub_sink.agent_joined, list[Exception]()

    def send_at_once(info: AgentInfo) -> None:
        joined(info)
        try:
            pair.hub.send("a", TaskRequest("h", "t", 1, "chat", "m", large))
        except Exception as error:
            failed.append(error)

    pair.hub_sink.agent_joined = send_at_once  # type: ignore[method-assign]
    task = await asyncio.wait_for(pair.agent_sink.event("task", "t"), PATIENCE) if not failed else None
    assert not failed
    assert task
    await pair.close()


async def test_a_peer_that_nobody_answers_says_so_and_dials_no_more_once_it_is_closed() -> None:
    wire, awake, idle = Wire(), AwakeTime(SystemClock()), asyncio.Event()
    hub = HelloHub(HubInfo("h", 1), RecordingHubSink())

    def on_idle() -> None:
        peer.close()
        idle.set()

    peer = PacketPeer(
        hub,
        CODEC,
        lambda packet: wire.send(0, packet),
        session=1,
        lease=LEASE,
        awake=awake,
        dial=True,
        on_idle=on_idle,
    )
    await asyncio.wait_for(idle.wait(), PATIENCE)
    sent = len(wire.carried[0])
    assert sent
    await asyncio.sleep(LEASE)  # nothing is awaited here: it is the time in which nothing may be sent
    assert len(wire.carried[0]) == sent
    await hub.close()


async def test_a_linked_peer_is_not_idle_and_one_that_was_lost_is() -> None:
    idle = asyncio.Queue[float]()
    loop = asyncio.get_running_loop()
    pair = Pair(on_idle=lambda: idle.put_nowait(loop.time()))
    await pair.hub_sink.event("joined", "a")
    await asyncio.sleep(2 * LEASE)  # nothing is awaited here: it is the time in which nothing may be called
    assert idle.empty()
    pair.wire.cut, cut = True, loop.time()
    await pair.hub_sink.event("lost", "a")
    await pair.agent_sink.event("hub_lost", "h")
    for _ in range(2):
        assert await asyncio.wait_for(idle.get(), PATIENCE) > cut + LEASE
    await pair.close()


@pytest.mark.parametrize("lease", [0.0, 1e9, -1.0])
async def test_a_lease_that_does_not_fit_is_refused_by_name(lease: float) -> None:
    with pytest.raises(ValueError, match="a lease of"):
        PacketPeer(
            HelloHub(HubInfo("h", 1), RecordingHubSink()),
            CODEC,
            lambda packet: None,
            session=1,
            lease=lease,
            awake=AwakeTime(SystemClock()),
            dial=True,
        )
