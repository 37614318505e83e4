"""What another participant of the domain writes, with the right ids and session numbers, counts for nobody.

Whoever is in a domain can read along, so numbers and ids are no secret: the forger here overhears them on the wire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import pytest
from cyclonedds.core import Policy
from cyclonedds.util import duration
from tests.integration.dds_forger import Forger

from anywire.messages import Cancel, Chunk, Command, CommandResult, Credit, HubInfo, Progress
from anywire.testing.log_recorder import LogRecorder
from anywire.testing.recorder import Recorder
from anywire.testing.rig import Rig, request
from anywire.transport import Plane, Reply
from anywire_dds import wire
from anywire_dds.endpoints import CODECS, Endpoints
from anywire_dds.hello import control_window, request_window, response_window
from anywire_dds.links import Links
from anywire_dds.types import FRAME_HELLO

MANY = 2**40
"""Messages that a forged WINDOW says were consumed."""


@pytest.fixture
async def rig(dds_domain: int) -> AsyncIterator[Rig]:
    async with Rig("dds", {"domain": dds_domain}) as rig:
        yield rig


@pytest.fixture
async def warnings() -> AsyncIterator[LogRecorder]:
    with LogRecorder() as warnings:
        yield warnings


async def overheard(endpoints: Endpoints, topic: Literal["request", "response"], partition: str) -> int:
    """The session number that messages on this topic carry, read by a reader of the forger's own."""
    heard = Recorder()

    def read() -> None:
        for data, sample in take():
            if sample.valid_data:
                values = CODECS[topic].unpack(data)
                frame = values[wire.REQUEST_FRAME if topic == "request" else wire.RESPONSE_FRAME]
                if frame != FRAME_HELLO:
                    heard.add("heard", values[0])

    take = endpoints.read(topic, partition, read)
    return int((await heard.event("heard"))[1])


class Scene:
    """A victim's task and command under way, and a forger who knows everything that is said of them."""

    def __init__(self, rig: Rig, plane: Plane, warnings: LogRecorder, options: dict[str, Any]) -> None:
        self.rig, self.plane, self.warnings, self.options = rig, plane, warnings, options

    async def open(self) -> None:
        _, self.agent, self.agent_info = await self.rig.port("victim", plane=self.plane)
        self.hub, self.sink, self.hub_info = await self.rig.hub(plane=self.plane, options=self.options)
        await self.sink.event("joined", "victim")
        self.hub.send("victim", request(self.hub_info, "t"))
        self.hub.send("victim", Command(self.hub_info.hub_id, "c", "load"))
        self.answer: Reply = (await self.agent.event("task", "t"))[4]
        self.answer.send(Chunk(self.hub_info.hub_id, "t", 1, 0, ("honest",)))
        self.result: Reply = (await self.agent.event("command", "c"))[4]
        self.forger = Forger(self.rig.options, plane=self.plane)
        endpoints, agent, hub = self.forger.endpoints, self.agent_info, self.hub_info
        self.to_agent = endpoints.partition(("agent", agent.agent_id, agent.incarnation))
        self.to_hub = endpoints.partition(("hub", hub.hub_id, hub.incarnation))
        self.agents_number = await overheard(endpoints, "request", self.to_agent)
        self.hubs_number = 0
        if not self.options:
            self.result.send(CommandResult(hub.hub_id, "c", 0, '"honest"'))
            self.hubs_number = await overheard(endpoints, "response", self.to_hub)

    async def finish(self) -> None:
        """The victims get everything of each other, and nothing else."""
        hub_id = self.hub_info.hub_id
        self.answer.send(Chunk(hub_id, "t", 1, 1, ("honest",), final=True))
        self.result.send(CommandResult(hub_id, "c", 1, final=True))
        await self.sink.final("t")
        await self.sink.final_result("c")
        assert [chunk.deltas for chunk in self.sink.chunks("t")] == [("honest",)] * 2
        assert [result.data for result in self.sink.results("c")] == ['"honest"', ""]
        assert not self.sink.named("progress") + self.sink.named("lost")
        assert not self.agent.named("cancel") + self.agent.named("credit") + self.agent.named("hub_lost")
        assert [event[1] for event in self.agent.named("task") + self.agent.named("command")] == ["t", "c"]


