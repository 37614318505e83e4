"""Ends with identities over DDS: what anybody but the other end of a link writes counts for nobody.

The forger here writes as the very participant of its victims, as one does who puts another's name into RTPS packets. It
overhears everything, and knows all but their keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import msgspec
import pytest
from tests.integration.dds_forger import Forger
from tests.integration.identified_rig import IdentifiedRig
from tests.integration.test_dds_rogues import MANY, TO_AGENT, TO_HUB, planes

from anywire.identities.identity_proof import Identity, as_text, read_proof
from anywire.messages import AgentInfo, AgentStatus, Chunk, Command, CommandResult, HubInfo
from anywire.testing.doubles import OFFERS
from anywire.testing.log_recorder import LogRecorder
from anywire.testing.recorder import Recorder
from anywire.testing.rig import request
from anywire.transport import Plane, Reply
from anywire_dds import presence, user_data, wire
from anywire_dds.end_key import EndKey
from anywire_dds.endpoints import Endpoints
from anywire_dds.hello import Hello, control_window, request_window, response_hello, response_window
from anywire_dds.links import Links
from anywire_dds.presence import pack_agent
from anywire_dds.seal import TRAILER_BYTES
from anywire_dds.signed import text_of
from anywire_dds.types import FRAME_HELLO
from anywire_dds.writer import Writer

LEASE = 1000
"""Milliseconds: that of the ends of a rig, so that a forger shares their participant."""

Topic = Literal["request", "control", "response"]
WINDOWS = {"request": request_window, "control": control_window, "response": response_window}
FORGED = "does not carry its tag"


@pytest.fixture
async def rig(dds_domain: int) -> AsyncIterator[IdentifiedRig]:
    rig = IdentifiedRig("dds", {"domain": dds_domain})
    async with rig:
        yield rig


@pytest.fixture
async def warnings() -> AsyncIterator[LogRecorder]:
    with LogRecorder() as warnings:
        yield warnings


class Overheard(Recorder):
    """All samples of one topic and partition, as they travel."""

    def __init__(self, endpoints: Endpoints, topic: Topic, partition: str) -> None:
        super().__init__()
        self._topic: Topic = topic
        self._take = endpoints.read(topic, partition, self._read)

    def _read(self) -> None:
        for data, sample in self._take():
            if sample.valid_data:
                number, frame = wire.head(self._topic, data)
                self.add("hello" if frame == FRAME_HELLO else "message", number, data)

    async def message(self) -> tuple[int, bytes]:
        """The session number of the first one that is no HELLO, and the sample."""
        _, number, data = await self.event("message")
        return number, data


class Scene:
    """A task and a command under way between two ends with identities, and a forger in their participant."""

    def __init__(self, rig: IdentifiedRig, plane: Plane, warnings: LogRecorder, dropped: Recorder) -> None:
        self.rig, self.plane, self.warnings, self.dropped = rig, plane, warnings, dropped

    async def open(self) -> None:
        self.agent_info, self.hub_info = AgentInfo("victim", 5), HubInfo("h", 6)
        self.forger = Forger(self.rig.options, LEASE, self.agent_info, plane=self.plane)
        endpoints, (to_agent, to_hub) = self.forger.endpoints, self.partitions()
        partitions: dict[Topic, str] = {"request": to_agent, "control": to_agent, "response": to_hub}
        self.overheard = {topic: Overheard(endpoints, topic, name) for topic, name in partitions.items()}
        self.writers = {topic: endpoints.writer(topic, name) for topic, name in partitions.items()}
        endpoints.start_soon()
        _, self.agent, _ = await self.rig.port("victim", plane=self.plane, incarnation=5)
        self.hub, self.sink, _ = await self.rig.hub("h", plane=self.plane, incarnation=6)
        await self.sink.event("joined", "victim")
        self.hub.send("victim", request(self.hub_info, "t"))
        self.hub.send("victim", Command("h", "c", "load"))
        self.answer: Reply = (await self.agent.event("task", "t"))[4]
        self.answer.send(Chunk("h", "t", 1, 0, ("honest",)))
        self.result: Reply = (await self.agent.event("command", "c"))[4]
        self.result.send(CommandResult("h", "c", 0, '"honest"'))
        self.agents_number, self.request = await self.overheard["request"].message()
        self.hubs_number, self.response = await self.overheard["response"].message()

    def partitions(self, hub_id: str = "h") -> tuple[str, str]:
        endpoints = self.forger.endpoints
        return endpoints.partition(("agent", "victim", 5)), endpoints.partition(("hub", hub_id, 6))

    async def forge(self, topic: Topic, *samples: bytes) -> None:
        """Write these, and wait until each was dropped."""
        for sample in samples:
            until = self.one_more()
            assert self.writers[topic].write(sample)
            await self.dropped.until(until)

    def one_more(self) -> Callable[[], bool]:
        """Tells whether one sample more was dropped than by now."""
        before = len(self.dropped.events)
        return lambda: len(self.dropped.events) > before

    async def finish(self) -> None:
        """The victims get everything of each other, and nothing else."""
        self.answer.send(Chunk("h", "t", 1, 1, ("honest",), final=True))
        self.result.send(CommandResult("h", "c", 1, final=True))
        await self.sink.final("t")
        await self.sink.final_result("c")
        assert [chunk.deltas for chunk in self.sink.chunks("t")] == [("honest",)] * 2
        assert [result.data for result in self.sink.results("c")] == ['"honest"', ""]
        assert not self.sink.named("progress") + self.sink.named("lost")
        assert not self.agent.named("cancel") + self.agent.named("credit") + self.agent.named("hub_lost")
        assert [event[1] for event in self.agent.named("task") + self.agent.named("command")] == ["t", "c"]
        assert {event[3].state for event in self.sink.named("reported")} == {"ready"}


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """What ends have dropped: the peer's name, and why."""
    dropped, drop = Recorder(), Links._drop

    def note(links: Any, link: Any, message: str) -> None:
        drop(links, link, message)
        dropped.add("dropped", link.name, message)

    monkeypatch.setattr(Links, "_drop", note)
    return dropped


