"""What harms nobody else over DDS: owners that raise, and samples that are wrong or written in another's name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.integration.dds_forger import Forger
from tests.patience import PATIENCE

from anywire.identity import new_incarnation
from anywire.messages import AgentInfo, AgentStatus, Chunk, HubInfo, TaskRequest
from anywire.offers import MAX_OFFERS_BYTES
from anywire.protocol import PROTOCOL
from anywire.testing.log_recorder import LogRecorder
from anywire.testing.recorder import Recorder, RecordingAgentSink, RecordingHubSink
from anywire.testing.rig import Rig, request
from anywire.transport import Hub, Reply
from anywire_dds import DdsConfig, DdsTransport, announcements
from anywire_dds.endpoints import CODECS
from anywire_dds.hello import Hello, control_hello, read_hello, request_hello, response_hello, window
from anywire_dds.hub import MAX_LEAP, DdsHub
from anywire_dds.presence import MAX_STATUS_BYTES, pack_agent, pack_status


@pytest.fixture
def options(dds_domain: int) -> dict[str, Any]:
    return {"domain": dds_domain}


@pytest.fixture
async def rig(options: dict[str, Any]) -> AsyncIterator[Rig]:
    async with Rig("dds", options) as rig:
        yield rig


@pytest.fixture
async def warnings() -> AsyncIterator[LogRecorder]:
    with LogRecorder() as warnings:
        yield warnings


@pytest.fixture
async def forger(options: dict[str, Any]) -> AsyncIterator[Forger]:
    forger = Forger(options)
    yield forger
    await forger.endpoints.close()


# Owners that raise


async def test_a_hub_that_raises_in_a_callback_gets_what_follows(rig: Rig) -> None:
    class Raising(RecordingHubSink):
        def chunk_received(self, agent_id: str, incarnation: int, chunk: Chunk) -> None:
            super().chunk_received(agent_id, incarnation, chunk)
            if chunk.seq % 3 == 0:
                raise RuntimeError("a fault of the owner")

        def agent_reported(self, agent_id: str, incarnation: int, status: AgentStatus) -> None:
            super().agent_reported(agent_id, incarnation, status)
            raise RuntimeError("a fault of the owner")

    def answer(task: TaskRequest, reply: Reply) -> None:
        for seq in range(3000):
            reply.send(Chunk(task.hub_id, task.task_id, 1, seq, ("x",), final=seq == 2999))

    port, _, agent = await rig.port("a", answer)
    sink, info = Raising(), HubInfo("h", new_incarnation())
    hub = await rig.new_transport().open_hub(info, "agent", sink)
    await sink.event("joined", "a")
    hub.send("a", request(info, "t"))
    await sink.final("t")
    assert [chunk.seq for chunk in sink.chunks("t")] == list(range(3000))
    port.report(AgentStatus("a", agent.incarnation, "draining"))
    await sink.until(lambda: sink.named("reported")[-1][3].state == "draining")
    await hub.close()


async def test_an_agent_that_raises_in_a_callback_gets_what_follows(rig: Rig) -> None:
    def fail(task: TaskRequest, reply: Reply) -> None:
        if not task.task_id.endswith("0"):
            raise RuntimeError("a fault of the owner")

    _, agent, _ = await rig.port("a", fail)
    hub, sink, info = await rig.hub()
    await sink.event("joined", "a")
    for number in range(1000):
        hub.send("a", request(info, f"t{number}"))
    await agent.event("task", "t999")
    assert [event[1] for event in agent.named("task")] == [f"t{number}" for number in range(1000)]


# Reports


@pytest.mark.parametrize(
    ("of_it", "says"), [(True, "not by its participant"), (False, "of a writer that names no agent")]
)
async def test_forged_reports_change_nothing(rig: Rig, warnings: LogRecorder, of_it: bool, says: str) -> None:
    port, _, agent = await rig.port("a")
    _, sink, _ = await rig.hub()
    await sink.event("joined", "a")
    forger = Forger(rig.options, of=agent if of_it else None)
    await forger.until_seen(warnings)
    known = len(sink.named("reported"))
    forger.statuses.write(pack_status(AgentStatus("a", agent.incarnation), 2**62))
    await warnings.message(says)
    port.report(AgentStatus("a", agent.incarnation, "draining", active=3))
    await sink.until(lambda: len(sink.named("reported")) > known)
    assert sink.named("reported")[known][3].active == 3
    await forger.endpoints.close()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"state": "nonsense-state"}, "'nonsense-state'"),
        ({"offers": "x" * (MAX_OFFERS_BYTES + 1)}, f"{MAX_OFFERS_BYTES + 1} characters of offers"),
        ({"detail": "x" * (MAX_STATUS_BYTES + 1)}, "are no report"),
        ({"slots": -1}, "-1 slots"),
        ({"resources": '{"cpu": "much"}'}, "no object of numbers"),
        ({"revision": MAX_LEAP * 2}, f"revision {MAX_LEAP * 2} after"),
    ],
)
async def test_a_wrong_report_of_the_agents_own_participant_does_not_put_it_out(
    rig: Rig, warnings: LogRecorder, wrong: dict[str, Any], says: str
) -> None:
    port, _, agent = await rig.port("a")
    _, sink, info = await rig.hub()
    await sink.event("joined", "a")
    own = Forger(rig.options, info.lease_ms, agent)
    await own.until_seen(warnings)
    known = len(sink.named("reported"))
    own.statuses.write(packed(AgentStatus("a", agent.incarnation), **wrong))
    await warnings.message(says)
    port.report(AgentStatus("a", agent.incarnation, active=3))
    await sink.until(lambda: len(sink.named("reported")) > known)
    assert sink.named("reported")[known][3].active == 3
    await own.endpoints.close()


def packed(status: AgentStatus, **wrong: Any) -> bytes:
    members = {
        "incarnation": status.incarnation, "revision": 1_000_000, "slots": 1, "active": 0, "queued": 0,
        "agent_id": status.agent_id, "state": "ready", "detail": "", "resources": "{}", "offers": "", "more": "",
    }  # fmt: skip
    return CODECS["status"].pack(*(members | wrong).values())


# Registrations


async def test_forged_registrations_are_bounded_and_forgotten(
    rig: Rig, forger: Forger, warnings: LogRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcements, "MAX_LIVES_OF_PARTICIPANT", 40)
    checked, sink, info = await rig.hub()
    hub = getattr(checked, "inner", checked)
    assert isinstance(hub, DdsHub)
    for number in range(400):
        name = "one" if number < 100 else f"nobody{number}"
        forger.registrations.write(pack_agent(AgentInfo(name, number + 1), 1000))
    await warnings.message("is ignored")
    await rig.port("a", lambda task, reply: reply.send(Chunk(task.hub_id, task.task_id, 1, 0, final=True)))
    await sink.event("joined", "a")
    checked.send("a", request(info, "t"))
    await sink.final("t")
    assert len(hub._agents) <= 41
    assert sum(name == "one" for name, _ in hub._agents._lives) <= announcements.MAX_LIVES_OF_NAME
    gone, departed = Recorder(), hub._agents._departed

    def note(name: str, incarnation: int, reason: str) -> None:
        departed(name, incarnation, reason)
        gone.add("gone", name)

    monkeypatch.setattr(hub._agents, "_departed", note)
    forger.registrations.delete()
    await gone.until(lambda: len(hub._agents) == 1)
    assert list(hub._links.by_name) == ["a"]
    assert [name for name, _ in hub._links._links] == ["a"]
    assert not sink.named("lost")


async def test_registrations_whose_keys_cannot_be_read_end_without_harm(
    rig: Rig, forger: Forger, warnings: LogRecorder
) -> None:
    """They end together with that of an agent, in one batch."""
    _, sink, _ = await rig.hub()
    for name in (b"\xe1a", b"\xe1b"):
        sample = pack_agent(AgentInfo("xx", 5), 1000)
        forger.registrations.write(sample.replace(b"xx\0", name + b"\0"))
    forger.registrations.write(pack_agent(AgentInfo("a", 1), 1000))
    await warnings.message("an unreadable registration is ignored")
    forger.registrations.delete()
    port, _, _ = await rig.port("b")
    await sink.event("joined", "b")
    await port.close()
    await sink.event("lost", "b")
    assert not warnings.messages("could not be processed")


async def test_a_hello_in_anothers_name_is_ignored(rig: Rig, forger: Forger, warnings: LogRecorder) -> None:
    """From the agent's participant it would say that the agent had lost its hub."""
    _, agent, agent_info = await rig.port("a")
    hub, sink, info = await rig.hub()
    await sink.event("joined", "a")
    await agent.event("hub_joined")
    own = Forger(rig.options, info.lease_ms)
    for end, partition, topic in (
        (forger, ("hub", info.hub_id, info.incarnation), "response"),
        (forger, ("agent", "a", agent_info.incarnation), "request"),
        (forger, ("agent", "a", agent_info.incarnation), "control"),
    ):
        writer = end.endpoints.writer(topic, end.endpoints.partition(partition))  # type: ignore[arg-type]
        if topic == "response":
            writer.write(response_hello(Hello("a", agent_info.incarnation, 2**63, PROTOCOL), 0))
            await warnings.message("in the name of agent a")
        elif topic == "request":
            writer.write(request_hello(Hello(info.hub_id, info.incarnation, 2**63, PROTOCOL), 0))
            await warnings.message(f"in the name of hub {info.hub_id}")
        else:
            writer.write(control_hello(Hello(info.hub_id, info.incarnation, 2**63, PROTOCOL), 0))
    hub.send("a", request(info, "t"))
    await agent.event("task", "t")
    assert not sink.named("lost")
    assert not agent.named("hub_lost")
    # The same from the agent's own participant is what it says of itself.
    writer = own.endpoints.writer("response", own.endpoints.partition(("hub", info.hub_id, info.incarnation)))
    writer.write(response_hello(Hello("a", agent_info.incarnation, 2**63, PROTOCOL), 0))
    await sink.event("lost", "a")
    await own.endpoints.close()


