"""The optional QoS of the DDS transport: each does what it says, and without it that does not happen."""

from __future__ import annotations

import asyncio
import itertools
import resource
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from cyclonedds.core import Policy
from tests.patience import FACTOR

from anywire.errors import AgentLost, Refused
from anywire.messages import (
    AgentInfo,
    AgentStatus,
    Cancel,
    Chunk,
    Command,
    CommandResult,
    Credit,
    HubInfo,
    Progress,
    TaskRequest,
)
from anywire.testing.doubles import Script
from anywire.testing.recorder import PATIENCE, Recorder, RecordingAgentSink, RecordingHubSink
from anywire.testing.rig import Rig, read, request, submit
from anywire.transport import Hub, Reply
from anywire_dds import DdsConfig, DdsTransport
from anywire_dds.deadline import Stream, Streams
from anywire_dds.endpoints import Endpoints
from anywire_dds.outbox import WINDOW, WINDOW_MESSAGES

DEADLINE = 1.0


@pytest.fixture
async def rig(dds_domain: int) -> AsyncIterator[Rig]:
    async with Rig("dds", {"domain": dds_domain}) as rig:
        yield rig


def piece(task: TaskRequest, seq: int, *, final: bool = False) -> Chunk:
    return Chunk(task.hub_id, task.task_id, task.attempt, seq, ("x",), final=final)


class Streaming:
    """A hub with a deadline, an agent beside it, and the streams between them that a test keeps going."""

    def __init__(self, hub: Hub, sink: RecordingHubSink, agent: RecordingAgentSink, info: HubInfo) -> None:
        self.hub, self.sink, self.agent, self.info = hub, sink, agent, info
        self._open: dict[str, tuple[TaskRequest, Reply]] = {}
        self._seqs: dict[str, int] = {}

    @classmethod
    async def open(cls, rig: Rig, **options: Any) -> Streaming:
        _, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub(options={"deadline": DEADLINE} | options)
        await sink.event("joined", "a")
        return cls(hub, sink, agent, info)

    async def begin(self, task_id: str, credit: int = 1_000_000) -> None:
        """Send a task, and its first chunk back."""
        self.hub.send("a", TaskRequest(self.info.hub_id, task_id, 1, "chat", "m", "{}", True, credit=credit))
        _, _, _, task, reply, *_ = await self.agent.event("task", task_id)
        self._open[task_id] = task, reply
        self.next(task_id)
        await self.sink.event("chunk", task_id)

    def next(self, task_id: str, *, final: bool = False) -> None:
        task, reply = self._open[task_id]
        seq = self._seqs.get(task_id, 0)
        self._seqs[task_id] = seq + 1
        reply.send(piece(task, seq, final=final))

    async def flow_until(self, condition: Callable[[], Any], *task_ids: str) -> None:
        """Keep these going, at a sixth of the deadline, until something happens."""

        async def flow() -> None:
            while True:
                for task_id in task_ids:
                    self.next(task_id)
                await asyncio.sleep(DEADLINE / 6)

        flowing = asyncio.create_task(flow())
        try:
            await self.sink.until(condition)
        finally:
            flowing.cancel()

    def failed(self) -> list[str]:
        return [event[1] for event in self.sink.named("send_failed")]


# Deadline


async def test_the_one_stream_that_stalls_is_reported_while_others_flow_on_the_same_writer(rig: Rig) -> None:
    streaming = await Streaming.open(rig)
    for name in ("stalls", "flows", "flows too"):
        await streaming.begin(name)
    await streaming.flow_until(streaming.failed, "flows", "flows too")
    (_, task_id, attempt, error) = streaming.sink.named("send_failed")[0]
    assert (task_id, attempt) == ("stalls", 1)
    assert isinstance(error, AgentLost)
    assert error.phase == "streaming"
    assert "nothing of the stream for 1 s" in str(error)
    # What follows is the owner's decision: nothing is cancelled here, and what comes late is handed on.
    for name in ("flows", "flows too", "stalls"):
        streaming.next(name, final=True)
        await streaming.sink.final(name)
    assert streaming.failed() == ["stalls"]
    assert not streaming.agent.named("cancel")


