"""Peers that are admitted and mean harm, beside a fleet at work: they answer, cancel and slow nobody's task but their
own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from anywire.messages import Cancel, Chunk, Command, Credit, TaskRequest
from anywire.roles.agent import Agent
from anywire.testing.doubles import OFFERS, Script
from anywire.testing.kit.answers import echo, following, rest, script_fields
from anywire.testing.kit.forgeries import allow_forgeries, attempt
from anywire.testing.patience import polled
from anywire.testing.rig import Rig, read, request, submit
from anywire.transport import Reply

ENDLESS = Script(tag="victim", chunks=300)


def accept(task: TaskRequest, reply: Reply) -> None:
    """Say that a task has arrived, and nothing else of it."""
    reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0))


def in_its_name(hub_id: str, task_id: str, number: int) -> list[Any]:
    """What a hub may say to an agent, in the name of the hub that has this task there."""
    return [
        Cancel(hub_id, task_id, number, "forged"),
        Credit(hub_id, task_id, number, 2**20),
        Command(hub_id, "forged", "drain"),
        Command(hub_id, "forged", "count", '{"count": 1}', credit=8),
        TaskRequest(hub_id, "forged", 1, "chat", "scripted", Script(tag="forged").body(), True, credit=8),
    ]


async def counted(agent: Agent, name: str, least: int) -> None:
    await polled(
        lambda: agent.stats()["events"].get(name, 0) >= least,
        f"{least} {name} are counted",
        seen=lambda: f": {agent.stats()['events']}",
    )


class RogueTests:
    async def test_an_agent_and_its_hub_bear_what_another_hub_forges(self, rig: Rig) -> None:
        allow_forgeries(rig)
        agent, engine = await rig.agent("victim", slots=8)
        pipeline = await rig.pipeline("victim", window=4)
        stream = submit(pipeline, ENDLESS)
        first = await following(stream)
        ((task_id, number),) = pipeline.attempts.open
        rogue, sink, info = await rig.hub("rogue")
        await sink.event("joined", "victim")
        forged = in_its_name(pipeline.info.hub_id, task_id, number)
        for message in forged:
            rogue.inner.send("victim", message)  # type: ignore[attr-defined]
        attempt("Hub.send", rogue.inner.send, "victim", Command(pipeline.info.hub_id, "", "\x00"))  # type: ignore[attr-defined]
        rogue.inner.send("victim", Cancel("rogue", task_id, number))  # type: ignore[attr-defined]
        rogue.inner.send("victim", Credit("rogue", task_id, number, 2**20))  # type: ignore[attr-defined]
        rogue.send("victim", request(info, "own", body=Script(tag="own").body()))
        await sink.final("own")
        await counted(agent, "foreign_messages", len(forged))
        produced = len([event for event in engine.named("delta") if event[1] == "victim"])
        assert produced < ENDLESS.chunks, "a stream whose reader has not read was given credit by another hub"
        assert not agent.draining
        assert "".join(first.deltas) + await read(stream) == ENDLESS.text()
        started = {event[1] for event in engine.named("started")}
        assert started == {"victim", "own"}, f"a task in another's name was begun: {started}"
        assert not sink.named("lost")

    async def test_clients_bear_what_another_client_forges(self, rig: Rig) -> None:
        allow_forgeries(rig)
        _, engine = await rig.agent("a", slots=8)
        pipeline = await rig.pipeline("a")
        fleet = await rig.fleet(pipeline, "client")
        client = await rig.client(window=4)
        stream = client.stream(model="scripted", messages=[], **script_fields(ENDLESS))
        first = await following(stream)
        ((_, hub_id, task_id, number),) = fleet._runs
        rogue, sink, info = await rig.hub("rogue", plane="client")
        await sink.event("joined", pipeline.info.hub_id)
        forged = in_its_name(hub_id, task_id, number)
        for message in forged:
            rogue.inner.send(pipeline.info.hub_id, message)  # type: ignore[attr-defined]
        rogue.send(pipeline.info.hub_id, request(info, "own", body=Script(tag="own").body()))
        await sink.final("own")
        await counted(fleet, "foreign_messages", len(forged))
        assert not fleet.draining
        assert first.text + "".join([piece.text for piece in await rest(stream)]) == ENDLESS.text()
        started = {event[1] for event in engine.named("started")}
        assert started == {"victim", "own"}, f"a task in another's name was begun: {started}"

    @pytest.mark.parametrize("answers", [None, accept], ids=["silent", "accepting"])
    async def test_an_agent_that_claims_everything_and_answers_nothing_costs_no_task(
        self, rig: Rig, answers: Callable[[TaskRequest, Reply], None] | None
    ) -> None:
        port, _, info = await rig.port("rogue", answers, lease=0.5)
        await rig.agent("victim", slots=4)
        pipeline = await rig.pipeline("rogue", "victim", first_token_timeout=1.0)
        claim = msgspec.structs.replace
        base = claim(pipeline.agents()[0].status, agent_id="rogue", incarnation=info.incarnation, offers=OFFERS)
        port.report(claim(base, slots=65536))
        await polled(
            lambda: any(each.status.slots == 65536 for each in pipeline.agents()), "the greatest claim is believed"
        )
        scripts = [Script(tag=f"s{number}", chunks=20) for number in range(12)]
        streams = [submit(pipeline, script) for script in scripts]
        for script, stream in zip(scripts, streams, strict=True):
            assert await read(stream) == script.text()
            port.report(claim(base, slots=65536))
        agents = {each.agent_id: each for each in pipeline.agents()}
        assert agents["victim"].failed == 0

    async def test_a_name_that_is_taken_says_hello_and_goodbye_in_vain(self, rig: Rig) -> None:
        allow_forgeries(rig)
        rig.breaches.allow("victim")
        _, agent, agent_info = await rig.port("victim", incarnation=3000)
        hub, sink, info = await rig.hub("victim-hub", incarnation=3000)
        await sink.event("joined", "victim")
        hub.send("victim", request(info, "held"))
        held: Reply = (await agent.event("task", "held"))[4]
        for number in range(2):
            namesake, _, _ = await rig.port("victim", incarnation=2000 + number)
            other, _, _ = await rig.hub("victim-hub", incarnation=2000 + number)
            await rig.port(f"later{number}", echo)  # what their coming would change has happened when this one is there
            await sink.event("joined", f"later{number}")
            await namesake.close()
            await other.close()
        held.send(Chunk(info.hub_id, "held", 1, 0, ("honest",), final=True))
        assert (await sink.final("held")).deltas == ("honest",)
        told = [event[:3] for event in sink.events if event[0] in ("joined", "lost") and event[1] == "victim"]
        assert told == [("joined", "victim", agent_info.incarnation)]
        assert [event[:3] for event in agent.events if event[0] in ("hub_joined", "hub_lost")] == [
            ("hub_joined", "victim-hub", 3000)
        ]