def test_a_hello_that_asks_for_too_much_is_none() -> None:
    for wrong in (
        '{"name": "h", "incarnation": 1, "session": 1, "priorities": [1, 2, 3, 4, 5, 6, 7, 8, 9]}',
        '{"name": "h", "incarnation": 1, "session": 1, "priorities": [0]}',
        '{"name": "h", "incarnation": 1, "session": 1, "deadline_ms": -5}',
        '{"name": "a", "incarnation": 1, "session": 1, "status": {"agent_id": "a", "incarnation": 1, "state": "x"}}',
        "[" * 100_000,
    ):
        assert read_hello(wrong) is None
    assert window("9" * 5000) == 0


# Lives


async def test_of_two_lives_at_once_the_greater_wins(options: dict[str, Any]) -> None:
    transport = DdsTransport(DdsConfig(**options))
    agents: dict[int, RecordingAgentSink] = {}
    ports: dict[int, Any] = {}

    async def live(incarnation: int) -> None:
        agents[incarnation] = RecordingAgentSink(
            lambda task, reply: reply.send(Chunk(task.hub_id, task.task_id, 1, 0, (str(incarnation),), final=True))
        )
        ports[incarnation] = await transport.open_agent(AgentInfo("a", incarnation), "agent", agents[incarnation])
        ports[incarnation].report(AgentStatus("a", incarnation))

    info = HubInfo("h", 1)
    sink = RecordingHubSink()
    hub = await transport.open_hub(info, "agent", sink)
    await live(20)
    await sink.event("joined", "a", 20)
    await live(30)
    await sink.event("joined", "a", 30)
    # The one that is replaced is told so.
    await agents[20].event("hub_lost", "h", 1)
    await live(10)
    hub.send("a", request(info, "t"))
    assert (await sink.final("t")).deltas == ("30",)
    await ports[30].close()
    await sink.until(lambda: len([event for event in sink.events if event[:3] == ("joined", "a", 20)]) == 2)
    assert [event[:3] for event in sink.events if event[0] in ("joined", "lost")] == [
        ("joined", "a", 20), ("lost", "a", 20), ("joined", "a", 30), ("lost", "a", 30), ("joined", "a", 20),
    ]  # fmt: skip
    assert not agents[10].named("hub_joined")
    for port in ports.values():
        await port.close()
    await hub.close()