@pytest.mark.parametrize("first", ["hub", "agent"])
async def test_a_hub_with_a_deadline_is_joined_whoever_comes_first(rig: Rig, first: str) -> None:
    options = {"deadline": DEADLINE}
    if first == "hub":
        _, sink, _ = await rig.hub(options=options)
    for name in ("a", "b"):
        await rig.port(name)
    if first == "agent":
        _, sink, _ = await rig.hub(options=options)
    for name in ("a", "b"):
        await sink.event("joined", name)


async def test_without_the_option_no_stream_is_reported(rig: Rig) -> None:
    streaming = await Streaming.open(rig, deadline=None)
    await streaming.begin("stalls")
    await streaming.begin("flows")
    began = time.monotonic()
    await streaming.flow_until(lambda: time.monotonic() > began + 3 * DEADLINE, "flows")
    assert not streaming.failed()
    streaming.next("stalls", final=True)
    await streaming.sink.final("stalls")


async def test_several_streams_that_stall_at_once_are_all_reported(rig: Rig) -> None:
    streaming = await Streaming.open(rig)
    names = [f"t{number}" for number in range(20)]
    for name in names:
        await streaming.begin(name)
    await streaming.sink.until(lambda: len(streaming.failed()) == len(names))
    assert sorted(streaming.failed()) == sorted(names)


async def test_a_stream_that_waits_for_its_reader_is_not_stalled(rig: Rig) -> None:
    streaming = await Streaming.open(rig)
    await streaming.begin("slow reader", credit=1)
    await streaming.begin("stalls")
    await streaming.sink.event("send_failed", "stalls")
    assert streaming.failed() == ["stalls"]
    streaming.hub.send("a", Credit(streaming.info.hub_id, "slow reader", 1, 4))
    await streaming.agent.event("credit", "slow reader")
    await streaming.sink.event("send_failed", "slow reader")


async def test_a_stream_that_has_not_begun_is_not_stalled(rig: Rig) -> None:
    streaming = await Streaming.open(rig)
    streaming.hub.send("a", request(streaming.info, "thinks"))
    await streaming.agent.event("task", "thinks")
    await streaming.begin("stalls")
    await streaming.sink.event("send_failed", "stalls")
    assert streaming.failed() == ["stalls"]


