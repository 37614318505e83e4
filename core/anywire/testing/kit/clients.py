"""Clients, and trees of orchestrators."""

from __future__ import annotations

import asyncio

import pytest

from anywire import errors
from anywire.messages import TaskRequest
from anywire.offers import read_offers
from anywire.submission import Submission
from anywire.testing.doubles import MODEL, Script
from anywire.testing.kit.answers import chat, echo, following, rest, script_fields
from anywire.testing.patience import expect
from anywire.testing.rig import Rig, read, submit
from anywire.transport import Reply


class ClientTests:
    async def test_client_is_answered_through_the_orchestrator(self, rig: Rig) -> None:
        await rig.agent("a")
        await rig.fleet(await rig.pipeline("a"), "client")
        client = await rig.client()
        assert await expect(client.models(), "a client is told the models") == [MODEL]
        script = Script(tag="whole", chunks=40)
        answer = await chat(client, script)
        choice = answer["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == (script.text(), "stop")
        assert answer["usage"] == {"completion_tokens": 40}
        script = Script(tag="stream", chunks=200)
        pieces = await rest(client.stream(model=MODEL, messages=[], **script_fields(script)))
        assert "".join(piece.text for piece in pieces) == script.text()
        assert (pieces[-1].finish_reason, pieces[-1].usage) == ("stop", {"completion_tokens": 200})

    async def test_errors_reach_the_client_with_their_code(self, rig: Rig) -> None:
        await rig.agent("a")
        await rig.fleet(await rig.pipeline("a"), "client")
        client = await rig.client()
        with pytest.raises(errors.ModelNotFound, match=MODEL):
            await chat(client, Script(), model="unknown")
        with pytest.raises(errors.EngineFailed, match="the script says so"):
            await chat(client, Script(tag="f", fail_after=0))
        with pytest.raises(errors.DeadlineExceeded):
            await chat(client, Script(tag="d", hold_after=0), deadline=0.2)

    async def test_cancel_by_a_client_reaches_the_engine(self, rig: Rig) -> None:
        _, engine = await rig.agent("a", slots=1)
        await rig.fleet(await rig.pipeline("a"), "client")
        client = await rig.client()
        stream = client.stream(model=MODEL, messages=[], **script_fields(Script(tag="left", chunks=9, hold_after=5)))
        await following(stream)
        await stream.aclose()
        await engine.event("cancelled", "left")
        asking = asyncio.create_task(chat(client, Script(tag="gone", hold_after=0)))
        await engine.event("holding", "gone")
        asking.cancel()
        await engine.event("cancelled", "gone")
        assert await chat(client, Script(tag="next"))

    async def test_slow_client_stops_its_engine_and_no_other(self, rig: Rig) -> None:
        _, engine = await rig.agent("a")
        await rig.fleet(await rig.pipeline("a", window=4), "client")
        client = await rig.client(window=4)
        script = Script(tag="slow", chunks=1000)
        slow = client.stream(model=MODEL, messages=[], **script_fields(script))
        first = await following(slow)
        for number in range(4):
            quick = Script(tag=f"quick{number}", chunks=300)
            pieces = client.stream(model=MODEL, messages=[], **script_fields(quick))
            assert "".join([piece.text for piece in await rest(pieces)]) == quick.text()
        produced = [event for event in engine.named("delta") if event[1] == "slow"]
        # 4 chunks of credit on either plane and one in between, each of them as many deltas as had been waiting.
        assert len(produced) <= 9 * 33
        assert first.text + "".join([piece.text for piece in await rest(slow)]) == script.text()

    async def test_tasks_of_a_crashed_client_end(self, rig: Rig) -> None:
        _, engine = await rig.agent("a", slots=1)
        await rig.fleet(await rig.pipeline("a"), "client")
        peer = await rig.peer("client", "c", script=Script(tag="orphan", chunks=10, hold_after=1))
        await engine.event("holding", "orphan")
        await peer.crash()
        await engine.event("cancelled", "orphan")
        client = await rig.client()
        assert await chat(client, Script(tag="next"))

    async def test_parent_uses_the_fleet_of_an_orchestrator_that_joined(self, rig: Rig) -> None:
        _, engine = await rig.agent("a", slots=3)
        child = await rig.pipeline("a")
        await rig.fleet(child, "agent")
        parent = await rig.pipeline(child.info.hub_id, only=child.info.hub_id)
        joined = next(agent for agent in parent.agents() if agent.agent_id == child.info.hub_id)
        offered = [(offer.model, offer.kinds) for offer in read_offers(joined.status.offers)]
        assert (offered, joined.status.slots) == ([(MODEL, ("chat",))], 3)
        assert [agent.agent_id for agent in child.agents()] == ["a"]
        scripts = [Script(tag=f"s{number}", chunks=100) for number in range(6)]
        texts = await asyncio.gather(*(read(submit(parent, script)) for script in scripts))
        assert texts == [script.text() for script in scripts]
        stream = submit(parent, Script(tag="c", chunks=10, hold_after=5))
        await engine.event("holding", "c")
        await following(stream)
        assert stream.agent_id == child.info.hub_id
        stream.cancel("enough")
        await engine.event("cancelled", "c")
        await rig.agent("b", slots=4)
        wanted = parent.agents_until(lambda agents: any(agent.status.slots == 7 for agent in agents))
        await expect(wanted, "the parent sees the slots of both agents")

    async def test_task_tells_how_many_orchestrators_passed_it_on(self, rig: Rig) -> None:
        hops: list[int] = []

        def on_task(task: TaskRequest, reply: Reply) -> None:
            hops.append(task.hops)
            echo(task, reply)

        await rig.port("a", on_task)
        child = await rig.pipeline("a", max_hops=1)
        await rig.fleet(child, "agent")
        parent = await rig.pipeline(child.info.hub_id, only=child.info.hub_id)
        await expect(parent.submit(Submission("chat", MODEL, "{}")).result(), "the parent's task ends")
        assert hops == [1]
        with pytest.raises(errors.ConfigError, match="max_hops"):
            await expect(parent.submit(Submission("chat", MODEL, "{}", hops=1)).result(), "the parent's task ends")