@pytest.fixture
async def scene(rig: IdentifiedRig, warnings: LogRecorder, dropped: Recorder, plane: Plane) -> AsyncIterator[Scene]:
    scene = Scene(rig, plane, warnings, dropped)
    await scene.open()
    yield scene
    await scene.forger.endpoints.close()


agent_plane = pytest.mark.parametrize("plane", ["agent"])


@planes
async def test_what_carries_no_tag_counts_for_nobody(scene: Scene) -> None:
    hubs, agents, hub = scene.hubs_number, scene.agents_number, scene.hub_info
    responses = [wire.pack_from_agent(hubs, make(hub), MANY) for make in TO_HUB.values()]
    await scene.forge("response", *responses, response_window(hubs, MANY))
    for topic, make in TO_AGENT.values():
        await scene.forge(topic, wire.pack_to_agent(agents, make(hub), MANY))
    await scene.forge("request", request_window(agents, MANY))
    await scene.forge("control", control_window(agents, MANY))
    assert scene.warnings.messages("a message in the name of agent victim", FORGED)
    assert scene.warnings.messages("a message in the name of hub h", FORGED)
    await scene.finish()


@agent_plane
async def test_what_was_recorded_counts_only_once(scene: Scene) -> None:
    await scene.forge("request", scene.request, scene.request)
    await scene.forge("response", scene.response, scene.response)
    await scene.finish()


@agent_plane
async def test_what_was_changed_does_not_count(scene: Scene) -> None:
    """Another number, another writer, another text."""
    changed = []
    for place in (-TRAILER_BYTES, -TRAILER_BYTES + 6, scene.response.index(b"honest")):
        sample = bytearray(scene.response)
        sample[place] ^= 4
        changed.append(bytes(sample))
    await scene.forge("response", *changed)
    await scene.finish()


@agent_plane
async def test_what_was_cut_does_not_count(scene: Scene) -> None:
    """What is no whole sample DDS itself refuses."""
    whole = scene.response
    cut = [whole[: len(whole) - bytes_less] for bytes_less in range(4, TRAILER_BYTES + 1, 4)]
    await scene.forge("response", *cut, whole + b"\0" * 4)
    await scene.finish()


