"""The pipeline's rules, with the test as wire and clock."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from anywire import errors
from anywire.errors import AnywireError
from anywire.messages import Chunk
from anywire.pipeline.orchestrator import Orchestrator
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

Make = Callable[..., Any]


def chat(orchestrator: Orchestrator, *, stream: bool = True, **settings: Any) -> Any:
    return orchestrator.submit(Submission("chat", MODEL, "{}", stream, **settings))


async def test_answer_comes_with_its_agent_and_stages(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    stream = chat(pipeline)
    ((agent_id, request),) = wire.requests
    assert (agent_id, request.attempt, request.credit, request.time_left_ms) == ("a", 1, 64, 600_000)
    wire.chunk(request, 0, "one ")
    wire.chunk(request, 1, "two ", "three", final=True)
    assert await read(stream) == "one two three"
    assert (stream.agent_id, stream.transport, stream.attempts) == ("a", "puppet", 1)
    assert stream.stages.received <= stream.stages.admitted <= stream.stages.selected <= stream.stages.sent
    assert pipeline.agents()[0].in_flight == 0


@pytest.mark.parametrize(("seq", "what"), [(2, "gap"), (0, "duplicate")])
async def test_gap_and_duplicate_are_detected_never_shown(
    pipeline_of: Make, wire: PuppetTransport, seq: int, what: str
) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    stream = chat(pipeline)
    request = wire.requests[0][1]
    wire.chunk(request, 0, "fine")
    wire.chunk(request, seq, "wrong")
    assert (await anext(stream)).deltas == ("fine",)
    with pytest.raises(errors.StreamCorrupted, match=what):
        await anext(stream)
    assert [cancel.task_id for cancel in wire.cancels()] == [request.task_id]


async def test_task_waits_for_a_slot_and_goes_when_one_is_free(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a", slots=1)
    streams = [chat(pipeline) for _ in range(3)]
    for number, stream in enumerate(streams):
        assert len(wire.requests) == number + 1
        wire.answer(wire.requests[-1][1], f"answer {number}")
        assert await read(stream) == f"answer {number}"


async def test_queue_full(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, queue=2)
    wire.join("a", slots=1)
    for _ in range(3):
        chat(pipeline)
    with pytest.raises(errors.QueueFull, match="max_queue_size"):
        chat(pipeline)
    wire.answer(wire.requests[0][1])
    chat(pipeline)


async def test_lost_agent_before_a_token_means_another_attempt(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    stream = chat(pipeline)
    old = wire.requests[0][1]
    wire.join("b")
    wire.lose("a")
    agent_id, again = wire.requests[1]
    assert (agent_id, again.task_id, again.attempt) == ("b", old.task_id, 2)
    wire.chunk(old, 0, "late and stale", final=True)
    wire.answer(again, "right")
    assert await read(stream) == "right"
    assert pipeline.stats()["events"]["stale_chunks"] == 1


async def test_lost_agent_after_a_token_is_an_error(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    wire.join("b")
    stream = chat(pipeline)
    agent_id, request = wire.requests[0]
    wire.chunk(request, 0, "half")
    wire.lose(agent_id)
    assert (await anext(stream)).deltas == ("half",)
    with pytest.raises(errors.AgentLost, match="while it streamed") as caught:
        await anext(stream)
    assert (caught.value.phase, caught.value.agent_id) == ("streaming", agent_id)
    assert len(wire.requests) == 1


async def test_stream_resumes_elsewhere_when_configured(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, resume=True)
    wire.join("a", capabilities=("chat", "resume"))
    stream = chat(pipeline)
    wire.chunk(wire.requests[0][1], 0, "one ", "two ")
    wire.join("b", capabilities=("chat", "resume"))
    wire.lose("a")
    agent_id, again = wire.requests[1]
    assert (agent_id, again.resume) == ("b", "one two ")
    wire.chunk(again, 0, "three", final=True)
    assert await read(stream) == "one two three"


async def test_stream_does_not_resume_on_an_engine_that_cannot(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, resume=True)
    wire.join("a")
    stream = chat(pipeline)
    wire.chunk(wire.requests[0][1], 0, "one ")
    wire.join("b")
    wire.lose("a")
    with pytest.raises(errors.AgentLost):
        await read(stream)


async def test_attempts_are_bounded(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, max_attempts=3)
    stream = chat(pipeline)
    for life in range(1, 5):
        wire.join("a", incarnation=life)
        wire.lose("a", incarnation=life)
    with pytest.raises(errors.AgentLost):
        await read(stream)
    assert [request.attempt for _, request in wire.requests] == [1, 2, 3]


async def test_refusal_goes_elsewhere_and_is_no_lost_attempt(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1)
    wire.join("a", slots=4)
    stream = chat(pipeline)
    refused = errors.to_wire(errors.Refused("no free slot"))
    for _ in range(5):
        wire.chunk(wire.requests[-1][1], 0, final=True, error=refused)
        sent = len(wire.requests)
        chat(pipeline).cancel("")  # the blocked agent is not asked again …
        assert len(wire.requests) == sent
        wire.report("a", slots=4)  # … until it reports a free slot
        assert len(wire.requests) == sent + 1
    wire.answer(wire.requests[-1][1])
    assert await read(stream) == "answer"


async def test_engine_failure_is_tried_elsewhere_only_before_a_token(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    wire.join("b")
    failed = errors.to_wire(errors.EngineFailed("out of memory"))
    stream = chat(pipeline)
    wire.chunk(wire.requests[0][1], 0, final=True, error=failed)
    assert {agent_id for agent_id, _ in wire.requests} == {"a", "b"}
    wire.chunk(wire.requests[1][1], 0, "token")
    wire.chunk(wire.requests[1][1], 1, final=True, error=failed)
    with pytest.raises(errors.EngineFailed, match="out of memory"):
        await read(stream)


async def test_clients_fault_is_passed_through_and_not_retried(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    wire.join("b")
    fault = errors.InvalidRequest("too hot", param="temperature", status=422, detail_code="hot")
    stream = chat(pipeline)
    wire.chunk(wire.requests[0][1], 0, final=True, error=errors.to_wire(fault))
    with pytest.raises(errors.InvalidRequest, match="too hot") as caught:
        await read(stream)
    assert (caught.value.param, caught.value.status, caught.value.detail_code) == ("temperature", 422, "hot")
    assert len(wire.requests) == 1
    assert sum(agent.failed for agent in pipeline.agents()) == 0


async def test_deadline_in_the_queue_and_on_the_agent(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a", slots=1)
    running, queued = chat(pipeline, deadline_s=2.0), chat(pipeline, deadline_s=1.0)
    clock.advance(1.5)
    with pytest.raises(errors.DeadlineExceeded, match="in the queue"):
        await read(queued)
    clock.advance(1.0)
    with pytest.raises(errors.DeadlineExceeded, match="on agent a"):
        await read(running)
    (cancel,) = wire.cancels()
    assert cancel.reason.startswith("deadline exceeded")
    assert pipeline.agents()[0].in_flight == 1, "the engine has not ended yet"
    wire.stop(wire.requests[0][1])
    assert pipeline.agents()[0].in_flight == 0


async def test_unknown_model_is_refused_and_lists_the_known(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a", models=("m1", "m2"))
    with pytest.raises(errors.ModelNotFound, match="m1, m2"):
        pipeline.submit(Submission("chat", "m3", "{}"))
    with pytest.raises(errors.InvalidRequest, match="embedding"):
        pipeline.submit(Submission("embedding", "m1", "{}"))


async def test_a_model_that_nobody_can_offer_is_refused_whatever_else_would_do(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire)
    for body in ("{}", '{"models":["m1"]}'):
        with pytest.raises(errors.InvalidRequest, match="at most 256 characters") as refused:
            pipeline.submit(Submission("chat", "x" * 257, body))
        assert refused.value.param == "model"
        wire.join("a", models=("m1",))


async def test_no_agent_waits_then_says_so(pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline = await pipeline_of(wire, agent_wait=3.0)
    lost, found = chat(pipeline), chat(pipeline)
    clock.advance(2.9)
    assert pipeline.stats()["tasks"]["queued"] == 2
    lost.cancel("gone")
    wire.join("a", slots=1)
    clock.advance(1.0)
    wire.answer(wire.requests[0][1])
    assert await read(found) == "answer"
    wire.lose("a")
    third = chat(pipeline)
    clock.advance(3.1)
    with pytest.raises(errors.NoAgent, match="3 s"):
        await read(third)


async def test_queued_tasks_of_a_lost_agent_do_not_wait_for_ever(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, agent_wait=3.0)
    wire.join("a", slots=1)
    streams = [chat(pipeline) for _ in range(3)]
    wire.lose("a")
    clock.advance(3.1)
    for stream in streams:
        with pytest.raises(errors.NoAgent):
            await read(stream)


async def test_credit_follows_the_reader(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, window=4)
    wire.join("a")
    stream = chat(pipeline)
    request = wire.requests[0][1]
    assert request.credit == 4
    for seq in range(4):
        wire.chunk(request, seq, "x")
    assert wire.credits() == []
    await anext(stream)
    assert wire.credits() == []
    await anext(stream)
    assert [credit.chunks for credit in wire.credits()] == [2]
    assert len(await stream.take()) == 2
    assert [credit.chunks for credit in wire.credits()] == [2, 2]


async def test_agent_beyond_its_credit_is_cut_off(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, window=4)
    wire.join("a")
    stream = chat(pipeline)
    for seq in range(5):
        wire.chunk(wire.requests[0][1], seq, "x")
    with pytest.raises(errors.StreamCorrupted, match="credit"):
        await read(stream)


async def test_stalled_reader_ends_alone(pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline = await pipeline_of(wire, window=2, reader_timeout=5)
    wire.join("a")
    stalled, other = chat(pipeline), chat(pipeline)
    first, second = (request for _, request in wire.requests)
    wire.chunk(first, 0, "x")
    wire.chunk(first, 1, "x")
    wire.accept(second)
    clock.advance(6)
    assert [cancel.task_id for cancel in wire.cancels()] == [first.task_id]
    wire.answer(second)
    assert await read(other) == "answer"
    with pytest.raises(errors.ReaderStalled):
        await read(stalled)


@pytest.mark.parametrize(
    "failure", [errors.PayloadTooLarge("limit 5"), errors.AgentUnavailable("gone"), errors.Congested("full")]
)
async def test_send_that_raises(pipeline_of: Make, wire: PuppetTransport, failure: AnywireError) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a", slots=1)
    wire.fail_next = failure
    stream = chat(pipeline)
    if isinstance(failure, errors.PayloadTooLarge):
        with pytest.raises(errors.PayloadTooLarge, match="limit 5"):
            await read(stream)
    else:
        assert not wire.requests
        wire.report("a", slots=1)
        await asyncio.sleep(0)  # congestion ends when the link has drained, not with a report
        wire.answer(wire.requests[0][1])
        assert await read(stream) == "answer"
    assert pipeline.agents()[0].in_flight == 0


async def test_two_links_one_agent(pipeline_of: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first, second = PuppetTransport("first"), PuppetTransport("second")
    pipeline = await pipeline_of(first, second)
    second.join("a")
    assert [(agent.agent_id, agent.transport) for agent in pipeline.agents()] == [("a", "second")]
    first.join("a")
    assert [(agent.agent_id, agent.transport) for agent in pipeline.agents()] == [("a", "first")]
    stream = chat(pipeline)
    old = first.requests[0][1]
    first.lose("a")
    again = second.requests[0][1]
    assert (again.task_id, again.attempt) == (old.task_id, 2)
    second.answer(again)
    assert await read(stream) == "answer"
    assert stream.transport == "second"
    first.join("a")
    chat(pipeline)
    moves = [(each.levelname, each.message) for each in caplog.records if "instead of" in each.message]
    assert moves[:2] == [
        ("INFO", "agent a is used over first instead of second"),
        ("WARNING", "agent a is used over second instead of first"),
    ], "only the way to a transport that is less preferred is a warning"
    assert len(first.requests) == 2
    assert pipeline.stats()["transports"] == {"first": 0, "second": 1}


async def test_a_leased_agent_is_lost_when_silent_and_back_when_heard(pipeline_of: Make, clock: SimulatedClock) -> None:
    wire = PuppetTransport(liveliness="connection")
    pipeline = await pipeline_of(wire)
    wire.join("a", lease_ms=1000)
    for _ in range(5):
        clock.advance(0.9)
        wire.report("a")
    assert pipeline.agents()
    stream = chat(pipeline)
    wire.chunk(wire.requests[0][1], 0, "x")
    clock.advance(1.1)
    assert not pipeline.agents()
    with pytest.raises(errors.AgentLost, match="silent for its lease"):
        await read(stream)
    wire.report("a")
    assert [agent.agent_id for agent in pipeline.agents()] == ["a"]
    # What it may still be doing for the attempt given up is stopped.
    assert [(cancel.task_id, cancel.attempt) for cancel in wire.cancels()] == [(stream.task_id, 1)]


async def test_new_incarnation_loses_the_old_ones_tasks(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a", incarnation=1)
    stream = chat(pipeline)
    wire.join("a", incarnation=2)
    assert [request.attempt for _, request in wire.requests] == [1, 2]
    wire.lose("a", incarnation=1)
    wire.report("a", incarnation=1, state="failed")
    assert pipeline.agents()[0].info.incarnation == 2
    wire.answer(wire.requests[1][1])
    assert await read(stream) == "answer"


async def test_close_lets_running_tasks_finish_and_ends_the_rest(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    stream = chat(pipeline)
    await pipeline.close()
    with pytest.raises(errors.ShuttingDown, match="shuts down"):
        await read(stream)
    with pytest.raises(errors.ShuttingDown, match="shutting down"):
        chat(pipeline)
    assert len(wire.cancels()) == 1


async def test_unary_result_joins_deltas(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    stream = chat(pipeline, stream=False)
    request = wire.requests[0][1]
    wire.chunk(request, 0, "a", "b")
    wire.chunk(request, 2, "c", final=True)
    result: Chunk = await stream.result()
    assert (result.deltas, result.final, result.finish_reason) == (("abc",), True, "stop")
