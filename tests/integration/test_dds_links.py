"""Joining, losing and coming back over DDS, between ends that open and close as they like."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsParticipant

from anywire.messages import AgentInfo, AgentStatus, Chunk, HubInfo, TaskRequest
from anywire.testing.doubles import Script
from anywire.testing.recorder import Recorder, RecordingAgentSink, RecordingHubSink
from anywire.testing.rig import Rig, read, request, submit
from anywire.transport import AgentPort, Hub, Reply
from anywire_dds import DdsConfig, DdsTransport, user_data
from anywire_dds.endpoints import Endpoints


def echo(task: TaskRequest, reply: Reply) -> None:
    reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0, (task.body,), final=True))


@pytest.fixture
def options(dds_domain: int) -> dict[str, Any]:
    return {"domain": dds_domain}


@pytest.fixture
async def rig(options: dict[str, Any]) -> AsyncIterator[Rig]:
    async with Rig("dds", options) as rig:
        yield rig


async def named(recorder: Recorder, name: str, count: int) -> None:
    """Wait for so many events of that name."""
    await recorder.until(lambda: len(recorder.named(name)) >= count, f"{count} times {name}")


class AskingHubSink(RecordingHubSink):
    """Sends a task in the very callback in which an agent joins."""

    def __init__(self, info: HubInfo) -> None:
        super().__init__()
        self.info = info
        self.hub: Hub | None = None

    def agent_joined(self, info: AgentInfo) -> None:
        super().agent_joined(info)
        assert self.hub is not None
        self.hub.send(info.agent_id, request(self.info, f"{info.agent_id}/{info.incarnation}"))


HUBS, AGENTS, HUB_LIVES, AGENT_LIVES, LEAVERS = 3, 6, 4, 6, 6
CHANCE = random.Random(6)


async def hubs_come_and_go(transport: DdsTransport) -> list[AskingHubSink]:
    """Several lives of each hub, each until it has had some answers; the sinks of all, the last lives still open."""
    sinks: list[AskingHubSink] = []

    async def lives(number: int) -> None:
        for life in range(1, HUB_LIVES + 1):
            info = HubInfo(f"hub{number}", life)
            sink = AskingHubSink(info)
            sink.hub = await transport.open_hub(info, "agent", sink)
            sinks.append(sink)
            await named(sink, "chunk", CHANCE.randrange(1, AGENTS))
            if life < HUB_LIVES:
                await sink.hub.close()
                sink.hub = None

    await asyncio.gather(*(lives(number) for number in range(HUBS)))
    return sinks


async def agents_come_and_go(transport: DdsTransport) -> list[AgentPort]:
    """Several lives of each agent, each until it has had a task; the last ones, open."""

    async def lives(number: int) -> AgentPort:
        for life in range(1, AGENT_LIVES + 1):
            info = AgentInfo(f"agent{number}", life)
            sink = RecordingAgentSink(echo)
            port = await transport.open_agent(info, "agent", sink)
            port.report(AgentStatus(info.agent_id, life))
            if life < AGENT_LIVES:
                await named(sink, "task", CHANCE.randrange(1, HUBS))
                await port.close()
        return port

    return await asyncio.gather(*(lives(number) for number in range(AGENTS)))


async def agents_in_this_process(domain: int) -> None:
    ports = await agents_come_and_go(DdsTransport(DdsConfig(domain=domain)))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    await asyncio.gather(*(port.close() for port in ports))


@pytest.mark.parametrize("where", ["one process", "two processes"])
async def test_the_first_task_of_every_join_is_answered_however_often_ends_come_and_go(
    dds_domain: int, where: str
) -> None:
    """A task sent in `agent_joined` and answered in `task_received` arrives, unless its agent is lost again."""
    transport = DdsTransport(DdsConfig(domain=dds_domain))
    ports: list[AgentPort] = []
    if where == "one process":
        sinks, ports = await asyncio.gather(hubs_come_and_go(transport), agents_come_and_go(transport))
    else:
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "churn", str(dds_domain), stdin=asyncio.subprocess.PIPE
        )
        sinks = await hubs_come_and_go(transport)
    last = [sink for sink in sinks if sink.hub is not None]
    assert len(last) == HUBS
    for sink in last:
        for number in range(AGENTS):
            await sink.event("chunk", f"agent{number}/{AGENT_LIVES}")
    for sink in sinks:
        answered = {event[1] for event in sink.named("chunk")}
        joined = {f"{event[1]}/{event[2]}" for event in sink.named("joined")}
        lost = {f"{event[1]}/{event[2]}" for event in sink.named("lost")}
        assert answered <= joined
        assert sink not in last or joined - answered <= lost
        assert not sink.named("send_failed")
    if where == "two processes":
        assert process.stdin is not None
        process.stdin.close()
        assert await process.wait() == 0
    hubs = [sink.hub for sink in last if sink.hub is not None]
    await asyncio.gather(*(port.close() for port in ports), *(hub.close() for hub in hubs))


@pytest.mark.parametrize("agents", [24])
async def test_many_agents_and_hubs_at_once_all_join_and_answer(options: dict[str, Any], agents: int) -> None:
    transport = DdsTransport(DdsConfig(**options))
    opened: list[Any] = []
    sinks = []
    for number in range(agents + 4):
        if number % 7 == 0:
            info = HubInfo(f"hub{number}", 1)
            sink = AskingHubSink(info)
            sink.hub = await transport.open_hub(info, "agent", sink)
            sinks.append(sink)
            opened.append(sink.hub)
        else:
            port = await transport.open_agent(AgentInfo(f"agent{number}", 1), "agent", RecordingAgentSink(echo))
            port.report(AgentStatus(f"agent{number}", 1))
            opened.append(port)
    for sink in sinks:
        await named(sink, "chunk", agents)
        assert not sink.named("lost")
    await asyncio.gather(*(each.close() for each in opened))


@pytest.mark.parametrize("pauses", [3])
async def test_an_agent_paused_again_and_again_comes_back_each_time(rig: Rig, pauses: int) -> None:
    agent = await rig.peer("agent", "a", lease=0.4)
    await agent.event("ready")
    pipeline = await rig.pipeline("a")
    for number in range(pauses):
        agent.pause()
        await rig.seen(pipeline, absent=["a"])
        agent.resume()
        await rig.seen(pipeline, "a")
        assert await read(submit(pipeline, Script(tag=str(number)))) == Script(tag=str(number)).text()


async def test_death_is_noticed_within_the_lease_and_named(rig: Rig) -> None:
    agent, patient = await rig.peer("agent", "a", lease=0.5), await rig.peer("agent", "b", lease=8.0)
    _, sink, _ = await rig.hub()
    for peer, name in ((agent, "a"), (patient, "b")):
        await peer.event("ready")
        await sink.event("joined", name)
    # The one with the long lease dies first and is lost last: the lease counts and not a DDS participant's own 10 s.
    await patient.crash()
    await agent.crash()
    lost = await sink.event("lost", "a")
    assert "lease of 500 ms" in lost[3]
    assert [event[1] for event in sink.named("lost")] == ["a"]


async def test_a_crashed_agents_successor_is_not_mixed_up_with_it(rig: Rig) -> None:
    first = await rig.peer("agent", "a", lease=5.0)
    await first.event("ready")
    hub, sink, info = await rig.hub()
    old = (await sink.event("joined", "a"))[2]
    await first.crash()
    _, _, new = await rig.port("a", echo)
    await sink.event("joined", "a", new.incarnation)
    kinds = [event[:3] for event in sink.events if event[0] in ("joined", "lost")]
    assert kinds == [("joined", "a", old), ("lost", "a", old), ("joined", "a", new.incarnation)]
    hub.send("a", request(info, "t", body="to the new one"))
    assert (await sink.final("t")).deltas == ("to the new one",)


async def test_what_was_sent_before_a_goodbye_arrives_before_it(rig: Rig) -> None:
    """Also when there is more of it than the peer's window lets through at once."""
    answers: list[Reply] = []
    port, agent, _ = await rig.port("a", lambda task, reply: answers.append(reply))
    hub, sink, info = await rig.hub()
    await sink.event("joined", "a")
    hub.send("a", request(info, "t"))
    await agent.event("task", "t")
    for number in range(40):
        answers[0].send(Chunk(info.hub_id, "t", 1, number, ("x" * 100_000,), final=number == 39))
    await port.close()
    await sink.event("lost", "a")
    assert [chunk.seq for chunk in sink.chunks("t")] == list(range(40))
    assert [event[0] for event in sink.events][-1] == "lost"