@pytest.mark.parametrize("end", ["final", "cancel"])
async def test_a_stream_that_has_ended_raises_no_alarm(rig: Rig, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    alarms: list[Streams] = []
    stalled = Streams.take_stalled

    def alarmed(streams: Streams) -> Iterator[Stream]:
        alarms.append(streams)
        return stalled(streams)

    monkeypatch.setattr(Streams, "take_stalled", alarmed)
    streaming = await Streaming.open(rig)
    for number in range(5):
        await streaming.begin(f"t{number}")
        if end == "final":
            streaming.next(f"t{number}", final=True)
            await streaming.sink.final(f"t{number}")
        else:
            streaming.hub.send("a", Cancel(streaming.info.hub_id, f"t{number}", 1))
            await streaming.agent.event("cancel", f"t{number}")
            streaming.next(f"t{number}", final=True)
            await streaming.sink.final(f"t{number}")
    await streaming.begin("last")
    began = time.monotonic()
    await streaming.flow_until(lambda: time.monotonic() > began + 2 * DEADLINE, "last")
    assert not alarms
    await streaming.sink.event("send_failed", "last")
    assert alarms


async def test_thousands_of_streams_leave_nothing_behind(rig: Rig) -> None:
    """An instance of a stream that nobody ended would stay on both ends: 2 KB and more each."""

    def three(task: TaskRequest, reply: Reply) -> None:
        for seq in range(3):
            reply.send(piece(task, seq, final=seq == 2))

    # Bare ends: what the kit remembers of each task, to judge it, is memory too.
    agent, sink = RecordingAgentSink(three), RecordingHubSink()
    opened = DdsTransport(DdsConfig(**rig.options, deadline=60.0))
    port = await opened.open_agent(AgentInfo("a", 1), "agent", agent)
    port.report(AgentStatus("a", 1))
    info = HubInfo("h", 1)
    hub = await opened.open_hub(info, "agent", sink)
    await sink.event("joined", "a")

    async def run(first: int, tasks: int) -> int:
        for number in range(first, first + tasks, 100):
            for each in range(number, number + 100):
                hub.send("a", request(info, f"t{each:06}"))
            await sink.final(f"t{number + 99:06}")
            sink.events.clear()
            agent.events.clear()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = await run(0, 2000)
    after = await run(2000, 8000)
    assert after - before < 4000, f"{after - before} KB more after 8000 streams"
    await hub.close()
    await port.close()


async def test_an_acceptance_is_no_token(rig: Rig) -> None:
    """It comes in order before the tokens; a stream of which nothing else has come has not begun."""
    streaming = await Streaming.open(rig)
    hub_id = streaming.info.hub_id
    for name in ("thinks", "whole"):
        streaming.hub.send("a", TaskRequest(hub_id, name, 1, "chat", "m", "{}", name == "thinks", credit=3))
        _, _, _, task, reply, *_ = await streaming.agent.event("task", name)
        reply.send(Chunk(hub_id, name, 1, 0))
        await streaming.sink.event("chunk", name)
        if name == "thinks":
            thinking = task, reply
        else:
            reply.send(piece(task, 0, final=True))
            await streaming.sink.final(name)
    await streaming.begin("stalls")
    await streaming.sink.event("send_failed", "stalls")
    assert streaming.failed() == ["stalls"]
    task, reply = thinking
    for seq in range(3):
        reply.send(piece(task, seq, final=seq == 2))
    await streaming.sink.final("thinks")
    assert [(chunk.seq, chunk.deltas) for chunk in streaming.sink.chunks("thinks")] == [
        (0, ()), (0, ("x",)), (1, ("x",)), (2, ("x",)),
    ]  # fmt: skip


async def test_a_paused_agents_stream_is_reported_long_before_its_lease_is_over(rig: Rig) -> None:
    agent = await rig.peer("agent", "a", lease=60.0)
    await agent.event("ready")
    hub, sink, info = await rig.hub(options={"deadline": DEADLINE})
    await sink.event("joined", "a")
    body = Script(tag="long", chunks=1_000_000).body()
    hub.send("a", TaskRequest(info.hub_id, "long", 1, "chat", "scripted", body, True, credit=1_000_000))
    await sink.event("chunk", "long")
    agent.pause()
    _, _, _, error, *_ = await sink.event("send_failed", "long", 1)
    assert "nothing of the stream" in str(error)
    hub.send("a", Cancel(info.hub_id, "long", 1))
    agent.resume()
    await agent.event("cancelled", "long")
    assert not sink.named("lost")


async def test_a_hub_that_stood_still_takes_no_stream_for_stalled(rig: Rig) -> None:
    """What has come meanwhile waits to be read, and the time in which nobody read does not count."""
    agent = await rig.peer("agent", "a", lease=60.0)
    await agent.event("ready")
    hub, sink, info = await rig.hub(options={"deadline": DEADLINE})
    await sink.event("joined", "a")
    body = Script(tag="holds", chunks=9, hold_after=1).body()
    hub.send("a", TaskRequest(info.hub_id, "holds", 1, "chat", "scripted", body, True, credit=9))
    await sink.event("chunk", "holds")
    before = len(sink.events)
    time.sleep(3 * DEADLINE)  # noqa: ASYNC251 (the hub is late: that is what is tested)
    await asyncio.sleep(DEADLINE / 3)  # DDS has raised its alarm: nothing else is to happen
    assert not [event for event in sink.events[before:] if event[0] != "reported"]
    await sink.event("send_failed", "holds", 1)


# Lifespan


async def paused(rig: Rig, lifespan: float | None) -> tuple[Any, Hub, RecordingHubSink, HubInfo]:
    agent = await rig.peer("agent", "a", lease=60.0)
    await agent.event("ready")
    hub, sink, info = await rig.hub(options={"lifespan": lifespan})
    await sink.event("joined", "a")
    agent.pause()
    return agent, hub, sink, info


@pytest.mark.parametrize("lifespan", [0.2, None])
async def test_a_request_that_outlived_its_lifespan_is_never_begun(rig: Rig, lifespan: float | None) -> None:
    agent, hub, sink, info = await paused(rig, lifespan)
    hub.send("a", request(info, "old", body=Script(tag="old").body()))
    if lifespan is None:
        agent.resume()
        await sink.final("old")
    else:
        _, _, _, error, *_ = await sink.event("send_failed", "old", 1)
        assert isinstance(error, Refused)
        assert "did not take the request within 0.2 s" in str(error)
        agent.resume()
    hub.send("a", request(info, "new", body=Script(tag="new").body()))
    await agent.event("finished", "new")
    started = [event[1] for event in agent.named("started")]
    if lifespan is None:
        assert started == ["old", "new"]
    else:
        assert started == ["new"]
        assert not sink.chunks("old")


async def test_a_request_whose_own_time_is_shorter_than_the_lifespan_is_not_begun_after_it(rig: Rig) -> None:
    agent, hub, _, info = await paused(rig, 3600.0)
    old = TaskRequest(
        info.hub_id, "old", 1, "chat", "scripted", Script(tag="old").body(), True, time_left_ms=200, credit=8
    )
    hub.send("a", old)
    await asyncio.sleep(0.5)
    agent.resume()
    hub.send("a", request(info, "new", body=Script(tag="new").body()))
    await agent.event("finished", "new")
    assert [event[1] for event in agent.named("started")] == ["new"]


async def test_requests_that_expired_in_the_readers_cache_leave_room_for_others(rig: Rig) -> None:
    """DDS drops them there without notice to either end: their place in the window comes back."""
    _, agent, _ = await rig.port("a")
    # The new one has to arrive within it.
    lifespan = 2.0 * FACTOR
    hub, sink, info = await rig.hub(options={"lifespan": lifespan})
    await sink.event("joined", "a")
    old = [f"old{number}" for number in range(WINDOW_MESSAGES)]
    for name in old:
        hub.send("a", request(info, name))
    time.sleep(1.25 * lifespan)  # noqa: ASYNC251 (nobody reads meanwhile: that is what is tested)
    await sink.until(lambda: len(sink.named("send_failed")) == len(old))
    hub.send("a", request(info, "new"))
    await agent.event("task", "new")
    assert [event[1] for event in agent.named("task")] == ["new"]
    assert [event[1] for event in sink.named("send_failed")] == old


async def test_requests_that_expired_before_they_were_written_never_are(rig: Rig) -> None:
    agent, hub, sink, info = await paused(rig, 0.3)
    size = WINDOW // 2
    old = [f"old{number}" for number in range(6)]
    for name in old:
        hub.send("a", request(info, name, body=Script(tag=name, filler="x" * size).body()))
    await sink.until(lambda: len(sink.named("send_failed")) == len(old))
    agent.resume()
    hub.send("a", request(info, "new", body=Script(tag="new").body()))
    await agent.event("finished", "new")
    assert [event[1] for event in agent.named("started")] == ["new"]
    assert not sink.named("chunk") or {event[1] for event in sink.named("chunk")} == {"new"}


async def test_a_hub_that_stood_still_takes_no_request_for_expired(rig: Rig) -> None:
    """The agent has confirmed it meanwhile."""
    agent = await rig.peer("agent", "a", lease=60.0)
    await agent.event("ready")
    hub, sink, info = await rig.hub(options={"lifespan": 0.4})
    await sink.event("joined", "a")
    for number in range(3):
        hub.send("a", request(info, f"t{number}", body=Script(tag=f"t{number}", hold_after=0).body()))
        time.sleep(1.5)  # noqa: ASYNC251 (the hub is late: that is what is tested)
        await agent.event("holding", f"t{number}")
    assert not sink.named("send_failed")


async def test_a_task_whose_request_expired_goes_to_another_agent(rig: Rig) -> None:
    rig.options["lifespan"] = 0.3
    agent = await rig.peer("agent", "paused", lease=60.0, slots=64)
    await agent.event("ready")
    _, engine = await rig.agent("other", slots=1)
    pipeline = await rig.pipeline("paused", "other")
    agent.pause()
    streams = [submit(pipeline, Script(tag=f"t{number}", chunks=3)) for number in range(8)]
    for number, stream in enumerate(streams):
        assert await asyncio.wait_for(read(stream), PATIENCE) == Script(tag=f"t{number}", chunks=3).text()
    assert len(engine.named("finished")) == 8
    agent.resume()


async def test_a_command_that_outlived_the_lifespan_is_never_begun(rig: Rig) -> None:
    """Its caller is told; one that was taken is confirmed like a request."""
    rig.options["lifespan"] = 0.3
    agent = await rig.peer("agent", "a", lease=60.0)
    await agent.event("ready")
    pipeline = await rig.pipeline("a")
    agent.pause()
    with pytest.raises(Refused, match=r"did not take the request within 0\.3 s"):
        await asyncio.wait_for(anext(pipeline.command(["a"], "load")), PATIENCE)
    agent.resume()
    assert await asyncio.wait_for(anext(pipeline.command(["a"], "drain")), PATIENCE) is None


async def test_results_and_progress_go_beside_a_stream_with_a_deadline(rig: Rig) -> None:
    def answer(command: Command, reply: Reply) -> None:
        for seq in range(100):
            reply.send(CommandResult(command.hub_id, command.id, seq, str(seq), seq == 99))

    transport = rig.new_transport()
    agent = RecordingAgentSink(None, answer)
    port = await transport.open_agent(AgentInfo("a", 1), "agent", agent)
    port.report(AgentStatus("a", 1))
    hub, sink, info = await rig.hub(options={"deadline": DEADLINE, "priorities": [10]})
    await sink.event("joined", "a")
    hub.send("a", TaskRequest(info.hub_id, "t", 1, "chat", "m", "{}", True, priority=10, credit=9, progress=True))
    _, _, _, task, reply, *_ = await agent.event("task", "t")
    for seq in range(3):
        reply.send(Progress(info.hub_id, "t", 1, "tool", str(seq)))
        reply.send(piece(task, seq, final=seq == 2))
    hub.send("a", Command(info.hub_id, "c", "count"))
    assert (await sink.final_result("c")).seq == 99
    assert [each.data for each in sink.results("c")] == [str(seq) for seq in range(100)]
    await sink.final("t")
    assert [chunk.seq for chunk in sink.chunks("t")] == [0, 1, 2]
    assert [event[3].detail for event in sink.named("progress")] == ["0", "1", "2"]
    assert not sink.named("send_failed")
    await port.close()


# Priorities


@pytest.mark.parametrize("priorities", [[10, 100], []], ids=["with", "without"])
async def test_a_task_with_priority_overtakes_those_that_wait(rig: Rig, priorities: list[int]) -> None:
    options = {"priorities": priorities}
    replies: list[tuple[TaskRequest, Reply]] = []
    _, agent, _ = await rig.port("a", lambda task, reply: replies.append((task, reply)))
    hub, sink, info = await rig.hub(options=options)
    await sink.event("joined", "a")
    crowd = WINDOW_MESSAGES + 1000
    for number in range(crowd):
        hub.send("a", request(info, f"low{number}"))
    for name, priority in (("middle", 50), ("high", 100), ("as low as others", 9)):
        hub.send("a", TaskRequest(info.hub_id, name, 1, "chat", "m", "{}", priority=priority))
    await agent.until(lambda: len(agent.named("task")) == crowd + 3)
    order = [event[1] for event in agent.named("task")]
    if not priorities:
        assert order[-3:] == ["middle", "high", "as low as others"]
        return
    assert order.index("high") < order.index("middle") < order.index(f"low{crowd - 1}")
    assert order[-1] == "as low as others"
    assert [each for each in order if each.startswith("low")] == [f"low{number}" for number in range(crowd)]
    # And on the way back: of chunks that wait, those of the task with priority go first.
    by_name = {task.task_id: (task, reply) for task, reply in replies}
    task, reply = by_name["low0"]
    for seq in range(crowd):
        reply.send(piece(task, seq))
    task, reply = by_name["high"]
    reply.send(piece(task, 0, final=True))
    await sink.until(lambda: len(sink.named("chunk")) == crowd + 1)
    arrived = [event[1] for event in sink.named("chunk")]
    assert arrived.index("high") < crowd
    assert [chunk.seq for chunk in sink.chunks("low0")] == list(range(crowd))


async def test_priorities_and_deadline_go_together(rig: Rig) -> None:
    streaming = await Streaming.open(rig, priorities=[10])
    high = TaskRequest(streaming.info.hub_id, "high", 1, "chat", "m", "{}", True, priority=10, credit=100)
    streaming.hub.send("a", high)
    _, _, _, task, reply, *_ = await streaming.agent.event("task", "high")
    for seq in range(100):
        reply.send(piece(task, seq, final=seq == 99))
    await streaming.sink.final("high")
    assert [chunk.seq for chunk in streaming.sink.chunks("high")] == list(range(100))
    streaming.hub.send(
        "a", TaskRequest(streaming.info.hub_id, "stalls", 1, "chat", "m", "{}", True, priority=10, credit=9)
    )
    _, _, _, task, reply, *_ = await streaming.agent.event("task", "stalls")
    reply.send(piece(task, 0))
    await streaming.sink.event("send_failed", "stalls")


async def test_the_transport_priority_is_in_the_qos_that_others_see(rig: Rig) -> None:
    hub_transport, agent_transport = rig.new_transport(priorities=[7]), rig.new_transport()
    agent, sink = RecordingAgentSink(), RecordingHubSink()
    port = await agent_transport.open_agent(AgentInfo("a", 1), "agent", agent)
    port.report(AgentStatus("a", 1))
    hub = await hub_transport.open_hub(HubInfo("h", 1), "agent", sink)
    await sink.event("joined", "a")
    settings = dict(hub_transport.effective_settings()), dict(agent_transport.effective_settings())
    matched = port.endpoints._readers["request"]
    offered = {
        matched.get_matched_publication_data(each).qos[Policy.TransportPriority].priority
        for each in matched.get_matched_publications()
    }
    await hub.close()
    await port.close()
    assert offered == {0, 7}
    assert "TransportPriority 7" in settings[0]["agent/request writer, priority 7"]
    assert "TransportPriority 7" in settings[1]["agent/response writer, priority 7"]


# Latency budget


async def budgeted(rig: Rig, budget: float) -> AsyncGenerator[float, None]:
    """Seconds that thirty chunks take which an agent sends at once, again and again."""
    rig.options["latency_budget"] = budget
    agent = await rig.peer("agent", "a", lease=10.0)
    await agent.event("ready")
    pipeline = await rig.pipeline("a")
    await read(submit(pipeline, Script(tag="first")))
    for number in itertools.count():
        began = time.monotonic()
        stream = submit(pipeline, Script(tag=f"t{number}", chunks=40, hold_after=30))
        arrivals = [time.monotonic() async for _ in take(stream, 30)]
        stream.cancel("seen enough")
        yield arrivals[-1] - began


async def test_with_a_latency_budget_chunks_wait(rig: Rig) -> None:
    async with aclosing(budgeted(rig, 0.5)) as tries:
        assert await anext(tries) > 0.45


async def test_without_a_latency_budget_chunks_do_not_wait(rig: Rig) -> None:
    async with aclosing(budgeted(rig, 0.0)) as tries:
        while await anext(tries) > 0.45:  # as long as the machine does other things
            pass


async def take(stream: Any, texts: int) -> AsyncIterator[str]:
    seen = 0
    async for chunk in stream:
        for text in chunk.deltas:
            seen += 1
            yield text
        if seen >= texts:
            return


# Time-based filter, which a file of QoS may ask for where reports are read


async def test_a_reader_with_a_time_based_filter_gets_fewer_reports(rig: Rig) -> None:
    port, _, info = await rig.port("a")
    config = DdsConfig(**rig.options)
    watching = Endpoints(config, "agent", 1000)
    seen: dict[str, int] = {"all": 0, "some": 0}
    recorder = Recorder()

    def reading(name: str, *policies: Any) -> None:
        def arrived() -> None:
            for _, sample in taken():
                seen[name] += sample.valid_data
            recorder.add(name)

        taken = watching.read("status", watching.partition(), arrived, *policies)

    reading("all")
    reading("some", Policy.TimeBasedFilter(200_000_000))
    began = time.monotonic()
    for active in range(60):
        port.report(AgentStatus("a", info.incarnation, active=active))
        await asyncio.sleep(0.01)
    await recorder.until(lambda: seen["all"] >= 60)
    elapsed = time.monotonic() - began
    await watching.close()
    assert 1 <= seen["some"] <= elapsed / 0.2 + 1


def test_options_are_off_unless_named() -> None:
    config = DdsConfig()
    assert (config.deadline, config.lifespan, config.priorities, config.latency_budget) == (None, None, [], 0.0)
