"""Streams that are resumed elsewhere: when they can be, to whom, how much text is kept; and progress that is no
silence."""

from __future__ import annotations

import json
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


async def test_weights_that_were_read_before_the_first_token_go_on(pipeline_of: Make, wire: PuppetTransport) -> None:
    """An agent that has just begun offers its models before it knows what names their weights."""
    pipeline: Orchestrator = await pipeline_of(wire, resume=True)
    join(wire, "a", "")
    stream = submit(pipeline, Script())
    known = offers_text((Offer(MODEL, digest="sha:1"),))
    wire.sink.agent_reported("a", 1, AgentStatus("a", 1, "ready", known, 4))
    say(wire, wire.requests[0][1], 0, "one ", resumable=True)
    join(wire, "other", "sha:2")
    join(wire, "same", "sha:1")
    wire.lose("a")
    agent, request = wire.requests[1]
    assert (agent, request.resume) == ("same", "one ")
    say(wire, request, 0, "two", resumable=True, final=True)
    assert await read(stream) == "one two"


async def test_weights_that_nobody_has_are_waited_for_and_then_the_client_reads_that_there_are_none(
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
    with pytest.raises(errors.AgentLost) as caught:
        await read(stream)
    assert str(caught.value) == (
        "agent a was lost over puppet while it streamed the answer: test; the answer is not resumed: no agent that can "
        f"go on from a text offered model {MODEL!r} with the same weights within 5 s"
    )
    assert caught.value.agent_id == "a"


async def test_weights_that_leave_unseen_are_missed_in_time(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    """Other weights serve the model all the time: nothing tells that those of the stream are gone."""
    pipeline: Orchestrator = await pipeline_of(wire, agent_wait=5.0, max_attempts=1)
    join(wire, "a", "sha:1")
    stream = submit(pipeline, Script())
    say(wire, wire.requests[0][1], 0, "one ", resumable=True)
    task = pipeline._tasks[stream.task_id]
    task.attempts_left = 2
    join(wire, "busy", "sha:1")
    busy = [submit(pipeline, Script()) for _ in range(7)]
    assert [agent for agent, _ in wire.requests].count("busy") == 4
    for agent, request in wire.requests:
        if agent == "busy":
            wire.accept(request)
    join(wire, "other", "sha:2")
    wire.lose("a")
    clock.advance(60)
    assert task.place == "held", "an agent with its weights is there, and busy"
    wire.lose("busy")
    clock.advance(11)
    with pytest.raises(errors.AgentLost, match="no agent that can go on from a text"):
        await read(stream)
    for each in busy:
        each.cancel("enough")


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


async def test_an_agent_that_offers_both_models_goes_on_as_the_one_that_began(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, resume=True)
    wire.join("a", models=["n"], capabilities=RESUMES)
    body = json.dumps({"models": ["m", "n"]})
    stream = pipeline.submit(Submission("chat", "m", body, stream=True))
    assert wire.requests[0][1].model == "n"
    say(wire, wire.requests[0][1], 0, "one ", resumable=True)
    wire.join("b", models=["m", "n"], capabilities=RESUMES)
    wire.lose("a")
    agent_id, request = wire.requests[1]
    assert (agent_id, request.model, request.resume) == ("b", "n", "one ")
    say(wire, request, 0, "two", resumable=True, final=True)
    assert (await read(stream), stream.model) == ("one two", "n")


async def test_a_text_that_is_too_long_is_dropped_and_not_resumed(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, resume=True, resume_bytes=8)
    join(wire, "a")
    stream = submit(pipeline, Script())
    task = pipeline._tasks[stream.task_id]
    say(wire, wire.requests[0][1], 0, "äääx", resumable=True)
    assert (task.can_resume, task.kept_bytes) == (True, 7)
    say(wire, wire.requests[0][1], 1, "yz", resumable=True)
    assert not task.can_resume
    assert task.text == ""
    join(wire, "b")
    wire.lose("a")
    with pytest.raises(errors.AgentLost, match=r"not resumed: it is longer than 8 bytes \(pipeline\.resume_bytes\)"):
        await read(stream)
    assert len(wire.requests) == 1


async def test_no_text_is_kept_where_nothing_is_resumed(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, resume=False)
    join(wire, "a")
    stream = submit(pipeline, Script())
    say(wire, wire.requests[0][1], 0, "one", resumable=True)
    assert pipeline._tasks[stream.task_id].text == ""
    stream.cancel("enough")


async def test_no_chunk_is_kept_that_has_no_text(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire)
    join(wire, "a")
    stream = submit(pipeline, Script())
    task = pipeline._tasks[stream.task_id]
    say(wire, wire.requests[0][1], 0, "ä", resumable=True)
    say(wire, wire.requests[0][1], 1, *[""] * 1000, "\r\n", resumable=False)
    assert (task.text, task.kept_bytes) == ("ä\r\n", 4)
    stream.cancel("enough")


# What a client reads whose stream is not resumed


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "it has tools"),
        ({"functions": [{"name": "f"}]}, "it has functions"),
        ({"logprobs": True}, "it has logprobs"),
        ({"response_format": {"type": "json_object"}}, "it has response_format"),
        ({"n": 2}, "it has n"),
        ({"best_of": 2}, "it has best_of"),
        ({"grammar": "root ::= x"}, "its engine cannot go on from a text"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
async def test_what_hinders_resuming_is_said(
    pipeline_of: Make, wire: PuppetTransport, body: dict[str, Any], why: str
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire)
    join(wire, "a")
    join(wire, "b")
    stream = pipeline.submit(Submission("chat", MODEL, json.dumps(body), True))
    agent, request = wire.requests[0]
    say(wire, request, 0, "one ", resumable=False)
    wire.lose(agent)
    with pytest.raises(errors.AgentLost, match="while it streamed the answer: test; ") as caught:
        await read(stream)
    assert str(caught.value).endswith(f"; the answer is not resumed: {why}")
    assert len(wire.requests) == 1


async def test_a_member_beyond_text_ends_what_could_be_resumed(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire)
    join(wire, "a")
    join(wire, "b")
    stream = submit(pipeline, Script())
    agent, request = wire.requests[0]
    say(wire, request, 0, "one ", resumable=True)
    extra = '[{"index":0,"delta":{"reasoning_content":"hm"}}]'
    wire.sink.chunk_received(
        *wire.receiver(request), Chunk(request.hub_id, request.task_id, request.attempt, 1, ("",), extra)
    )
    wire.lose(agent)
    with pytest.raises(errors.AgentLost, match="not resumed: it is more than plain text"):
        await read(stream)


async def test_a_stream_without_an_attempt_left_says_so(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, max_attempts=1)
    join(wire, "a")
    join(wire, "b")
    stream = submit(pipeline, Script())
    agent, request = wire.requests[0]
    say(wire, request, 0, "one ", resumable=True)
    wire.lose(agent)
    with pytest.raises(errors.AgentLost, match=r"not resumed: no attempt is left \(pipeline\.max_attempts\)"):
        await read(stream)


async def test_a_stream_that_broke_the_rules_says_nothing_of_resuming(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire)
    join(wire, "a")
    stream = submit(pipeline, Script())
    _, request = wire.requests[0]
    say(wire, request, 0, "one ", resumable=True)
    say(wire, request, 5, "six ", resumable=True)
    with pytest.raises(errors.StreamCorrupted) as caught:
        await read(stream)
    assert "resumed" not in str(caught.value)


async def test_without_migration_nothing_is_said_of_it(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, resume=False)
    join(wire, "a")
    join(wire, "b")
    stream = submit(pipeline, Script())
    agent, request = wire.requests[0]
    say(wire, request, 0, "one ", resumable=True)
    wire.lose(agent)
    with pytest.raises(errors.AgentLost) as caught:
        await read(stream)
    assert str(caught.value) == f"agent {agent} was lost over puppet while it streamed the answer: test"


async def test_an_answer_that_is_not_streamed_is_sent_again(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire)
    join(wire, "a")
    join(wire, "b")
    stream = pipeline.submit(Submission("chat", MODEL, '{"logprobs":true,"n":2}', False))
    agent, _ = wire.requests[0]
    wire.lose(agent)
    again, request = wire.requests[1]
    assert again != agent
    assert request.resume == ""
    wire.answer(request, "whole")
    assert await read(stream) == "whole"


async def test_an_engine_that_refuses_to_go_on_is_no_new_error(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire)
    join(wire, "a")
    join(wire, "b")
    stream = submit(pipeline, Script())
    first, request = wire.requests[0]
    say(wire, request, 0, "one ", resumable=True)
    wire.lose(first)
    refused = errors.EngineFailed("the server does not resume this answer: no", status=400)
    _, request = wire.requests[1]
    wire.sink.chunk_received(*wire.receiver(request), wire.final(request, refused))
    with pytest.raises(errors.AgentLost) as caught:
        await read(stream)
    assert str(caught.value).endswith(
        "answer: test; the answer is not resumed: the server does not resume this answer: no"
    )
    assert caught.value.agent_id == first


# What resuming costs


async def test_an_engine_that_fails_in_the_middle_is_made_good_elsewhere(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire)
    join(wire, "a")
    join(wire, "b")
    stream = submit(pipeline, Script())
    first, request = wire.requests[0]
    say(wire, request, 0, "one ", resumable=True)
    broken = errors.to_wire(errors.EngineFailed("llama.cpp died"))
    wire.chunk(request, 1, final=True, error=broken)
    second, request = wire.requests[1]
    assert (second, request.resume) == ("b" if first == "a" else "a", "one ")
    say(wire, request, 0, "two", resumable=True, final=True)
    assert await read(stream) == "one two"


async def test_resumed_streams_cost_nothing_of_the_budget_for_retries(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    """An agent dies with a hundred streams: none is broken off, and tasks without a token are as many as may be."""
    pipeline: Orchestrator = await pipeline_of(wire, retries={"base": 0, "share": 0, "floor": 2, "repeat": ["chat"]})
    wire.join("a", capabilities=RESUMES, slots=200)
    streams = [submit(pipeline, Script()) for _ in range(100)]
    for _, request in list(wire.requests):
        say(wire, request, 0, "one ", resumable=True)
    fresh = [submit(pipeline, Script()) for _ in range(3)]
    wire.join("b", capabilities=RESUMES, slots=200)
    wire.lose("a")
    sent = wire.requests[103:]
    assert sorted(request.resume for _, request in sent) == [""] * 2 + ["one "] * 100
    for _, request in sent:
        say(wire, request, 0, "two", resumable=True, final=True)
    assert [await read(stream) for stream in streams] == ["one two"] * 100
    denied = 0
    for stream in fresh:
        try:
            await read(stream)
        except errors.AgentLost:
            denied += 1
    assert denied == 1
    events = pipeline.stats()["events"]
    assert (events["resumes"], events["retries"]) == (100, 2)


async def test_a_stream_that_gets_on_is_moved_at_once_however_often(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    """With pauses that grow: only failures in a row make a stream wait, and agents that were lost count as others."""
    pipeline: Orchestrator = await pipeline_of(wire, max_attempts=20, retries={"base": 60.0, "longest": 600.0})
    join(wire, "a")
    join(wire, "b")
    stream = submit(pipeline, Script())
    for number in range(10):
        assert len(wire.requests) == number + 1, f"move {number} waits"
        agent, request = wire.requests[number]
        say(wire, request, 0, f"{number} ", resumable=True)
        wire.lose(agent)
        join(wire, agent)
    _, request = wire.requests[10]
    assert request.resume == "".join(f"{number} " for number in range(10))
    say(wire, request, 0, "end", resumable=True, final=True)
    assert await read(stream) == "0 1 2 3 4 5 6 7 8 9 end"


@pytest.mark.parametrize(
    ("says", "resumed"), [(True, True), (False, False), (None, False)], ids=["yes", "no", "unsaid"]
)
async def test_an_offer_says_whether_it_goes_on_where_its_agent_does_not(
    pipeline_of: Make, wire: PuppetTransport, says: bool | None, resumed: bool
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire)
    join(wire, "a")
    stream = submit(pipeline, Script())
    say(wire, wire.requests[0][1], 0, "one ", resumable=True)
    wire.join("b", slots=0)
    offered = Offer(MODEL, features={} if says is None else {"resume": says})
    wire.sink.agent_reported("b", 1, AgentStatus("b", 1, "ready", offers_text((offered,)), 4))
    wire.lose("a")
    assert [agent for agent, _ in wire.requests] == ["a", "b"][: 1 + resumed]
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