@pytest.fixture
async def scene(rig: Rig, warnings: LogRecorder, plane: Plane, request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    scene = Scene(rig, plane, warnings, getattr(request, "param", {}))
    await scene.open()
    yield scene
    await scene.forger.endpoints.close()


planes = pytest.mark.parametrize("plane", ["agent", "client"])

TO_HUB: dict[str, Callable[[HubInfo], Any]] = {
    "chunk": lambda hub: Chunk(hub.hub_id, "t", 1, 1, ("forged",)),
    "answer": lambda hub: Chunk(hub.hub_id, "t", 1, 1, ("forged",), final=True),
    "progress": lambda hub: Progress(hub.hub_id, "t", 1, "tool", "forged"),
    "result": lambda hub: CommandResult(hub.hub_id, "c", 1, '"forged"', True),
}
TO_AGENT: dict[str, tuple[Literal["request", "control"], Callable[[HubInfo], Any]]] = {
    "task": ("request", lambda hub: request(hub, "forged")),
    "command": ("request", lambda hub: Command(hub.hub_id, "forged", "drain")),
    "cancel": ("control", lambda hub: Cancel(hub.hub_id, "t", 1, "forged")),
    "cancel of a command": ("control", lambda hub: Cancel(hub.hub_id, "c", 0, "forged")),
    "credit": ("control", lambda hub: Credit(hub.hub_id, "t", 1, 666)),
}


@planes
@pytest.mark.parametrize("verb", [*TO_HUB, "window"])
async def test_another_participant_cannot_answer(scene: Scene, verb: str) -> None:
    number = scene.hubs_number
    sample = (
        response_window(number, MANY)
        if verb == "window"
        else wire.pack_from_agent(number, TO_HUB[verb](scene.hub_info), MANY)
    )
    scene.forger.endpoints.writer("response", scene.to_hub).write(sample)
    await scene.warnings.message("a message in the name of agent victim")
    await scene.finish()


@planes
@pytest.mark.parametrize("verb", [*TO_AGENT, "window of requests", "window of answers"])
async def test_another_participant_cannot_ask_cancel_or_slow(scene: Scene, verb: str) -> None:
    number = scene.agents_number
    topic: Literal["request", "control"] = "control"
    if verb == "window of requests":
        topic, sample = "request", request_window(number, MANY)
    elif verb == "window of answers":
        sample = control_window(number, MANY)
    else:
        topic, make = TO_AGENT[verb]
        sample = wire.pack_to_agent(number, make(scene.hub_info), MANY)
    scene.forger.endpoints.writer(topic, scene.to_agent).write(sample)
    await scene.warnings.message(f"a message in the name of hub {scene.hub_info.hub_id}")
    await scene.finish()


@pytest.mark.parametrize("plane", ["agent"])
@pytest.mark.parametrize("scene", [{"deadline": 60.0}], indirect=True)
async def test_another_participant_cannot_answer_a_stream(scene: Scene) -> None:
    """With a deadline the chunks of streams are on a topic of their own."""
    endpoints = scene.forger.endpoints
    scene.result.send(CommandResult(scene.hub_info.hub_id, "c", 0, '"honest"'))
    number = await overheard(endpoints, "response", scene.to_hub)
    forged = wire.pack_from_agent(number, TO_HUB["answer"](scene.hub_info), MANY)
    endpoints.writer("stream", scene.to_hub, Policy.Deadline(duration(seconds=60))).write(forged)
    await scene.warnings.message("a message in the name of agent victim")
    await scene.finish()


async def test_a_writer_is_known_before_it_has_something_to_say(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose a writer is cannot be asked any more once it is gone, and its last message may be its first."""
    admitted, admit = Recorder(), Links.admit

    def note(links: Any, link: Any, writer: int, participant: str | None) -> bool:
        counts = admit(links, link, writer, participant)
        admitted.add("admitted", link.name, counts)
        return counts

    monkeypatch.setattr(Links, "admit", note)
    await rig.port("a")
    _, sink, _ = await rig.hub(options={"priorities": [5, 9]})
    await sink.event("joined", "a")
    await admitted.until(lambda: admitted.events == [("admitted", "a", True)] * 2)