async def test_ids_with_wildcards_reach_only_their_own(rig: Rig) -> None:
    """DDS matches partitions like file names: an agent named ``*`` must not get everybody's tasks."""
    sinks = {}
    for name in ("*", "a?", "[ab]", "a/b", "ab", "ä"):
        _, sinks[name], _ = await rig.port(name, echo)
    hub, sink, info = await rig.hub("hub*")
    for name in sinks:
        await sink.event("joined", name)
        hub.send(name, request(info, f"for {name}", body=name))
    for name, agent in sinks.items():
        assert (await sink.final(f"for {name}")).deltas == (name,)
        assert [event[1] for event in agent.named("task")] == [f"for {name}"]


async def test_fleets_of_one_domain_are_apart(rig: Rig) -> None:
    await rig.port("a", options={"fleet": "one"})
    await rig.port("b", options={"fleet": "two"})
    _, one, _ = await rig.hub(options={"fleet": "one"})
    _, two, _ = await rig.hub(options={"fleet": "two"})
    await one.event("joined", "a")
    await two.event("joined", "b")
    assert {event[1] for event in (*one.named("joined"), *two.named("joined"))} == {"a", "b"}
    assert len(one.named("joined")) == len(two.named("joined")) == 1


async def test_a_report_before_and_after_joining_is_the_newest(rig: Rig) -> None:
    port, _, info = await rig.port("a")
    for active in (1, 2, 3):
        port.report(AgentStatus("a", info.incarnation, active=active))
    _, sink, _ = await rig.hub()
    await sink.event("joined", "a")
    index = [event[0] for event in sink.events].index("joined")
    assert sink.events[index + 1][0] == "reported"
    assert sink.events[index + 1][3].active == 3
    port.report(AgentStatus("a", info.incarnation, "draining", active=4))
    await sink.until(lambda: sink.named("reported")[-1][3].state == "draining", "the new state")