@agent_plane
async def test_what_another_link_carried_does_not_count(scene: Scene) -> None:
    """Also with the number of this link put on it."""
    _, to_other = scene.partitions("other")
    overheard = Overheard(scene.forger.endpoints, "response", to_other)
    scene.rig.breaches.allow("of command c")
    hub, sink, info = await scene.rig.hub("other", incarnation=6)
    await sink.event("joined", "victim")
    hub.send("victim", Command(info.hub_id, "d", "load"))
    reply: Reply = (await scene.agent.event("command", "d"))[4]
    reply.send(CommandResult(info.hub_id, "c", 1, '"foreign"', final=True))
    _, sample = await overheard.message()
    await scene.forge("response", sample[:4] + scene.hubs_number.to_bytes(8, "little") + sample[12:])
    scene.agent.events.remove(await scene.agent.event("command", "d"))
    await scene.finish()


@agent_plane
async def test_hellos_without_the_key_count_for_nobody(scene: Scene) -> None:
    """New ones, and those of the victims with another number on them."""
    other = EndKey("agent", scene.agent_info, Identity.new())
    for sign in (None, lambda _: "{}", lambda text: text_of(other.sign("hello", text))):
        await scene.forge("response", response_hello(Hello("victim", 5, 2**62, "2.1"), scene.hubs_number, sign))
    for topic, overheard in scene.overheard.items():
        (_, number, sample) = overheard.named("hello")[-1]
        await scene.forge(topic, sample[:4] + (number + 1).to_bytes(8, "little") + sample[12:])
    assert scene.warnings.messages("a HELLO in the name of agent victim is not signed by its key")
    assert scene.warnings.messages("a HELLO in the name of hub h is not signed by its key")
    await scene.finish()


@agent_plane
async def test_hellos_that_come_again_change_nothing(scene: Scene) -> None:
    for topic, overheard in scene.overheard.items():
        hellos = overheard.named("hello")
        for _, _, sample in hellos:
            assert scene.writers[topic].write(sample)
        await scene.forge(topic, WINDOWS[topic](hellos[-1][1], 0))
    await scene.finish()


@agent_plane
async def test_reports_without_the_key_count_for_nobody(scene: Scene) -> None:
    await scene.forger.until_seen(scene.warnings)
    packed = presence.pack_status(AgentStatus("victim", 5, "failed", OFFERS, 8), 9)
    for sample in (packed, EndKey("agent", scene.agent_info, Identity.new()).signed_report(packed)):
        until = scene.one_more()
        scene.forger.statuses.write(sample)
        await scene.dropped.until(until)
    assert scene.warnings.messages("a report in the name of agent victim is not signed by its key")
    await scene.finish()


@agent_plane
@pytest.mark.parametrize("shown", ["no key", "another key", "the victim's proof"])
async def test_a_later_life_under_another_key_takes_no_name(scene: Scene, shown: str) -> None:
    """A whole agent, which does everything right but for its key."""
    if shown == "the victim's proof":
        proof = (await scene.sink.event("joined", "victim"))[3].proof
        sample = pack_agent(AgentInfo("victim", 9), LEASE)
        stolen = user_data.of_registration(proof, as_text(bytes(64)))
        scene.forger.endpoints.writer("register", scene.forger.endpoints.partition(), stolen).write(sample)
        await scene.warnings.message("the registration of 'victim' shows a proof of identity that is not of this link")
    else:
        identity = Identity.new() if shown == "another key" else None
        await scene.rig.port("victim", incarnation=9, options={"identity": identity})
        await scene.warnings.message("agent victim is linked under another key: incarnation 9")
    await scene.finish()


async def test_a_name_without_a_key_gives_way_to_one_with_a_key(rig: IdentifiedRig) -> None:
    """Whatever the incarnations are; the one without a key does not get it back."""
    hub, sink, info = await rig.hub("h")
    await rig.port("victim", incarnation=9, options={"identity": None})
    await sink.event("joined", "victim", 9)
    _, agent, _ = await rig.port("victim", incarnation=5)
    await sink.event("lost", "victim", 9)
    joined = (await sink.event("joined", "victim", 5))[3]
    proof = read_proof(joined.proof)
    assert proof is not None
    assert proof.is_valid("agent", "agent", "victim", 5)
    hub.send("victim", request(info, "t"))
    await agent.event("task", "t")


async def test_a_later_life_of_the_same_key_takes_the_name(rig: IdentifiedRig) -> None:
    identity = Identity.new()
    _, sink, _ = await rig.hub("h")
    await rig.port("a", incarnation=5, options={"identity": identity})
    await sink.event("joined", "a", 5)
    await rig.port("a", incarnation=9, options={"identity": identity})
    await sink.event("lost", "a", 5)
    await sink.event("joined", "a", 9)


