"""Ends of other versions over DDS: told by name at both ends, and not linked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.pub import DataWriter, Publisher
from cyclonedds.sub import DataReader, Subscriber
from cyclonedds.topic import Topic
from tests.integration import dds_types_before as before

from anywire.messages import AgentInfo, AgentStatus, Chunk, HubInfo, TaskRequest
from anywire.protocol import PROTOCOL, protocol_mismatch
from anywire.testing.log_recorder import LogRecorder
from anywire.testing.recorder import RecordingAgentSink, RecordingHubSink
from anywire.testing.rig import Rig, request
from anywire.transport import Reply
from anywire_dds import DdsConfig, DdsTransport, qos, wire
from anywire_dds.agent_port import DdsAgentPort
from anywire_dds.domain import acquire, release
from anywire_dds.endpoints import Endpoints
from anywire_dds.hello import Hello, response_hello
from anywire_dds.hub import DdsHub
from anywire_dds.presence import pack_agent
from anywire_dds.user_data import LIFE, entry, life, of_participant, of_reports
from anywire_dds.user_data import PROTOCOL as VERSION


@pytest.fixture
def options(dds_domain: int) -> dict[str, Any]:
    return {"domain": dds_domain, "fleet": "default"}


@pytest.fixture
async def rig(options: dict[str, Any]) -> AsyncIterator[Rig]:
    async with Rig("dds", options) as rig:
        yield rig


@pytest.fixture
async def warnings() -> AsyncIterator[LogRecorder]:
    with LogRecorder() as warnings:
        yield warnings


# Planted versions


def test_an_entry_is_found_in_user_data_whatever_else_is_there() -> None:
    assert entry(Qos(of_participant("2.7")), VERSION) == "2.7"
    assert entry(Qos(Policy.Userdata(b"zone=b;anywire.protocol=2.7;later=1")), VERSION) == "2.7"
    for nothing in (b"", b"\xff\x00", b"anywire.protocol", b"not.anywire.protocol=2.7;"):
        assert entry(Qos(Policy.Userdata(nothing)), VERSION) == ""
    assert entry(Qos(), VERSION) == ""


def test_the_life_that_a_writer_reports_of_is_found_whatever_its_name() -> None:
    for name in ("a", "a/b;c=d", "\x00 \x1b漢字%", "x" * 5000):
        assert life(entry(Qos(of_reports(name, 2**62)), LIFE)) == (name, 2**62)
    for nothing in ("", "a", "a/", "/1", "a/x", "a/-1", "a/" + "9" * 5000):
        assert life(nothing) is None


async def test_both_ends_of_two_major_versions_name_them_and_do_not_join(
    options: dict[str, Any], rig: Rig, warnings: LogRecorder
) -> None:
    _, agent, _ = await rig.port("agent-of-now")
    transport, sink = DdsTransport(DdsConfig(**options)), RecordingHubSink()
    later = await transport.open_hub(HubInfo("hub-of-later", 1, protocol="3.0"), "agent", sink)
    assert protocol_mismatch("3.0") in await warnings.message("hub hub-of-later is refused")
    assert protocol_mismatch(PROTOCOL, "3.0") in await warnings.message("agent agent-of-now is refused")
    assert transport.findings() == [
        (
            "agent agent-of-now is not linked: it speaks protocol version 2.1, this end 3.0",
            "use one version of anywire on both",
        )
    ]
    # Others join meanwhile, and both ends say it once.
    _, other, _ = await rig.hub("hub-of-now")
    await other.event("joined", "agent-of-now")
    await agent.event("hub_joined", "hub-of-now")
    assert len(warnings.messages("is refused")) == 2
    assert not sink.events
    assert not agent.named("hub_joined")[1:]
    await later.close()


async def test_an_end_that_was_refused_and_leaves_is_forgotten(
    options: dict[str, Any], rig: Rig, warnings: LogRecorder
) -> None:
    transport, sink = DdsTransport(DdsConfig(**options)), RecordingAgentSink()
    later = await transport.open_agent(AgentInfo("later", 5, protocol="3.0"), "agent", sink)
    later.report(AgentStatus("later", 5))
    hub, told, _ = await rig.hub()
    await warnings.message("agent later is refused")
    await later.close()
    # The same id, of a lesser incarnation and of a version that goes with the hub's.
    await rig.port("later", incarnation=4)
    joined = await told.event("joined", "later")
    assert joined[2] == 4
    opened = getattr(hub, "inner", hub)
    assert isinstance(opened, DdsHub)
    assert opened.findings() == []


async def test_neighbouring_minor_versions_join_and_tell_them(options: dict[str, Any]) -> None:
    transport = DdsTransport(DdsConfig(**options))
    agent, sink = RecordingAgentSink(), RecordingHubSink()
    port = await transport.open_agent(AgentInfo("a", 1, protocol="2.1"), "agent", agent)
    port.report(AgentStatus("a", 1))
    hub = await transport.open_hub(HubInfo("h", 1), "agent", sink)
    joined = await sink.event("joined", "a")
    assert joined[3].protocol == "2.1"
    await agent.event("hub_joined", "h")
    await hub.close()
    await port.close()


async def test_a_hello_of_another_version_ends_what_its_user_data_began(rig: Rig, warnings: LogRecorder) -> None:
    """One participant may have ends of several programs' versions."""
    _, sink, info = await rig.hub()
    endpoints = Endpoints(DdsConfig(**rig.options), "agent", 5555)
    hellos = endpoints.writer("response", endpoints.partition(("hub", info.hub_id, info.incarnation)))

    def answer() -> None:
        for _ in take():
            for protocol in ("3.0", PROTOCOL):  # nothing that it says later makes up for it
                hellos.write(response_hello(Hello("a", 7, 2**62, protocol, AgentStatus("a", 7), 1), 0))

    take = endpoints.read("request", endpoints.partition(("agent", "a", 7)), answer)
    endpoints.writer("register", endpoints.partition()).write(pack_agent(AgentInfo("a", 7), 1000))
    await warnings.message("agent a is refused")
    await rig.port("b")
    await sink.event("joined", "b")
    assert not [event for event in sink.events if "a" in event]
    await endpoints.close()