async def agents_that_answer_and_leave(domain: int) -> None:
    transport = DdsTransport(DdsConfig(domain=domain))
    for number in range(LEAVERS):
        sink = RecordingAgentSink()
        port = await transport.open_agent(AgentInfo(f"agent{number}", 1, lease_ms=60_000), "agent", sink)
        port.report(AgentStatus(f"agent{number}", 1))
        _, task_id, attempt, task, reply, *_ = await sink.event("task")
        for seq in range(10):
            reply.send(Chunk(task.hub_id, task_id, attempt, seq, final=seq == 9))
        await port.close()
        print("closed", flush=True)


async def test_an_answer_is_told_before_its_agents_goodbye(dds_domain: int) -> None:
    """Also when a busy hub finds both at once: they are on different topics."""
    with subprocess.Popen([sys.executable, __file__, "leave", str(dds_domain)], stdout=subprocess.PIPE) as process:  # noqa: ASYNC220

        class BusySink(AskingHubSink):
            def agent_joined(self, info: AgentInfo) -> None:
                super().agent_joined(info)
                asyncio.get_running_loop().call_soon(self.stand_still)

            def stand_still(self) -> None:
                assert process.stdout is not None
                assert process.stdout.readline() == b"closed\n"  # answer and goodbye are both there now

        info = HubInfo("hub", 1, lease_ms=60_000)
        sink = BusySink(info)
        sink.hub = await DdsTransport(DdsConfig(domain=dds_domain)).open_hub(info, "agent", sink)
        for number in range(LEAVERS):
            await sink.event("lost", f"agent{number}")
            assert [chunk.seq for chunk in sink.chunks(f"agent{number}/1")] == list(range(10))
        await sink.hub.close()


