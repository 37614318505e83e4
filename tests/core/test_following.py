"""Listing and following tasks: who sees what, and a follower that reads nothing."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from anywire import errors
from anywire.caller import ANYBODY, OPERATOR, Caller
from anywire.messages import TaskRequest
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline.tasks import following
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.doubles import MODEL
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

Make = Callable[..., Any]

ALICE, BOB = Caller("key-a", "alice"), Caller("key-b", "bob")


def chat(pipeline: Orchestrator, caller: Caller = ANYBODY, **more: Any) -> TaskStream:
    return pipeline.submit(Submission("chat", MODEL, "{}", True, caller=caller, **more))


async def test_a_list_shows_what_its_caller_may_see_oldest_first(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a", slots=1)
    first, second, third = (
        chat(pipeline, ALICE, session="s", parent="p"),
        chat(pipeline, BOB, priority=3),
        chat(pipeline),
    )
    wire.chunk(wire.requests[0][1], 0, "one")
    assert [each.task_id for each in pipeline.tasks(OPERATOR)] == [first.task_id, second.task_id, third.task_id]
    assert [each.task_id for each in pipeline.tasks(Caller(role="observe"))] == [
        first.task_id,
        second.task_id,
        third.task_id,
    ]
    assert [each.task_id for each in pipeline.tasks(BOB)] == [second.task_id]
    assert pipeline.tasks(ANYBODY) == []
    running, waiting, _ = pipeline.tasks()
    assert (running.place, running.agent_id, running.attempt, running.chunks) == ("running", "a", 1, 1)
    assert (running.session, running.parent, running.caller) == ("s", "p", ALICE)
    assert (waiting.place, waiting.agent_id, waiting.priority) == ("queued", "", 3)
    first.cancel("over")
    assert [each.task_id for each in pipeline.tasks()] == [second.task_id, third.task_id]


async def test_a_follower_gets_from_now_on_what_the_reader_gets(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    stream = chat(pipeline, ALICE)
    request = wire.requests[0][1]
    wire.chunk(request, 0, "before ")
    follower = pipeline.follow(stream.task_id, ALICE)
    wire.chunk(request, 1, "after ")
    wire.chunk(request, 2, "end", final=True)
    assert ["".join(chunk.deltas) async for chunk in follower] == ["after ", "end"]
    assert await read(stream) == "before after end"


async def test_a_follower_gets_the_error_too(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    stream = chat(pipeline)
    follower = pipeline.follow(stream.task_id)
    waiting = asyncio.create_task(anext(follower))
    await asyncio.sleep(0)
    stream.cancel("over")
    with pytest.raises(errors.TaskCancelled):
        await waiting


async def test_nobody_follows_the_task_of_another_tenant(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    stream = chat(pipeline, ALICE)
    with pytest.raises(errors.InvalidRequest, match="no task"):
        pipeline.follow(stream.task_id, BOB)
    with pytest.raises(errors.InvalidRequest, match="no task"):
        pipeline.follow("unknown")


async def test_a_follower_that_reads_nothing_misses_chunks_and_holds_nobody_up(
    pipeline_of: Make, wire: PuppetTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MAX_CHUNKS", 4)
    pipeline = await pipeline_of(wire, window=8)
    wire.join("a")
    stream = chat(pipeline)
    request: TaskRequest = wire.requests[0][1]
    follower = pipeline.follow(stream.task_id)
    for number in range(10):
        wire.chunk(request, number, f"{number}")
        assert "".join((await anext(stream)).deltas) == f"{number}"
    wire.chunk(request, 10, "end", final=True)
    assert [chunk.seq async for chunk in follower] == [0, 1, 2, 3, 10]


async def test_long_chunks_of_a_slow_follower_are_bounded_by_their_characters(
    pipeline_of: Make, wire: PuppetTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MAX_CHARS", 10)
    pipeline = await pipeline_of(wire)
    wire.join("a")
    stream = chat(pipeline)
    follower = pipeline.follow(stream.task_id)
    for number in range(3):
        wire.chunk(wire.requests[0][1], number, "x" * 20)
    wire.chunk(wire.requests[0][1], 3, final=True)
    assert [chunk.seq async for chunk in follower] == [0, 3]


async def test_a_closed_follower_is_followed_by_nothing(
    pipeline_of: Make, wire: PuppetTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MAX_FOLLOWERS", 1)
    pipeline = await pipeline_of(wire)
    wire.join("a")
    stream = chat(pipeline)
    follower = pipeline.follow(stream.task_id)
    with pytest.raises(errors.QueueFull):
        pipeline.follow(stream.task_id)
    await follower.aclose()
    await follower.aclose()
    assert [chunk async for chunk in follower] == []
    assert stream.followers == ()
    await pipeline.follow(stream.task_id).aclose()


async def test_models_with_the_agents_that_offer_them(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a", models=["m", "n"])
    wire.join("b", models=["m"])
    found = pipeline.offers()
    assert {model: [agent for agent, _ in offered] for model, offered in found.items()} == {"m": ["a", "b"], "n": ["a"]}