async def test_what_a_later_minor_version_adds_is_passed_over(options: dict[str, Any]) -> None:
    """Frames and members that this version does not know; the window counts them."""

    def answer(task: TaskRequest, reply: Reply) -> None:
        assert isinstance(port, DdsAgentPort)
        link = port._links.by_name["h"]
        chunk = Chunk("h", "t", 1, 0, ("first",))
        known = list(wire.unpack_response(wire.pack_from_agent(link.session.peer, chunk, 10**6)))
        strange = list(known)
        strange[wire.RESPONSE_FRAME] = 99
        link.responses.send(wire._RESPONSE(*strange), "t", 1)
        known[-2] = '{"of_later": 1}'
        link.responses.send(wire._RESPONSE(*known), "t", 1)
        reply.send(Chunk("h", "t", 1, 1, final=True))

    transport, sink, info = DdsTransport(DdsConfig(**options)), RecordingHubSink(), HubInfo("h", 1)
    port = await transport.open_agent(AgentInfo("a", 1), "agent", RecordingAgentSink(answer))
    port.report(AgentStatus("a", 1))
    hub = await transport.open_hub(info, "agent", sink)
    assert isinstance(hub, DdsHub)
    await sink.event("joined", "a")
    hub.send("a", request(info, "t"))
    await sink.final("t")
    assert [chunk.deltas for chunk in sink.chunks("t")] == [("first",), ()]
    assert hub._links.by_name["a"].consumed == 3
    await hub.close()
    await port.close()


# The version before versions were told


