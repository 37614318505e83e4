"""The reference transport: its bounds, two lives at once, and sinks that raise."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from anywire import errors
from anywire.builtin.memory import ENVELOPE, MemoryConfig, MemoryTransport
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, HubInfo, TaskRequest
from anywire.testing.recorder import RecordingAgentSink, RecordingHubSink
from anywire.testing.rig import Rig, request
from anywire.transport import Reply


@pytest_asyncio.fixture
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with Rig("memory", {"network": request.node.name, "buffer_bytes": 10_000}) as rig:
        yield rig


async def test_the_buffer_is_bounded_in_bytes_and_drain_makes_room_for_any_message(rig: Rig) -> None:
    _, agent, _ = await rig.port("a")
    hub, sink, info = await rig.hub()
    await sink.event("joined", "a")
    for number in range(9):
        hub.send("a", request(info, f"t{number}", body="x" * (1000 - ENVELOPE)))
    with pytest.raises(errors.Congested, match=r"10000 \(buffer_bytes\)"):
        hub.send("a", request(info, "over", body="x" * 1000))
    hub.send("a", Credit(info.hub_id, "t0", 1, 1))
    hub.send("a", Cancel(info.hub_id, "t0", 1))
    await hub.drain("a")
    hub.send("a", request(info, "large", body="x" * 1_000_000))
    with pytest.raises(errors.Congested):
        hub.send("a", request(info, "over", body=""))
    await agent.event("task", "large")
    assert [event[1] for event in agent.named("task")] == [*(f"t{number}" for number in range(9)), "large"]


async def test_chunks_are_bounded_too_and_dropped_after_the_loss(rig: Rig) -> None:
    _, agent, _ = await rig.port("a")
    hub, sink, info = await rig.hub()
    await sink.event("joined", "a")
    hub.send("a", request(info, "t"))
    reply: Reply = (await agent.event("task", "t"))[4]
    reply.send(Chunk(info.hub_id, "t", 1, 0, ("x" * 9000,)))
    with pytest.raises(errors.Congested):
        reply.send(Chunk(info.hub_id, "t", 1, 1, ("x" * 9000,)))
    await reply.drain()
    with pytest.raises(errors.PayloadTooLarge, match="33554432"):
        reply.send(Chunk(info.hub_id, "t", 1, 1, ("ü" * 20_000_000,)))
    with pytest.raises(errors.TransportError, match="Unicode"):
        reply.send(Chunk(info.hub_id, "t", 1, 1, ("\ud800",)))
    await hub.close()
    await agent.event("hub_lost", info.hub_id)
    reply.send(Chunk(info.hub_id, "t", 1, 1, ("x" * 90_000_000,)))
    await reply.drain()


async def test_of_two_lives_the_greater_counts_and_the_lesser_joins_when_that_is_gone(rig: Rig) -> None:
    opened = {}
    _, sink, _ = await rig.hub()
    for incarnation in (2, 3, 1):
        transport, agent = rig.new_transport(), RecordingAgentSink()
        port = await transport.open_agent(AgentInfo("a", incarnation), "agent", agent)
        port.report(AgentStatus("a", incarnation))
        opened[incarnation] = port, agent
        if incarnation > 1:
            await sink.event("reported", "a", incarnation)
    await opened[3][0].close()
    await sink.until(lambda: sink.named("joined")[-1][2] == 2 and len(sink.named("joined")) > 2)
    seen = [event[:3] for event in sink.events if event[0] in ("joined", "lost")]
    assert seen[:4] == [("joined", "a", 2), ("lost", "a", 2), ("joined", "a", 3), ("lost", "a", 3)]
    assert seen[-1] == ("joined", "a", 2)
    for port, _ in opened.values():
        await port.close()


async def test_a_sink_that_raises_costs_nothing_else(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def on_task(task: TaskRequest, reply: Reply) -> None:
        if task.task_id == "bad":
            raise ValueError("the owner is wrong")
        reply.send(Chunk(task.hub_id, task.task_id, 1, 0, final=True))

    await rig.port("a", on_task)
    hub, sink, info = await rig.hub()
    await sink.event("joined", "a")
    for task_id in ("bad", "good"):
        hub.send("a", request(info, task_id))
    await sink.final("good")
    assert "task_received raised" in caplog.text
    assert not sink.named("lost")


async def test_nothing_is_called_before_open_has_returned_nor_after_close_was_called(rig: Rig) -> None:
    port, _, _ = await rig.port("a")
    sink = RecordingHubSink()
    hub = await rig.new_transport().open_hub(HubInfo("h", 1), "agent", sink)
    assert not sink.events
    await sink.event("reported", "a")
    port.report(AgentStatus("a", 1, "draining"))
    closing = hub.close()
    await closing
    await port.close()
    assert len(sink.events) == 2


def test_both_bounds_are_told_once_it_is_open() -> None:
    assert MemoryTransport(MemoryConfig()).effective_settings() == {}


async def test_effective_settings(rig: Rig) -> None:
    transport = rig.new_transport()
    hub = await transport.open_hub(HubInfo("h", 1), "agent", RecordingHubSink())
    assert transport.effective_settings()["buffer_bytes"] == "10000"
    assert transport.effective_settings()["max_message_bytes"] == "33554432"
    await hub.close()
