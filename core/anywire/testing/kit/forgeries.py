"""Messages in another's name, and values out of type and bounds.

A wire says by which link a message came, and nothing else: what the message says of its sender is for the core to
check. Nobody but the sender may be harmed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from anywire import errors
from anywire.messages import AgentStatus, Cancel, Chunk, Command, CommandResult, Credit, Progress
from anywire.testing.doubles import OFFERS, Script
from anywire.testing.kit.answers import echo, following, status
from anywire.testing.patience import polled
from anywire.testing.rig import Rig, read, request, submit
from anywire.transport import Reply

HUGE = 10**400
CONTROL = "\x1b[2J\r\n\x00\u202e"
MANY_OFFERS = "[" + ",".join(["{}"] * 10**6) + "]"


def allow_forgeries(rig: Rig) -> None:
    """What the laws say of a message that no checked end has sent."""
    for words in ("not sent on this link", "never sent", "never reported"):
        rig.breaches.allow(words)


class ForgeryTests:
    async def test_what_an_agent_forges_is_told_by_its_own_link(self, rig: Rig) -> None:
        allow_forgeries(rig)
        victim_port, victim, victim_info = await rig.port("victim")
        forger_port, forger, forger_info = await rig.port("forger")
        hub, sink, info = await rig.hub("victim-hub")
        other, other_sink, other_info = await rig.hub("other-hub")
        for each in (sink, other_sink):
            await each.event("reported", "victim")
            await each.event("reported", "forger")
        hub.send("victim", request(info, "victim's"))
        hub.send("victim", Command(info.hub_id, "victim's", "load"))
        other.send("forger", request(other_info, "forger's"))
        honest: Reply = (await victim.event("task", "victim's"))[4]
        honest_command: Reply = (await victim.event("command", "victim's"))[4]
        reply: Any = (await forger.event("task", "forger's"))[4]
        for hub_id in (info.hub_id, other_info.hub_id):
            for forged in (
                Chunk(hub_id, "victim's", 1, 0, ("forged",)),
                Chunk(hub_id, "victim's", 1, 1, ("forged",), final=True),
                Progress(hub_id, "victim's", 1, "tool", "forged"),
                CommandResult(hub_id, "victim's", 0, '"forged"', True),
            ):
                reply.inner.send(forged)  # past the laws of this end
        forger_port.inner.report(AgentStatus("victim", victim_info.incarnation, "failed", detail="forged"))  # type: ignore[attr-defined]
        reply.send(Chunk(other_info.hub_id, "forger's", 1, 0, ("own",), final=True))
        await other_sink.final("forger's")
        forger_port.report(status("forger", forger_info.incarnation, "own"))
        for each in (sink, other_sink):
            await each.detail("forger", "own")
        honest.send(Chunk(info.hub_id, "victim's", 1, 0, ("honest",), final=True))
        honest_command.send(CommandResult(info.hub_id, "victim's", 0, '"honest"', True))
        victim_port.report(status("victim", victim_info.incarnation, "honest"))
        await sink.detail("victim", "honest")
        await sink.until(
            lambda: sink.named("chunk") and sink.named("result"), "the answers of the agent that was spoken for"
        )
        own = ("forger", forger_info.incarnation)
        for each in (sink, other_sink):
            for event in each.named("chunk") + each.named("progress") + each.named("result"):
                link = ("victim", victim_info.incarnation) if "honest" in str(event[3]) else own
                assert event[-2:] == link, f"what an agent forged came by the link of {event[-2:]}: {event[3]}"
            for _, agent_id, incarnation, reported in each.named("reported"):
                forged_by = reported.detail != "forged" or (agent_id, incarnation) == own
                assert forged_by, f"a status that an agent forged came by the link of {agent_id}"
            assert not each.named("lost"), "a link was lost for messages in another's name"
        came = {event[0] for event in sink.events if "forged" in str(event[3:4]) and event[0] != "reported"}
        assert not came, f"answers to one hub came to another: {came}"
        assert [chunk.deltas for chunk in sink.chunks("victim's")] == [("honest",)]

    async def test_what_a_hub_forges_is_told_by_its_own_link(self, rig: Rig) -> None:
        allow_forgeries(rig)
        _, agent, _ = await rig.port("a")
        victim, victim_sink, victim_info = await rig.hub("victim-hub")
        forger, forger_sink, forger_info = await rig.hub("forger-hub")
        for each in (victim_sink, forger_sink):
            await each.event("joined", "a")
        victim.send("a", request(victim_info, "victim's"))
        honest: Reply = (await agent.event("task", "victim's"))[4]
        for forged in (
            Cancel("victim-hub", "victim's", 1, "forged"),
            Credit("victim-hub", "victim's", 1, 666),
            Command("victim-hub", "forged", "drain"),
            request(victim_info, "forged"),
        ):
            forger.inner.send("a", forged)  # type: ignore[attr-defined]
        forger.send("a", request(forger_info, "forger's"))
        reply: Reply = (await agent.event("task", "forger's"))[4]
        reply.send(Chunk("forger-hub", "forger's", 1, 0, final=True))
        await forger_sink.final("forger's")
        for event in [*agent.named("task"), *agent.named("command")]:
            if event[1] == "forged":
                answer: Any = event[4]
                answer.inner.send(
                    Chunk("victim-hub", "forged", 1, 0, final=True)
                    if event[0] == "task"
                    else CommandResult("victim-hub", "forged", 0, final=True)
                )
        honest.send(Chunk("victim-hub", "victim's", 1, 0, ("honest",), final=True))
        assert (await victim_sink.final("victim's")).deltas == ("honest",)
        own = ("forger-hub", forger_info.incarnation)
        for kind in ("task", "command", "cancel", "credit"):
            for event in agent.named(kind):
                link = ("victim-hub", victim_info.incarnation) if kind == "task" and event[1] == "victim's" else own
                assert event[-2:] == link, f"a {kind} that a hub forged came by the link of {event[-2:]}"
        came = {event[1] for event in victim_sink.named("chunk") + victim_sink.named("result")}
        assert came == {"victim's"}, f"answers to a forged request came to the hub it named: {came}"
        assert not agent.named("hub_lost"), "a link was lost for messages in another's name"

    async def test_values_out_of_bounds_from_an_agent_harm_nobody_else(self, rig: Rig) -> None:
        allow_forgeries(rig)
        rig.breaches.allow("came out of order")
        honest_port, _, honest_info = await rig.port("honest", echo)
        port, agent, agent_info = await rig.port("mean")
        hub, sink, info = await rig.hub()
        await sink.event("reported", "honest")
        await sink.event("reported", "mean")
        base = status("mean", agent_info.incarnation, "wrong")
        for wrong in (
            {"slots": HUGE},
            {"slots": -1, "active": 2**63, "queued": -(2**31) - 1},
            {"offers": 3},
            {"state": "none" + CONTROL, "detail": CONTROL},
            {"resources": {CONTROL: 1.0, "x": float("nan"), "y": float("inf")}},
            {"resources": {"x": "text", "y": HUGE}},
            {"incarnation": "text"},
            {"offers": MANY_OFFERS},
        ):
            attempt("report", port.inner.report, msgspec.structs.replace(base, **wrong))  # type: ignore[attr-defined]
        port.report(status("mean", agent_info.incarnation, "fine"))
        await sink.detail("mean", "fine")
        hub.send("mean", request(info, "held"))
        reply: Any = (await agent.event("task", "held"))[4]
        for message in (
            Chunk(info.hub_id, "held", 1, HUGE),
            Chunk(info.hub_id, "held", -1, -1, first_ns=2**64),
            Chunk(info.hub_id, CONTROL, 1, 0, (CONTROL,), CONTROL, False, CONTROL, CONTROL, CONTROL),
            Progress(info.hub_id, "held", 1, "none", CONTROL),  # type: ignore[arg-type]
            CommandResult(info.hub_id, CONTROL, HUGE, CONTROL, True, CONTROL),
            CommandResult(info.hub_id, CONTROL, -1, CONTROL, True, CONTROL),
            Chunk(info.hub_id, "held", 1, 0, (3,)),  # type: ignore[arg-type]
            Chunk(info.hub_id, "held", 1, 0, None),  # type: ignore[arg-type]
            Progress(info.hub_id, "held", 1, 3, None),  # type: ignore[arg-type]
            CommandResult(info.hub_id, 3, "0", ["data"], "yes"),  # type: ignore[arg-type]
            Progress(info.hub_id, "held", "1", "tool"),  # type: ignore[arg-type]
            Chunk(info.hub_id, 3, "1", "0", final="yes", resumable=3),  # type: ignore[arg-type]
        ):
            attempt("Reply.send", reply.inner.send, message)
        honest_port.report(status("honest", honest_info.incarnation, "later"))
        await sink.detail("honest", "later")
        hub.send("honest", request(info, "honest", body="x"))
        await sink.final("honest")
        lost = [event for event in sink.named("lost") if event[1] == "honest"]
        assert not lost, "an agent was lost for another's sake"
        port.report(status("mean", agent_info.incarnation, "at last"))
        await sink.detail("mean", "at last")

    async def test_values_out_of_bounds_from_a_hub_harm_nobody_else(self, rig: Rig) -> None:
        allow_forgeries(rig)
        _, agent, _ = await rig.port("a", echo)
        honest, honest_sink, honest_info = await rig.hub("honest")
        hub, sink, info = await rig.hub("mean")
        await honest_sink.event("joined", "a")
        await sink.event("joined", "a")
        task = request(info, "t")
        replace = msgspec.structs.replace
        tasks = [replace(task, task_id=f"t{number}") for number in range(4)]
        for message in (
            Credit("mean", "t", 1, HUGE),
            Credit("mean", "t", -1, -1),
            Cancel("mean", CONTROL, 2**31, CONTROL),
            replace(tasks[0], priority=HUGE),
            replace(tasks[1], task_id=CONTROL, model=CONTROL, kind=CONTROL, tenant=CONTROL, prefer=(CONTROL,)),
            replace(tasks[1], credit=-1, time_left_ms=-1, hops=-1, attempts_left=-1),
            Command("mean", CONTROL, CONTROL, CONTROL, (CONTROL,), -1, -1, CONTROL, CONTROL),
            Command("mean", "c", "load", credit=HUGE),
            Credit("mean", "t", 1, "3"),  # type: ignore[arg-type]
            Cancel("mean", "t", 1, 3),  # type: ignore[arg-type]
            replace(tasks[2], body=3),
            replace(tasks[3], avoid=(3,), stream="yes"),
            Command("mean", "c", "load", None, None),  # type: ignore[arg-type]
        ):
            attempt("Hub.send", hub.inner.send, "a", message)  # type: ignore[attr-defined]
        honest.send("a", request(honest_info, "honest", body="x"))
        await honest_sink.final("honest")
        lost = [event for event in agent.named("hub_lost") if event[1] == "honest"]
        assert not lost, "a hub was lost for another's sake"
        assert not honest_sink.named("lost"), "a link was lost for what another hub has sent"
        _, _, later_info = await rig.hub("later")
        await agent.event("hub_joined", "later", later_info.incarnation)

    async def test_names_of_control_characters_harm_nobody_else(self, rig: Rig) -> None:
        names = [f"mean{CONTROL}", CONTROL, " ", "../../x?y#z%2F", "ü€😀", "x" * 5000]
        hub, sink, info = await rig.hub("good")
        opened = []
        for name in names:
            for opening in (rig.port, rig.hub):
                try:
                    _, _, opened_info = await opening(name)
                except errors.TransportUnavailable:
                    continue  # a wire that has no such names says so
                opened.append(getattr(opened_info, "agent_id", "") or getattr(opened_info, "hub_id", ""))
        _, agent, _ = await rig.port("late", echo)
        await sink.event("joined", "late")
        await agent.event("hub_joined", "good")
        hub.send("late", request(info, "t", body="x"))
        await sink.final("t")
        for recorder, kind in ((sink, "joined"), (agent, "hub_joined")):
            strange = {event[1] for event in recorder.named(kind)} - {*opened, "late", "good"}
            assert not strange, f"a name was changed on the way: {strange}"

    async def test_a_pipeline_counts_what_an_agent_forges_and_ends_the_task_normally(self, rig: Rig) -> None:
        allow_forgeries(rig)
        port, forger, forger_info = await rig.port("forger", lease=60.0)
        pipeline = await rig.pipeline("forger")
        held = submit(pipeline, Script(tag="held"))
        _, _, _, task, reply, *_ = await forger.event("task")
        await rig.agent("victim", slots=8)
        await rig.seen(pipeline, "forger", "victim")
        script = Script(tag="victim", chunks=200)
        stream = submit(pipeline, script)
        first = "".join((await following(stream)).deltas)
        before = dict(pipeline.stats()["events"])

        def grown(*names: str) -> int:
            return sum(pipeline.stats()["events"].get(name, 0) - before.get(name, 0) for name in names)

        def counted() -> bool:
            return grown("foreign_messages", "stale_results") >= 3 and grown("claims_rejected") >= 1

        assert stream.agent_id == "victim"
        reply.inner.send(Chunk(task.hub_id, stream.task_id, 1, 0, ("forged",), final=True))
        reply.inner.send(Progress(task.hub_id, stream.task_id, 1, "loading", "forged"))
        reply.inner.send(CommandResult(task.hub_id, "forged", 0, "0", True))
        port.inner.report(AgentStatus("victim", forger_info.incarnation, "failed", detail="forged"))  # type: ignore[attr-defined]
        # A wire may drop a status in another's name by itself; one out of bounds is for the pipeline to see.
        own = AgentStatus("forger", forger_info.incarnation, "ready", OFFERS, 2**31 - 1)
        port.inner.report(own)  # type: ignore[attr-defined]
        await polled(counted, "each forged message is counted", seen=lambda: f": {pipeline.stats()['events']}")
        assert grown("foreign_messages") >= 2, "a chunk and a progress of another's attempt are counted"
        victim = next(agent for agent in pipeline.agents() if agent.agent_id == "victim")
        assert (victim.status.state, victim.status.detail) == ("ready", ""), "an agent changed another one's state"
        assert first + await read(stream) == script.text()
        reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0, ("own",), final=True, finish_reason="stop"))
        assert await read(held) == "own"


def attempt(what: str, call: Any, *arguments: Any) -> None:
    """Send what may be refused, in the way the contract says."""
    try:
        call(*arguments)
    except Exception as error:
        if what == "report":
            raise AssertionError(f"report raised {error!r}, it never raises") from error
        if not isinstance(error, errors.TransportError):
            raise AssertionError(f"{what} raised {error!r}, where its contract names TransportError") from error
