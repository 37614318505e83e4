"""Who is there: lives, links, leases, claims, and what never grows."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.patience import PATIENCE

from anywire import errors
from anywire.events import AgentJoined
from anywire.messages import AgentInfo, AgentStatus
from anywire.offers import offers, offers_text
from anywire.pipeline.orchestrator import Orchestrator
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL, OFFERS
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

Make = Callable[..., Any]


def chat(pipeline: Orchestrator) -> Any:
    return pipeline.submit(Submission("chat", MODEL, "{}", True))


def known(pipeline: Orchestrator) -> list[tuple[str, int, str]]:
    return [(agent.agent_id, agent.info.incarnation, agent.transport) for agent in pipeline.agents()]


# Lives


async def test_a_namesake_that_comes_and_goes_on_one_link_takes_no_other_along(pipeline_of: Make) -> None:
    first, second = PuppetTransport("first"), PuppetTransport("second")
    pipeline = await pipeline_of(first, second)
    first.join("a", incarnation=5)
    second.join("a", incarnation=5)
    second.join("a", incarnation=6)
    assert known(pipeline) == [("a", 6, "second")]
    second.lose("a", incarnation=6)
    assert known(pipeline) == [("a", 5, "first")]
    assert pipeline.agents()[0].status.state == "ready"
    stream = chat(pipeline)
    first.answer(first.requests[0][1])
    assert await read(stream) == "answer"


async def test_an_older_life_does_not_replace_a_newer_one(pipeline_of: Make) -> None:
    first, second = PuppetTransport("first"), PuppetTransport("second")
    pipeline = await pipeline_of(first, second)
    first.join("a", incarnation=6)
    first.join("a", incarnation=5)
    second.join("a", incarnation=5)
    assert known(pipeline) == [("a", 6, "first")]
    first.lose("a", incarnation=5)
    assert known(pipeline) == [("a", 6, "first")]


async def test_the_proof_of_an_agent_is_shown_to_nobody(pipeline_of: Make) -> None:
    """Neither in the events, nor to strategies."""
    wire = PuppetTransport()
    pipeline: Orchestrator = await pipeline_of(wire)
    async with pipeline.events.reader(AgentJoined) as events:
        wire.join("a", info=AgentInfo("a", 1, host="there", proof="aw1.of.an.agent"))
        joined = await anext(aiter(events))
    assert isinstance(joined, AgentJoined)
    assert (joined.info.host, joined.info.proof) == ("there", "")
    assert pipeline.agents()[0].info.proof == ""


async def test_an_agent_that_comes_back_keeps_its_place_and_only_some_are_remembered(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire)
    for number in range(3):
        wire.join(f"a{number}")
    wire.lose("a0")
    wire.join("a0", incarnation=2)
    assert [agent.agent_id for agent in pipeline.agents()] == ["a0", "a1", "a2"]
    for number in range(5000):
        wire.join(f"passing{number}", models=(f"model{number}",))
        wire.lose(f"passing{number}")
    registry = pipeline.registry
    assert len(registry._former) <= 1024
    assert len(registry.serving._formerly) <= 4096
    assert len(registry._links) == len(registry._members) == 3
    assert len(registry.serving._groups) == 1


# Leases


async def test_a_silent_agent_is_lost_after_its_lease_and_back_when_it_speaks(
    pipeline_of: Make, clock: SimulatedClock
) -> None:
    wire = PuppetTransport(liveliness="connection")
    pipeline = await pipeline_of(wire)
    wire.join("a", lease_ms=1000)
    clock.advance(0.9)
    wire.report("a")
    clock.advance(0.9)
    assert known(pipeline)
    clock.advance(0.3)
    assert not known(pipeline)
    wire.report("a")
    assert known(pipeline)
    assert pipeline.agents()[0].status.state == "ready"


@pytest.mark.parametrize("pause", [1.3, 3.0, 60.0])
async def test_the_hubs_own_pause_loses_nobody(pipeline_of: Make, clock: SimulatedClock, pause: float) -> None:
    wire = PuppetTransport(liveliness="connection")
    pipeline = await pipeline_of(wire)
    wire.join("alive", lease_ms=1000)
    wire.join("dead", lease_ms=1000)
    streams = [chat(pipeline) for _ in range(4)]
    for _, request in wire.requests:
        wire.chunk(request, 0, "begun ")
    clock.advance(0.2)
    clock.pause(pause)
    assert len(known(pipeline)) == 2
    wire.report("alive")
    clock.advance(0.3)
    assert len(known(pipeline)) == 2
    clock.advance(0.4)
    wire.report("alive")
    clock.advance(0.5)
    assert [agent_id for agent_id, _, _ in known(pipeline)] == ["alive"], "who is silent afterwards is lost in time"
    for agent_id, request in wire.requests:
        if agent_id == "alive":
            wire.chunk(request, 1, "and ended", final=True)
    ends = []
    for stream in streams:
        try:
            ends.append(await asyncio.wait_for(read(stream), PATIENCE))
        except errors.AgentLost:
            ends.append("lost")
    assert sorted(ends) == ["begun and ended"] * 2 + ["lost"] * 2


async def test_chunks_are_signs_of_life(pipeline_of: Make, clock: SimulatedClock) -> None:
    wire = PuppetTransport(liveliness="connection")
    pipeline = await pipeline_of(wire)
    wire.join("a", lease_ms=1000)
    stream = chat(pipeline)
    request = wire.requests[0][1]
    for number in range(10):
        clock.advance(0.7)
        wire.chunk(request, number, str(number))
    wire.chunk(request, 10, "", final=True)
    assert await read(stream) == "0123456789"


# Claims


@pytest.mark.parametrize(
    "claim",
    [
        {"slots": 10**9}, {"slots": 10**400}, {"slots": -1}, {"slots": "many"}, {"slots": True}, {"active": -1},
        {"queued": 2**40}, {"state": "nonsense-state"},
        {"offers": offers_text(offers(*(f"m{number}" for number in range(1001))))},
        {"offers": offers_text(offers("evil\x1b[2J"))}, {"offers": offers_text(offers(""))}, {"offers": 5},
        {"offers": offers_text(offers("x" * 300))}, {"offers": "{"}, {"offers": '[{"model": 5}]'},
        {"offers": '[{"model": "m", "slots": 1' + "0" * 400 + "}]"}, {"offers": '[{"model": "m", "state": "odd"}]'},
        {"offers": '[{"model": "m", "context": -1}]'}, {"offers": '[{"model": "m", "kinds": ["\\u0007"]}]'},
        {"offers": "[" * 100_000}, {"offers": " " * 600_000},
        {"resources": {"load": float("nan")}}, {"resources": {"\n": 1.0}},
        {"resources": {str(number): 1.0 for number in range(1000)}},
    ],
    ids=lambda claim: str(claim)[:40],
)  # fmt: skip
async def test_claims_out_of_bounds_are_dropped_and_the_agent_stays_as_it_was(
    pipeline_of: Make, wire: PuppetTransport, claim: dict[str, Any]
) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a", slots=3)
    said: dict[str, Any] = {"agent_id": "a", "incarnation": 1, "offers": OFFERS}
    wire.sink.agent_reported("a", 1, AgentStatus(**said | claim))
    (agent,) = pipeline.agents()
    assert (agent.status.slots, tuple(agent.offers), agent.status.state) == (3, (MODEL,), "ready")
    assert pipeline.stats()["events"]["claims_rejected"] == 1
    stream = chat(pipeline)
    wire.answer(wire.requests[0][1])
    assert await read(stream) == "answer"


@pytest.mark.parametrize(
    "claim",
    [{"agent_id": ""}, {"agent_id": "a\x1b[31m"}, {"agent_id": "x" * 300}, {"lease_ms": 0}, {"lease_ms": 10**12},
     {"incarnation": -1}, {"host": "h\n"}, {"capabilities": tuple(map(str, range(100)))}],
    ids=str,
)  # fmt: skip
async def test_announcements_out_of_bounds_are_dropped(
    pipeline_of: Make, wire: PuppetTransport, claim: dict[str, Any]
) -> None:
    pipeline = await pipeline_of(wire)
    said: dict[str, Any] = {"agent_id": "a", "incarnation": 1}
    wire.sink.agent_joined(AgentInfo(**said | claim))
    assert not pipeline.agents()


async def test_a_model_named_a_million_times_comes_and_goes_at_once(pipeline_of: Make, wire: PuppetTransport) -> None:
    """Dropped as it is over the bound; within the bound each name counts once."""
    pipeline = await pipeline_of(wire)
    wire.join("a", models=("m",) * 10**6)
    assert pipeline.agents()[0].status.state == "starting"
    wire.join("b", models=("m",) * 1000)
    assert tuple(pipeline.registry.agent("b").offers) == ("m",)
    wire.lose("a")
    wire.lose("b")
    assert not pipeline.models()


async def test_what_is_shown_of_an_agent_is_printable(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    detail = "out of memory\n\x1b[2J" + "x" * 10_000
    wire.sink.agent_reported("a", 1, AgentStatus("a", 1, "failed", detail=detail))
    shown = pipeline.agents()[0].status.detail
    assert shown.startswith("out of memory  [2J")
    assert shown.isprintable()
    assert len(shown) <= 4096


# Health


async def test_of_four_agents_three_that_always_fail_get_little(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire)
    for name in ("bad1", "bad2", "bad3", "good"):
        wire.join(name, slots=1)
    failed = 0
    for _ in range(40):
        stream = chat(pipeline)
        answered = 0
        while answered < len(wire.requests):
            answered = len(wire.requests)
            agent_id, request = wire.requests[-1]
            if agent_id == "good":
                wire.answer(request)
            else:
                wire.chunk(request, 0, final=True, error=errors.to_wire(errors.EngineFailed("HTTP 500")))
        try:
            await read(stream)
        except errors.EngineFailed:
            failed += 1
        clock.advance(0.01)
    assert failed <= 3
    sent = [agent_id for agent_id, _ in wire.requests]
    assert all(sent.count(name) <= 4 for name in ("bad1", "bad2", "bad3"))


async def test_after_its_rest_an_agent_gets_one_probe(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1)
    wire.join("a", slots=4)
    for _ in range(3):
        stream = chat(pipeline)
        wire.chunk(wire.requests[-1][1], 0, final=True, error=errors.to_wire(errors.EngineFailed("broken")))
        with pytest.raises(errors.EngineFailed):
            await read(stream)
    wire.join("b", slots=100)
    assert pipeline.health.state("a") == "open"
    begun = len(wire.requests)
    for _ in range(5):
        chat(pipeline)
    assert {agent for agent, _ in wire.requests[begun:]} == {"b"}
    clock.advance(1.1)
    begun = len(wire.requests)
    for _ in range(5):
        chat(pipeline)
    probes = [request for agent, request in wire.requests[begun:] if agent == "a"]
    assert len(probes) == 1
    wire.answer(probes[0])
    assert pipeline.health.state("a") == "closed"


async def test_an_agent_alone_is_never_rested(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1)
    wire.join("a")
    for _ in range(10):
        stream = chat(pipeline)
        wire.chunk(wire.requests[-1][1], 0, final=True, error=errors.to_wire(errors.EngineFailed("broken")))
        with pytest.raises(errors.EngineFailed):
            await asyncio.wait_for(read(stream), PATIENCE)
    assert len(wire.requests) == 10


@pytest.mark.parametrize(
    "error",
    [errors.InvalidRequest("bad"), errors.EngineFailed("404", status=404), errors.Refused("busy"),
     errors.TaskCancelled("by its operator")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_what_is_not_the_agents_fault_rests_nobody(
    pipeline_of: Make, wire: PuppetTransport, error: errors.AnywireError
) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1)
    wire.join("a")
    for _ in range(6):
        chat(pipeline)
        wire.chunk(wire.requests[-1][1], 0, final=True, error=errors.to_wire(error))
        wire.report("a")
    assert pipeline.health.state("a") == "closed"


async def test_a_link_that_cannot_be_sent_over_rests_and_the_next_one_is_used(pipeline_of: Make) -> None:
    first, second = PuppetTransport("first"), PuppetTransport("second")
    pipeline = await pipeline_of(first, second, max_attempts=1)
    first.join("a")
    second.join("a")
    first.fail_next = errors.AgentUnavailable("no link")
    waiting = chat(pipeline)
    for _ in range(2):
        first.fail_next = errors.AgentUnavailable("no link")
        first.report("a")
    assert pipeline.agents()[0].transport == "second"
    assert pipeline.stats()["events"]["fallbacks"] == 1
    second.report("a")
    second.answer(second.requests[0][1])
    assert await read(waiting) == "answer"