class OldPeer:
    """A participant without USER_DATA, with topics of the types as they were, in the fleet ``default``."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._config = DdsConfig(**options)
        acquire(self._config)
        self._participant = DomainParticipant(self._config.domain)
        self._topics: dict[str, Topic[Any]] = {}
        self._entities: list[Any] = [self._participant]

    def _topic(self, name: str, data_type: Any) -> Topic[Any]:
        if name not in self._topics:
            self._topics[name] = Topic(self._participant, f"agent/{name}", data_type)
        return self._topics[name]

    def reader(self, name: Any, data_type: Any, partition: str) -> DataReader[Any]:
        subscriber = Subscriber(self._participant, qos.partition_qos(f"default{partition}"))
        reader = DataReader(subscriber, self._topic(name, data_type), qos.profiles(None).reader(name))
        self._entities += [subscriber, reader]
        return reader

    def writer(self, name: Any, data_type: Any, partition: str) -> DataWriter[Any]:
        publisher = Publisher(self._participant, qos.partition_qos(f"default{partition}"))
        writer = DataWriter(publisher, self._topic(name, data_type), qos.profiles(None).writer(name))
        self._entities += [publisher, writer]
        return writer

    def close(self) -> None:
        for entity in reversed(self._entities):
            entity.__del__()
        release(self._config)


@pytest.fixture
def old(options: dict[str, Any]) -> Iterator[OldPeer]:
    peer = OldPeer(options)
    yield peer
    peer.close()


HELLO = msgspec.json.encode({"name": "old", "incarnation": 1, "session": 2**40}).decode()


async def test_a_hub_of_the_version_before_is_named_and_gets_no_hello(
    rig: Rig, old: OldPeer, warnings: LogRecorder
) -> None:
    _, agent, info = await rig.port("a")
    agents = old.reader("register", before.AgentRegistration, "")
    answers = old.reader("response", before.TaskResponse, "/hub/old/1")
    old.writer("hub", before.HubRegistration, "").write(before.HubRegistration(1, 0, 1000, "old", "host"))
    requests = old.writer("request", before.TaskRequest, f"/agent/a/{info.incarnation}")
    requests.write(before.TaskRequest(0, 0, 1, 0, 0, 0, 0, False, "", "", "", "", HELLO, "", ""))
    controls = old.writer("control", before.Control, f"/agent/a/{info.incarnation}")
    controls.write(before.Control(0, 1, 0, 0, "", "", "", HELLO))
    assert protocol_mismatch("") in await warnings.message("hub old is refused")
    # It is there, with what others get of it; the old hub sees it register, and hears nothing.
    _, sink, _ = await rig.hub()
    await sink.event("joined", "a")
    await agent.event("hub_joined")
    assert [each.agent_id for each in agents.take(N=8)] == ["a"]
    assert not answers.get_matched_publications()
    assert len(agent.named("hub_joined")) == 1


async def test_an_agent_of_the_version_before_is_named_and_gets_no_task(
    rig: Rig, old: OldPeer, warnings: LogRecorder
) -> None:
    _, sink, info = await rig.hub()
    hubs = old.reader("hub", before.HubRegistration, "")
    requests = old.reader("request", before.TaskRequest, "/agent/old/1")
    old.writer("register", before.AgentRegistration, "").write(
        before.AgentRegistration(1, 0, 1000, "old", "host", "", "", "", "", ["chat"])
    )
    hellos = old.writer("response", before.TaskResponse, f"/hub/{info.hub_id}/{info.incarnation}")
    hellos.write(before.TaskResponse(0, 0, 0, 0, 0, 1, 0, 0, False, "", "", HELLO, "", "", "", []))
    assert protocol_mismatch("") in await warnings.message("agent old is refused")
    await rig.port("a")
    await sink.event("joined", "a")
    assert [each.hub_id for each in hubs.take(N=8)] == [info.hub_id]
    assert not requests.get_matched_publications()
    assert [event[1] for event in sink.named("joined")] == ["a"]
