"""Streams that are resumed elsewhere: when they can be, to whom, how much text is kept; and progress that is no
silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from anywire import errors
from anywire.messages import AgentStatus, Chunk, TaskRequest
from anywire.offers import Offer, offers_text
from anywire.pipeline.orchestrator import Orchestrator
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL, Script
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read, submit

Make = Callable[..., Any]
RESUMES = ("chat", "resume")


def join(wire: PuppetTransport, agent_id: str, *digests: str, model: str = MODEL) -> None:
    """An agent that can resume, with a model of that digest."""
    wire.join(agent_id, capabilities=RESUMES, slots=0)
    offered = tuple(Offer(model, digest=digest) for digest in digests or ("",))
    wire.sink.agent_reported(agent_id, 1, AgentStatus(agent_id, 1, "ready", offers_text(offered), 4))


def say(wire: PuppetTransport, task: TaskRequest, seq: int, *deltas: str, resumable: bool, final: bool = False) -> None:
    chunk = Chunk(task.hub_id, task.task_id, task.attempt, seq, deltas, resumable=resumable, final=final)
    wire.sink.chunk_received(*wire.receiver(task), chunk)


async def test_the_first_chunk_says_whether_an_attempt_can_be_resumed(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, resume=True)
    join(wire, "a")
    stream = submit(pipeline, Script())
    say(wire, wire.requests[0][1], 0, "one", resumable=False)
    say(wire, wire.requests[0][1], 1, "two", resumable=True)
    join(wire, "b")
    wire.lose("a")
    with pytest.raises(errors.AgentLost):
        await read(stream)
    assert len(wire.requests) == 1


async def test_an_attempt_is_resumed_from_its_text(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, resume=True)
    join(wire, "a")
    stream = submit(pipeline, Script())
    say(wire, wire.requests[0][1], 0, "one ", resumable=True)
    say(wire, wire.requests[0][1], 1, "two ", resumable=False)
    join(wire, "b")
    wire.lose("a")
    agent, request = wire.requests[1]
    assert (agent, request.resume) == ("b", "one two ")
    say(wire, request, 0, "three", resumable=True, final=True)
    assert await read(stream) == "one two three"


async def test_only_the_same_weights_go_on(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, resume=True)
    join(wire, "a", "sha:1")
    stream = submit(pipeline, Script())
    say(wire, wire.requests[0][1], 0, "one ", resumable=True)
    join(wire, "other", "sha:2")
    join(wire, "unknown", "")
    wire.lose("a")
    assert len(wire.requests) == 1
    join(wire, "same", "sha:1")
    agent, request = wire.requests[1]
    assert agent == "same"
    say(wire, request, 0, "two", resumable=True, final=True)
    assert await read(stream) == "one two"


async def test_weights_that_nobody_has_are_waited_for_as_long_as_for_an_agent(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, resume=True, agent_wait=5.0)
    join(wire, "a", "sha:1")
    stream = submit(pipeline, Script())
    say(wire, wire.requests[0][1], 0, "one ", resumable=True)
    join(wire, "other", "sha:2")
    wire.lose("a")
    clock.advance(4.9)
    assert pipeline.waiting == 1
    clock.advance(0.2)
    with pytest.raises(errors.NoAgent):
        await read(stream)


async def test_another_model_of_the_task_does_not_go_on(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, resume=True)
    join(wire, "a", model="m")
    stream = pipeline.submit(Submission("chat", "absent", '{"models":["m","n"]}', True))
    assert wire.requests[0][1].model == "m"
    say(wire, wire.requests[0][1], 0, "one ", resumable=True)
    join(wire, "n", model="n")
    wire.lose("a")
    assert len(wire.requests) == 1
    join(wire, "m", model="m")
    agent, request = wire.requests[1]
    assert (agent, request.model) == ("m", "m")
    say(wire, request, 0, "two", resumable=True, final=True)
    assert await read(stream) == "one two"


async def test_a_text_that_is_too_long_is_dropped_and_not_resumed(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, resume=True, resume_bytes=8)
    join(wire, "a")
    stream = submit(pipeline, Script())
    task = pipeline._tasks[stream.task_id]
    say(wire, wire.requests[0][1], 0, "äääx", resumable=True)
    assert (task.can_resume, task.kept_bytes) == (True, 7)
    say(wire, wire.requests[0][1], 1, "yz", resumable=True)
    assert not task.can_resume
    assert task.delivered == []
    join(wire, "b")
    wire.lose("a")
    with pytest.raises(errors.AgentLost):
        await read(stream)
    assert len(wire.requests) == 1


async def test_no_text_is_kept_where_nothing_is_resumed(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, resume=False)
    join(wire, "a")
    stream = submit(pipeline, Script())
    say(wire, wire.requests[0][1], 0, "one", resumable=True)
    assert pipeline._tasks[stream.task_id].delivered == []
    stream.cancel("enough")


# Progress


@pytest.mark.parametrize(
    ("timeout", "asks", "asked"), [(0, False, False), (0, True, True), (5, False, True)], ids=["off", "asked", "timed"]
)
async def test_progress_is_asked_for_where_somebody_needs_it(
    pipeline_of: Make, wire: PuppetTransport, timeout: float, asks: bool, asked: bool
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, first_token_timeout=timeout)
    wire.join("a")
    stream = pipeline.submit(Submission("chat", MODEL, "{}", True, progress=asks))
    request = wire.requests[0][1]
    assert request.progress == asked
    wire.progress(request, "loading", "weights")
    assert (stream.progress is not None and stream.progress.state == "loading") == asks
    stream.cancel("enough")


@pytest.mark.parametrize("state", ["queued", "loading"])
async def test_time_queued_or_loading_is_no_first_token_silence(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, state: Any
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, first_token_timeout=2.0, max_attempts=1)
    wire.join("a")
    stream = submit(pipeline, Script())
    request = wire.requests[0][1]
    wire.progress(request, state)
    for _ in range(300):
        clock.advance(0.1)
    assert wire.cancels() == []
    wire.progress(request, "running")
    for _ in range(15):
        clock.advance(0.1)
    assert wire.cancels() == []
    for _ in range(10):
        clock.advance(0.1)
    assert [cancel.task_id for cancel in wire.cancels()] == [request.task_id]
    with pytest.raises(errors.NoProgress, match="first_token_timeout"):
        await read(stream)


async def test_running_alone_is_silence(pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, first_token_timeout=2.0, max_attempts=1)
    wire.join("a")
    stream = submit(pipeline, Script())
    wire.progress(wire.requests[0][1], "running")
    for _ in range(25):
        clock.advance(0.1)
    with pytest.raises(errors.NoProgress):
        await read(stream)
