"""Orchestrators that join a parent: what they report, what they refuse, and how a circle of them ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from anywire import errors
from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.identity import hub_info
from anywire.pipeline.fleet.serving import DEPTH
from anywire.pipeline.orchestrator import Orchestrator
from anywire.roles.fleet import leave
from anywire.selector import AgentView
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL, Script, fifo, least_loaded
from anywire.testing.puppet import PuppetTransport
from anywire.testing.recorder import PATIENCE
from anywire.testing.rig import Rig, read, submit


@pytest.fixture
async def networks(request: pytest.FixtureRequest) -> AsyncIterator[list[Rig]]:
    """Three networks that do not see each other."""
    async with AsyncExitStack() as stack:
        names = [f"{request.node.name}/{number}" for number in range(3)]
        yield [await stack.enter_async_context(Rig("memory", {"network": name})) for name in names]


async def seen_by(parent: Orchestrator, child: Orchestrator, state: str = "ready") -> None:
    def there(agents: list[AgentView]) -> bool:
        return any(each.agent_id == child.info.hub_id and each.status.state == state for each in agents)

    await asyncio.wait_for(parent.agents_until(there), PATIENCE)


async def test_the_sum_of_the_fleet_is_reported_and_follows_it(networks: list[Rig]) -> None:
    above, below, _ = networks
    child = await below.pipeline()
    joined = await above.fleet(child, "agent")
    parent = await above.pipeline()

    async def reported(state: str, models: tuple[str, ...], slots: int) -> None:
        def same(agents: list[AgentView]) -> bool:
            return [(each.status.state, tuple(each.offers), each.status.slots) for each in agents] == [
                (state, models, slots)
            ]

        await asyncio.wait_for(parent.agents_until(same), PATIENCE)

    await reported("starting", (), 0)
    first, _ = await below.agent("a", slots=3)
    await reported("ready", (MODEL,), 3)
    second, _ = await below.agent("b", slots=2, engine=SyntheticEngine(SyntheticConfig(models=["other"])))
    await reported("ready", ("other", MODEL), 5)
    first.begin_drain("test")
    await reported("ready", ("other",), 2)
    await first.close()
    await second.close()
    await reported("starting", (), 0)
    assert joined.status().resources[DEPTH] == 1


async def test_slots_of_the_fleet_bound_what_is_taken(networks: list[Rig]) -> None:
    above, below, _ = networks
    _, engine = await below.agent("a", slots=2)
    child = await below.pipeline("a")
    await above.fleet(child, "agent")
    parent = await above.pipeline(child.info.hub_id)
    streams = [submit(parent, Script(tag=f"t{number}", hold_after=0)) for number in range(4)]
    for number in range(2):
        await engine.event("holding", f"t{number}")
    assert (parent.waiting, child.waiting, len(engine.named("started"))) == (2, 0, 2)
    streams[0].cancel("test")
    await engine.event("holding", "t2")
    for stream in streams[1:]:
        stream.cancel("test")


async def test_what_cannot_begin_in_one_fleet_goes_elsewhere(networks: list[Rig]) -> None:
    """Its queue is full: no answer to a client of the parent as long as another agent has room."""
    above, below, _ = networks
    _, engine = await below.agent("busy", slots=1)
    child = Orchestrator(hub_info(), [below.new_transport()], fifo(1), least_loaded())
    await child.start()
    await below.seen(child, "busy")
    own = [submit(child, Script(tag=f"own{number}", hold_after=0)) for number in range(2)]
    await engine.event("holding", "own0")
    await above.fleet(child, "agent")
    parent = await above.pipeline(child.info.hub_id)
    stream = submit(parent, Script(tag="t"))
    await above.agent("free")
    assert await read(stream) == Script(tag="t").text()
    assert stream.agent_id == "free"
    assert parent.stats()["events"]["refused"] >= 1
    for each in own:
        each.cancel("test")
    await child.close()


async def test_agent_lost_below_is_tried_below_and_then_told(networks: list[Rig]) -> None:
    above, below, _ = networks
    mortal = await below.peer("agent", "mortal")
    await mortal.event("ready")
    child = await below.pipeline("mortal", max_attempts=1)
    await above.fleet(child, "agent")
    parent = await above.pipeline(child.info.hub_id)
    stream = submit(parent, Script(tag="t", hold_after=0))
    await mortal.event("holding", "t")
    await mortal.crash()
    with pytest.raises(errors.AgentLost, match="mortal was lost"):
        await read(stream)
    assert len(mortal.named("started")) == 1
    assert parent.stats()["events"].get("retries", 0) == 0


async def test_agent_lost_below_is_made_good_by_another_fleet(networks: list[Rig]) -> None:
    above, below, beside = networks
    mortal = await below.peer("agent", "mortal")
    await mortal.event("ready")
    child = await below.pipeline("mortal", max_attempts=1)
    await above.fleet(child, "agent")
    parent = await above.pipeline(child.info.hub_id)
    stream = submit(parent, Script(tag="t", hold_after=0))
    await mortal.event("holding", "t")
    _, engine = await beside.agent("sturdy")
    other = await beside.pipeline("sturdy")
    await above.fleet(other, "agent")
    await seen_by(parent, other)
    await mortal.crash()
    await engine.event("holding", "t")
    stream.cancel("seen enough")
    await engine.event("cancelled", "t")


async def test_draining_orchestrator_finishes_and_gets_nothing_new(networks: list[Rig]) -> None:
    above, below, _ = networks
    await below.agent("a")
    child = await below.pipeline("a")
    joined = await above.fleet(child, "agent")
    parent = await above.pipeline(child.info.hub_id)
    running = submit(parent, Script(tag="old", chunks=300))
    first = await anext(running)
    ending = asyncio.gather(leave(joined, PATIENCE), child.close(PATIENCE))
    await above.agent("other")
    await above.seen(parent, "other")
    new = submit(parent, Script(tag="new"))
    assert await read(new) == Script(tag="new").text()
    assert new.agent_id == "other"
    assert "".join(first.deltas) + await read(running) == Script(tag="old", chunks=300).text()
    await ending
    await above.seen(parent, absent=[child.info.hub_id])


async def test_what_outlasts_the_grace_is_told_so(networks: list[Rig]) -> None:
    above, below, _ = networks
    _, engine = await below.agent("a")
    child = await below.pipeline("a")
    joined = await above.fleet(child, "agent")
    parent = await above.pipeline(child.info.hub_id)
    endless = submit(parent, Script(tag="endless", chunks=2, hold_after=1))
    await engine.event("holding", "endless")
    await asyncio.gather(leave(joined, 0), child.close(0))
    await engine.event("cancelled", "endless")
    with pytest.raises(errors.ShuttingDown):
        await read(endless)


async def test_joining_its_own_network_an_orchestrator_does_not_become_its_own_agent(networks: list[Rig]) -> None:
    rig, _, _ = networks
    await rig.agent("a", slots=2)
    child = await rig.pipeline("a")
    joined = await rig.fleet(child, "agent")
    parent = await rig.pipeline(child.info.hub_id, "a")
    assert [agent.agent_id for agent in child.agents()] == ["a"]
    assert joined.status().slots == 2
    assert await read(submit(parent, Script(tag="t"))) == Script(tag="t").text()


async def test_a_circle_ends_in_a_clear_error_and_recovers_when_it_is_opened(
    networks: list[Rig], caplog: pytest.LogCaptureFixture
) -> None:
    left, right, _ = networks
    await left.agent("l", slots=2)
    await right.agent("r", slots=3)
    one = await left.pipeline("l", only="l")
    two = await right.pipeline("r")
    one_above = await right.fleet(one, "agent")
    two_above = await left.fleet(two, "agent")
    await seen_by(one, two, "failed")
    await seen_by(two, one, "failed")
    assert "in a circle?" in one_above.status().detail
    assert "in a circle?" in caplog.text
    assert await read(submit(one, Script(tag="t"))) == Script(tag="t").text(), "its own agents serve on"
    await two_above.close()
    await seen_by(two, one, "ready")
    assert one_above.status().slots == 2
    assert one_above.status().resources[DEPTH] == 1


async def test_a_task_passed_on_too_often_is_told_why(networks: list[Rig]) -> None:
    rig, _, _ = networks
    await rig.agent("a")
    one = await rig.pipeline("a", max_hops=3)
    assert await read(one.submit(Submission("chat", MODEL, Script(tag="t").body(), True, hops=3)))
    with pytest.raises(errors.ConfigError, match=r"max_hops.*circle"):
        one.submit(Submission("chat", MODEL, "{}", hops=4))


async def test_tree_of_three_levels(networks: list[Rig]) -> None:
    top, middle, bottom = networks
    _, engine = await bottom.agent("a", slots=2)
    lowest = await bottom.pipeline("a")
    await middle.fleet(lowest, "agent")
    between = await middle.pipeline(lowest.info.hub_id)
    joined = await top.fleet(between, "agent")
    await top.fleet(root := await top.pipeline(between.info.hub_id), "client")
    client = await top.client()
    assert await client.models() == root.models() == [MODEL]
    assert (joined.status().slots, joined.status().resources[DEPTH]) == (2, 2)
    script = Script(tag="t", chunks=50)
    pieces = client.stream(model=MODEL, messages=[], tag="t", chunks=50, size=0, hold_after=-1, fail_after=-1)
    assert "".join([piece.text async for piece in pieces]) == script.text()
    asking = asyncio.create_task(client.chat(model=MODEL, messages=[], tag="c", hold_after=0))
    await engine.event("holding", "c")
    asking.cancel()
    await engine.event("cancelled", "c")


# What a fleet that changes means to the tasks that wait for it


async def test_task_whose_model_is_gone_from_every_agent_waits_no_longer_than_for_an_agent(
    pipeline_of: Callable[..., Any], wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, agent_wait=5)
    wire.join("a", slots=1)
    running, waiting = (submit(pipeline, Script()) for _ in range(2))
    wire.accept(wire.requests[0][1])
    wire.report("a", models=["other"])
    clock.advance(5.1)
    with pytest.raises(errors.NoAgent, match=MODEL):
        await read(waiting)
    wire.answer(wire.requests[0][1])
    assert await read(running) == "answer"


async def test_refused_task_whose_model_is_gone_waits_no_longer_either(
    pipeline_of: Callable[..., Any], wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, agent_wait=5)
    wire.join("a", slots=1)
    stream = submit(pipeline, Script())
    wire.report("a", models=["other"])
    wire.chunk(wire.requests[0][1], 0, final=True, error=errors.to_wire(errors.Refused("test")))
    clock.advance(5.1)
    with pytest.raises(errors.NoAgent, match=MODEL):
        await read(stream)


async def test_model_that_nobody_brought_in_time_is_not_found(
    pipeline_of: Callable[..., Any], wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, agent_wait=5)
    stream = submit(pipeline, Script())
    wire.join("a", models=["other"])
    clock.advance(5.1)
    with pytest.raises(errors.ModelNotFound, match="models served: other"):
        await read(stream)