@pytest.mark.parametrize("with_key", ["hub", "agent"])
async def test_an_end_without_an_identity_is_linked_as_before(rig: IdentifiedRig, with_key: str) -> None:
    """And passes on no proof whose binding it cannot check."""
    options = {each: {"identity": with_key == each} for each in ("hub", "agent")}
    _, agent, _ = await rig.port("a", options=options["agent"])
    hub, sink, info = await rig.hub("h", options=options["hub"])
    assert (await sink.event("joined", "a"))[3].proof == ""
    assert (await agent.event("hub_joined", "h"))[3].proof == ""
    hub.send("a", request(info, "t"))
    reply: Reply = (await agent.event("task", "t"))[4]
    reply.send(Chunk("h", "t", 1, 0, ("x",), final=True))
    await sink.final("t")


@pytest.mark.parametrize("asking", ["hub", "agent"])
async def test_an_end_without_an_identity_is_refused_and_both_say_so(
    rig: IdentifiedRig, warnings: LogRecorder, asking: str
) -> None:
    """As soon as it has one that is let in, it is linked."""

    def admits(plane: Plane, info: AgentInfo | HubInfo) -> str:
        return "" if info.proof else "it shows no identity (identity.key)"

    who, nobody = Identity.new(), {"identity": None}
    if asking == "hub":
        _, sink, _ = await rig.hub("h", who=who, admits=admits)
        port, _, _ = await rig.port("a", options=nobody, incarnation=1)
        await warnings.message("agent a is not let in: it shows no identity (identity.key)")
        await warnings.message("hub h does not let this end in: it shows no identity (identity.key)")
        await port.close()
        await rig.port("a", incarnation=2)
        await sink.event("joined", "a", 2)
        assert [event[2] for event in sink.named("joined")] == [2]
    else:
        _, agent, _ = await rig.port("a", who=who, admits=admits)
        hub, _, _ = await rig.hub("h", options=nobody, incarnation=1)
        await warnings.message("hub h is not let in: it shows no identity (identity.key)")
        await warnings.message("agent a does not let this end in: it shows no identity (identity.key)")
        await hub.close()
        await rig.hub("h", incarnation=2)
        await agent.event("hub_joined", "h", 2)
        assert [event[2] for event in agent.named("hub_joined")] == [2]


async def test_what_is_missing_begins_the_link_anew(rig: IdentifiedRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet in another's name can take the place of a message: the answer would have a gap."""
    _, agent, _ = await rig.port("a")
    hub, sink, info = await rig.hub("h")
    await sink.event("joined", "a")
    hub.send("a", request(info, "t"))
    reply: Reply = (await agent.event("task", "t"))[4]
    reply.send(Chunk("h", "t", 1, 0, ("x",)))
    await sink.until(lambda: sink.chunks("t"))
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "write", lambda *_: True)
        reply.send(Chunk("h", "t", 1, 1, ("y",)))
    reply.send(Chunk("h", "t", 1, 2, ("z",), final=True))
    assert "missing" in (await sink.event("lost", "a"))[3]
    await sink.until(lambda: len(sink.named("joined")) == 2)
    assert [chunk.deltas for chunk in sink.chunks("t")] == [("x",)]


@pytest.mark.parametrize("options", [{"deadline": 60.0, "priorities": [5, 9]}, {"lifespan": 60.0}])
async def test_all_ways_of_a_link_carry_tags(rig: IdentifiedRig, dropped: Recorder, options: dict[str, Any]) -> None:
    _, agent, _ = await rig.port("a")
    hub, sink, info = await rig.hub("h", options=options)
    await sink.event("joined", "a")
    for number, priority in enumerate((0, 5, 9)):
        name = f"t{number}"
        hub.send("a", msgspec.structs.replace(request(info, name), priority=priority))
        reply: Reply = (await agent.event("task", name))[4]
        for seq in range(3):
            reply.send(Chunk("h", name, 1, seq, ("x",), final=seq == 2))
        await sink.final(name)
    hub.send("a", request(info, "large", body="x" * 9_000_000))
    await agent.event("task", "large")
    assert not dropped.events
    assert not sink.named("lost")