async def hubs_that_ask_and_leave(domain: int) -> None:
    transport = DdsTransport(DdsConfig(domain=domain))
    for number in range(LEAVERS):
        info, sink = HubInfo(f"hub{number}", 1, lease_ms=60_000), RecordingHubSink()
        hub = await transport.open_hub(info, "agent", sink)
        await sink.event("joined", "agent")
        for task in range(10):
            hub.send("agent", request(info, f"{info.hub_id}/{task}"))
        await hub.close()
        print("closed", flush=True)


async def test_a_task_is_given_before_its_hubs_goodbye(dds_domain: int) -> None:
    """Also when a busy agent finds both at once: they are on different topics."""
    with subprocess.Popen([sys.executable, __file__, "ask", str(dds_domain)], stdout=subprocess.PIPE) as process:  # noqa: ASYNC220

        class BusySink(RecordingAgentSink):
            def hub_joined(self, info: HubInfo) -> None:
                super().hub_joined(info)
                asyncio.get_running_loop().call_soon(self.stand_still)

            def stand_still(self) -> None:
                assert process.stdout is not None
                assert process.stdout.readline() == b"closed\n"  # tasks and goodbye are both there now

        sink = BusySink()
        port = await DdsTransport(DdsConfig(domain=dds_domain)).open_agent(
            AgentInfo("agent", 1, lease_ms=60_000), "agent", sink
        )
        port.report(AgentStatus("agent", 1))
        for number in range(LEAVERS):
            await sink.event("hub_lost", f"hub{number}")
        for number in range(LEAVERS):
            named = [event for event in sink.events if str(event[1]).startswith(f"hub{number}")]
            assert [event[0] for event in named] == ["hub_joined", *["task"] * 10, "hub_lost"]
        await port.close()


if __name__ == "__main__":
    mode, argument = sys.argv[1:]
    modes = {
        "churn": agents_in_this_process,
        "leave": agents_that_answer_and_leave,
        "ask": hubs_that_ask_and_leave,
    }
    asyncio.run(modes[mode](int(argument)))


# Loss in one direction


async def test_who_says_that_it_does_not_hear_this_end_loses_its_link_and_hears_from_it_again(
    dds_domain: int,
) -> None:
    """By its own lease the agent would announce itself after minutes."""
    config, mine = DdsConfig(domain=dds_domain), Recorder()
    hub_end, sink = Endpoints(config, "agent", 400), RecordingAgentSink()
    port = await DdsTransport(config).open_agent(AgentInfo("a", 1, lease_ms=300_000), "agent", sink)
    port.report(AgentStatus("a", 1))
    hub_sink = RecordingHubSink()
    hub = await DdsTransport(config).open_hub(HubInfo("h", 1, lease_ms=400), "agent", hub_sink)
    await sink.event("hub_joined", "h")
    participants = BuiltinDataReader(hub_end._participant, BuiltinTopicDcpsParticipant)

    def read() -> None:
        for sample in participants.take(100):
            if calls := user_data.entry(sample.qos, user_data.CALLS):
                mine.add("call", str(sample.key), int(calls))

    hub_end._wakeup.watch(participants._ref, read)
    agents = str(port.endpoints._participant.guid)  # type: ignore[attr-defined]
    # The hub's participant is the one of ``hub_end``, because it has the same lease.
    hub_end.unheard.lost(agents)
    assert "does not hear this end" in (await sink.event("hub_lost", "h"))[-1]
    await mine.until(lambda: len(mine.events) >= 3, "the agent announces itself again and again")
    assert {event[1] for event in mine.events} == {agents}
    hub_end.unheard.found(agents)
    await sink.until(lambda: len(sink.named("hub_joined")) == 2)
    for end in (port, hub):
        await end.close()
    participants.__del__()
    await hub_end.close()