# When callbacks may come


async def test_no_callback_comes_before_the_opening_has_returned(options: dict[str, Any]) -> None:
    """However it was awaited; what was there already is told afterwards."""
    transport = DdsTransport(DdsConfig(**options))
    early = await transport.open_agent(AgentInfo("a", 1), "agent", RecordingAgentSink())
    early.report(AgentStatus("a", 1))
    opened: list[str] = []

    class Watching(RecordingHubSink):
        def add(self, *event: Any) -> None:
            super().add(*event, tuple(opened))

    sinks = [Watching() for _ in range(3)]

    async def open_one(number: int) -> Hub:
        hub = await transport.open_hub(HubInfo(f"h{number}", 1), "agent", sinks[number])
        opened.append(f"h{number}")
        return hub

    async def through_tasks(number: int) -> Hub:
        (hub,) = await asyncio.gather(
            asyncio.wait_for(transport.open_hub(HubInfo(f"h{number}", 1), "agent", sinks[number]), PATIENCE)
        )
        opened.append(f"h{number}")
        return hub

    hubs = [await open_one(0), await asyncio.create_task(open_one(1)), await through_tasks(2)]
    for number, sink in enumerate(sinks):
        joined = await sink.event("joined", "a")
        assert f"h{number}" in joined[-1]
    for hub in hubs:
        await hub.close()
    await early.close()


async def test_no_callback_comes_after_close_was_called(rig: Rig) -> None:
    """Not even before what it gave back is awaited."""
    replies: list[Reply] = []
    port, agent, _ = await rig.port("a", lambda task, reply: replies.append(reply))
    hub, sink, info = await rig.hub()
    await sink.event("joined", "a")
    hub.send("a", request(info, "t"))
    await agent.event("task", "t")
    for seq in range(100):
        replies[0].send(Chunk(info.hub_id, "t", 1, seq, ("x",)))
    known = len(sink.events)
    closing = getattr(hub, "inner", hub).close()
    await asyncio.sleep(0.2)
    assert len(sink.events) == known
    await closing
    await agent.event("hub_lost", info.hub_id)
    known = len(agent.events)
    closing = getattr(port, "inner", port).close()
    await rig.hub()
    await asyncio.sleep(0.2)
    assert len(agent.events) == known
    await closing
