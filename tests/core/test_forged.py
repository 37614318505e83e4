"""Messages that are forged, or out of type or bounds: dropped, counted, logged once a peer, and nothing else moves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.core.test_commands import Commanded, _Reply, _Wire, agent_of
from tests.patience import PATIENCE

from anywire import errors
from anywire.engine import Delta
from anywire.messages import (
    AgentInfo,
    AgentStatus,
    Cancel,
    Chunk,
    Command,
    CommandResult,
    Credit,
    Progress,
    TaskRequest,
)
from anywire.offers import Offer, offers_text
from anywire.pipeline.orchestrator import Orchestrator
from anywire.testing.doubles import MODEL, OFFERS, Script
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read, submit

Make = Callable[..., Any]
HUGE = 10**400


def replaced(message: Any, **members: Any) -> Any:
    """A copy with members that no decoder would let through."""
    copied = {name: getattr(message, name) for name in message.__struct_fields__} | members
    return type(message)(**copied)


def dropped(pipeline: Orchestrator) -> int:
    events = pipeline.stats()["events"]
    return sum(events.get(name, 0) for name in ("foreign_messages", "claims_rejected", "stale_chunks", "stale_results"))


def picture(pipeline: Orchestrator) -> Any:
    """All that a forged message might move."""
    agents = [
        (view.agent_id, view.status, view.in_flight, view.completed, view.failed, sorted(view.unavailable))
        for view in pipeline.agents()
    ]
    tasks = [
        (key, attempt.state, attempt.next_seq, attempt.outstanding, attempt.chunks, attempt.moved)
        for key, attempt in pipeline.attempts.open.items()
    ]
    return agents, tasks, pipeline.stats()["tasks"], pipeline.models()


# Towards a hub


def of_the_task(request: TaskRequest) -> Chunk:
    return Chunk(request.hub_id, request.task_id, request.attempt, 0, ("forged",))


SAID_BY_ANOTHER: dict[str, Callable[[Any, TaskRequest, Command], None]] = {
    "chunk": lambda sink, task, command: sink.chunk_received("evil", 1, of_the_task(task)),
    "final": lambda sink, task, command: sink.chunk_received("evil", 1, replaced(of_the_task(task), final=True)),
    "chunk of an older life": lambda sink, task, command: sink.chunk_received("good", 0, of_the_task(task)),
    "chunk for another hub": lambda sink, task, command: sink.chunk_received(
        "good", 1, replaced(of_the_task(task), hub_id="other")
    ),
    "chunk of another attempt": lambda sink, task, command: sink.chunk_received(
        "good", 1, replaced(of_the_task(task), attempt=2)
    ),
    "status": lambda sink, task, command: sink.agent_reported("evil", 1, AgentStatus("good", 1, "failed")),
    "status of an older life": lambda sink, task, command: sink.agent_reported(
        "good", 0, AgentStatus("good", 0, "failed")
    ),
    "progress": lambda sink, task, command: sink.progress_received(
        "evil", 1, Progress(task.hub_id, task.task_id, 1, "loading")
    ),
    "progress for another hub": lambda sink, task, command: sink.progress_received(
        "good", 1, Progress("other", task.task_id, 1, "loading")
    ),
    "result": lambda sink, task, command: sink.result_received(
        "evil", 1, CommandResult(command.hub_id, command.id, 0, "1", final=True)
    ),
    "result for another hub": lambda sink, task, command: sink.result_received(
        "good", 1, CommandResult("other", command.id, 0, "1", final=True)
    ),
    "failure": lambda sink, task, command: sink.send_failed(
        "evil", 1, task.task_id, 1, errors.AgentUnavailable("forged")
    ),
    "failure of a command": lambda sink, task, command: sink.send_failed(
        "evil", 1, command.id, 0, errors.AgentUnavailable("forged")
    ),
}

NOT_OF_ITS_TYPE: dict[str, Callable[[Any, TaskRequest, Command], None]] = {
    "no chunk": lambda sink, task, command: sink.chunk_received("evil", 1, None),
    "a chunk that is a task": lambda sink, task, command: sink.chunk_received("evil", 1, task),
    "chunk of a list": lambda sink, task, command: sink.chunk_received(
        "evil", 1, replaced(of_the_task(task), task_id=[])
    ),
    "chunk of an attempt that is none": lambda sink, task, command: sink.chunk_received(
        "evil", 1, replaced(of_the_task(task), attempt={})
    ),
    "no info": lambda sink, task, command: sink.agent_joined({"agent_id": "x"}),
    "no status": lambda sink, task, command: sink.agent_reported("evil", 1, None),
    "no progress": lambda sink, task, command: sink.progress_received("evil", 1, 5),
    "progress of a list": lambda sink, task, command: sink.progress_received(
        "evil",
        1,
        Progress(task.hub_id, [], 1, "loading"),  # type: ignore[arg-type]
    ),
    "no result": lambda sink, task, command: sink.result_received("evil", 1, b"x"),
    "result of a list": lambda sink, task, command: sink.result_received(
        "evil",
        1,
        CommandResult(command.hub_id, [], 0),  # type: ignore[arg-type]
    ),
    "failure of a list": lambda sink, task, command: sink.send_failed(
        "evil", 1, [], 1, errors.AgentUnavailable("forged")
    ),
}


async def working(pipeline_of: Make, wire: PuppetTransport) -> tuple[Orchestrator, Any, TaskRequest, Any, Command]:
    """An agent ``good`` that has a task and a command, and an agent ``evil``."""
    pipeline: Orchestrator = await pipeline_of(wire)
    wire.join("good")
    stream = submit(pipeline, Script())
    wire.join("evil", models=["other"])
    command = asyncio.create_task(anext(pipeline.command(["good"], "load")))
    await asyncio.sleep(0)
    return pipeline, stream, wire.requests[0][1], command, wire.commands[0][1]


@pytest.mark.parametrize("forge", (SAID_BY_ANOTHER | NOT_OF_ITS_TYPE).values(), ids=(SAID_BY_ANOTHER | NOT_OF_ITS_TYPE))
async def test_what_an_agent_forges_moves_nothing(
    pipeline_of: Make, wire: PuppetTransport, caplog: pytest.LogCaptureFixture, forge: Any
) -> None:
    pipeline, stream, task, command, sent = await working(pipeline_of, wire)
    before, count = picture(pipeline), dropped(pipeline)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            forge(wire.sink, task, sent)
    assert picture(pipeline) == before
    assert dropped(pipeline) == count + 5
    assert len(caplog.records) <= 1, "it is logged once"
    wire.result("good", sent, 0, '"done"', final=True)
    assert await asyncio.wait_for(command, PATIENCE) == "done"
    wire.answer(task)
    assert await read(stream) == "answer"


STATUS = AgentStatus("good", 1, "ready", OFFERS, 8)

BAD_STATUS: dict[str, dict[str, Any]] = {
    "huge slots": {"slots": HUGE},
    "negative slots": {"slots": -1},
    "no slots": {"slots": "8"},
    "true slots": {"slots": True},
    "huge active": {"active": HUGE},
    "negative queue": {"queued": -1},
    "no state": {"state": "asleep"},
    "a list as state": {"state": []},
    "a million offers": {"offers": "[" + ",".join(['{"model":"m"}'] * 10**6) + "]"},
    "offers that are no text": {"offers": ["m"]},
    "offers that are no JSON": {"offers": "[{"},
    "a name of control characters": {"offers": offers_text((Offer("a\x1b[31m"),))},
    "an offer of huge slots": {"offers": '[{"model":"m","slots":1' + "0" * 400 + "}]"},
    "an offer of negative context": {"offers": offers_text((Offer("m", context=-1),))},
    "a huge gauge": {"resources": {"cpu_percent": HUGE}},
    "a gauge that is no number": {"resources": {"cpu_percent": float("nan")}},
    "a gauge of text": {"resources": {"cpu_percent": "5"}},
    "a gauge whose name is none": {"resources": {"a\nb": 1.0}},
    "gauges that are none": {"resources": 5},
    "a detail that is no text": {"detail": 5},
}


@pytest.mark.parametrize("members", BAD_STATUS.values(), ids=BAD_STATUS)
async def test_a_status_out_of_type_or_bounds_is_dropped(
    pipeline_of: Make, wire: PuppetTransport, caplog: pytest.LogCaptureFixture, members: dict[str, Any]
) -> None:
    pipeline, stream, task, command, _ = await working(pipeline_of, wire)
    before = picture(pipeline)
    caplog.clear()
    for _ in range(3):
        wire.sink.agent_reported("good", 1, replaced(STATUS, **members))
    assert picture(pipeline) == before
    assert pipeline.stats()["events"]["claims_rejected"] == 3
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().isprintable()
    command.cancel()
    wire.answer(task)
    assert await read(stream) == "answer"


BAD_INFO: dict[str, dict[str, Any]] = {
    "no name": {"agent_id": ""},
    "a name of control characters": {"agent_id": "a\x07b"},
    "a name that is no text": {"agent_id": 5},
    "a list as name": {"agent_id": ["x"]},
    "a long name": {"agent_id": "x" * 300},
    "a huge incarnation": {"incarnation": HUGE},
    "a negative incarnation": {"incarnation": -1},
    "no lease": {"lease_ms": 0},
    "a huge lease": {"lease_ms": HUGE},
    "a pid that is text": {"pid": "1"},
    "a host of control characters": {"host": "\x00"},
    "capabilities that are none": {"capabilities": 5},
    "a million capabilities": {"capabilities": ("chat",) * 10**6},
    "a protocol that is no text": {"protocol": 2.0},
    "a proof that is no text": {"proof": b"aw1"},
    "a long proof": {"proof": "x" * 1025},
    "a proof of control characters": {"proof": "aw1\x07"},
}


@pytest.mark.parametrize("members", BAD_INFO.values(), ids=BAD_INFO)
async def test_an_announcement_out_of_type_or_bounds_is_dropped(
    pipeline_of: Make, wire: PuppetTransport, members: dict[str, Any]
) -> None:
    pipeline, stream, task, command, _ = await working(pipeline_of, wire)
    before = picture(pipeline)
    wire.sink.agent_joined(replaced(AgentInfo("new", 1, capabilities=("chat",)), **members))
    assert picture(pipeline) == before
    assert pipeline.stats()["events"]["claims_rejected"] == 1
    command.cancel()
    wire.answer(task)
    assert await read(stream) == "answer"


BAD_CHUNK: dict[str, dict[str, Any]] = {
    "huge seq": {"seq": HUGE},
    "negative seq": {"seq": -1},
    "seq of text": {"seq": "0"},
    "deltas that are a text": {"deltas": "abc"},
    "deltas that are no texts": {"deltas": (5,)},
    "extra that is no text": {"extra": {}},
    "huge times": {"final": True, "first_ns": HUGE, "last_ns": HUGE},
    "negative times": {"final": True, "first_ns": -5},
    "huge attempts": {"final": True, "attempts_used": HUGE},
    "usage that is no text": {"final": True, "usage": {}},
    "an error that is no text": {"final": True, "error": {"code": "x"}},
    "an error that is no JSON": {"final": True, "error": "{"},
    "a reason that is no text": {"final": True, "finish_reason": None},
    "final that is no flag": {"final": "yes"},
}


@pytest.mark.parametrize("members", BAD_CHUNK.values(), ids=BAD_CHUNK)
async def test_a_chunk_out_of_type_or_bounds_ends_its_own_attempt_alone(
    pipeline_of: Make, wire: PuppetTransport, members: dict[str, Any]
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire)
    wire.join("good")
    wire.join("evil")
    streams = [submit(pipeline, Script()) for _ in range(2)]
    (bad,) = [task for agent, task in wire.requests if agent == "evil"]
    (good,) = [task for agent, task in wire.requests if agent == "good"]
    stream = next(each for each in streams if each.task_id == bad.task_id)
    other = next(each for each in streams if each.task_id == good.task_id)
    wire.sink.chunk_received("evil", 1, replaced(of_the_task(bad), **members))
    with pytest.raises(errors.StreamCorrupted):
        await read(stream)
    wire.stop(bad)
    assert [view.in_flight for view in pipeline.agents()] == [1, 0]
    wire.answer(good)
    assert await read(other) == "answer"


@pytest.mark.parametrize(
    "members",
    [{"state": "asleep"}, {"state": []}, {"detail": 5}, {"detail": "x" * 10_000}],
    ids=["state", "list", "detail", "long"],
)
async def test_a_progress_out_of_type_or_bounds_is_dropped(
    pipeline_of: Make, wire: PuppetTransport, members: dict[str, Any]
) -> None:
    pipeline, stream, task, command, _ = await working(pipeline_of, wire)
    before = picture(pipeline)
    wire.sink.progress_received("good", 1, replaced(Progress(task.hub_id, task.task_id, 1, "loading"), **members))
    assert picture(pipeline) == before
    assert pipeline.stats()["events"]["claims_rejected"] == 1
    command.cancel()
    wire.answer(task)
    assert await read(stream) == "answer"


@pytest.mark.parametrize(
    "members",
    [{"seq": HUGE}, {"seq": "0"}, {"data": 5}, {"data": "{"}, {"final": 1}, {"final": True, "error": {}}],
    ids=["huge seq", "seq of text", "data", "no json", "final", "error"],
)
async def test_a_result_out_of_type_or_bounds_ends_its_own_command_alone(
    pipeline_of: Make, wire: PuppetTransport, members: dict[str, Any]
) -> None:
    pipeline, stream, task, command, sent = await working(pipeline_of, wire)
    before = picture(pipeline)
    wire.sink.result_received("good", 1, replaced(CommandResult(sent.hub_id, sent.id, 0, "1"), **members))
    with pytest.raises(errors.StreamCorrupted):
        await command
    assert picture(pipeline) == before
    wire.answer(task)
    assert await read(stream) == "answer"


async def test_what_was_lost_for_a_reason_of_control_characters_is_told_in_print(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    _, stream, _, command, _ = await working(pipeline_of, wire)
    wire.sink.agent_lost("good", 1, "gone\x1b[31m")
    with pytest.raises(errors.AgentLost) as lost:
        await command
    assert str(lost.value).isprintable()
    stream.cancel("enough")


# Towards an agent

TASK = TaskRequest("hub", "t2", 1, "chat", MODEL, "{}", True, credit=8)
COMMAND = Command("hub", "c2", "count", '{"to":1}')


class Holding(Commanded):
    async def run(self, task: TaskRequest) -> Any:
        yield Delta("text")
        await asyncio.get_running_loop().create_future()


BY_ANOTHER_HUB: dict[str, Callable[[Any], None]] = {
    "task": lambda sink: sink.task_received("evil", 1, TASK, _Reply()),
    "cancel": lambda sink: sink.cancel_received("evil", 1, Cancel("hub", "t", 1)),
    "cancel of a command": lambda sink: sink.cancel_received("evil", 1, Cancel("hub", "c", 0)),
    "credit": lambda sink: sink.credit_received("evil", 1, Credit("hub", "t", 1, 5)),
    "credit of a command": lambda sink: sink.credit_received("evil", 1, Credit("hub", "c", 0, 5)),
    "command": lambda sink: sink.command_received("evil", 1, COMMAND, _Reply()),
    "drain": lambda sink: sink.command_received("evil", 1, Command("hub", "d", "drain"), _Reply()),
}
OUT_OF_TYPE: dict[str, Callable[[Any], None]] = {
    "no task": lambda sink: sink.task_received("evil", 1, None, _Reply()),
    "a task that is a command": lambda sink: sink.task_received("hub", 1, COMMAND, _Reply()),
    "a task without a name": lambda sink: sink.task_received("hub", 1, replaced(TASK, task_id=""), _Reply()),
    "a task of control characters": lambda sink: sink.task_received("hub", 1, replaced(TASK, task_id="\x00"), _Reply()),
    "a task of a list": lambda sink: sink.task_received("hub", 1, replaced(TASK, task_id=[]), _Reply()),
    "a task of attempt 0": lambda sink: sink.task_received("hub", 1, replaced(TASK, attempt=0), _Reply()),
    "a task of a huge attempt": lambda sink: sink.task_received("hub", 1, replaced(TASK, attempt=HUGE), _Reply()),
    "no cancel": lambda sink: sink.cancel_received("hub", 1, "t"),
    "a cancel of a list": lambda sink: sink.cancel_received("hub", 1, Cancel("hub", [], 1)),  # type: ignore[arg-type]
    "a cancel of a negative attempt": lambda sink: sink.cancel_received("hub", 1, Cancel("hub", "t", -1)),
    "a cancel whose reason is none": lambda sink: sink.cancel_received("hub", 1, Cancel("hub", "t", 1, 5)),  # type: ignore[arg-type]
    "no credit": lambda sink: sink.credit_received("hub", 1, Credit("hub", "t", 1, 0)),
    "a negative credit": lambda sink: sink.credit_received("hub", 1, Credit("hub", "t", 1, -5)),
    "a huge credit": lambda sink: sink.credit_received("hub", 1, Credit("hub", "t", 1, HUGE)),
    "a command without a name": lambda sink: sink.command_received("hub", 1, replaced(COMMAND, name=""), _Reply()),
    "a command of control characters": lambda sink: sink.command_received(
        "hub", 1, replaced(COMMAND, name="a\n"), _Reply()
    ),
    "arguments that are no text": lambda sink: sink.command_received(
        "hub", 1, replaced(COMMAND, arguments={}), _Reply()
    ),
    "long arguments": lambda sink: sink.command_received("hub", 1, replaced(COMMAND, arguments="x" * 70_000), _Reply()),
    "a target that is a text": lambda sink: sink.command_received("hub", 1, replaced(COMMAND, target="a"), _Reply()),
    "a long target": lambda sink: sink.command_received("hub", 1, replaced(COMMAND, target=("a",) * 10**6), _Reply()),
    "a huge deadline": lambda sink: sink.command_received("hub", 1, replaced(COMMAND, time_left_ms=HUGE), _Reply()),
    "a command of negative credit": lambda sink: sink.command_received(
        "hub", 1, replaced(COMMAND, credit=-1), _Reply()
    ),
    "a role that is none": lambda sink: sink.command_received("hub", 1, replaced(COMMAND, role="root"), _Reply()),
}


@pytest.mark.parametrize("forge", (BY_ANOTHER_HUB | OUT_OF_TYPE).values(), ids=BY_ANOTHER_HUB | OUT_OF_TYPE)
async def test_what_a_hub_forges_moves_nothing(caplog: pytest.LogCaptureFixture, forge: Any) -> None:
    engine = Holding()
    agent, wire = await agent_of(engine)
    task, command = _Reply(), _Reply()
    wire.sink.task_received("hub", 1, replaced(TASK, task_id="t", credit=1), task)
    wire.sink.command_received("hub", 1, replaced(COMMAND, id="c", name="hold", arguments=""), command)
    await asyncio.wait_for(engine.holding.wait(), PATIENCE)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            forge(wire.sink)
        await asyncio.sleep(0.01)
    assert engine.begun == ["hold"]
    assert agent.status().active == 1
    assert not agent.draining
    assert not task.final.done()
    assert not command.final.done()
    events = agent.stats()["events"]
    assert events.get("foreign_messages", 0) + events.get("claims_rejected", 0) == 5
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().isprintable()
    wire.sink.cancel_received("hub", 1, Cancel("hub", "t", 1))
    wire.sink.cancel_received("hub", 1, Cancel("hub", "c", 0))
    assert isinstance(await task.end(), errors.TaskCancelled)
    assert isinstance(await command.end(), errors.TaskCancelled)
    await agent.close()


BAD_TASK: dict[str, dict[str, Any]] = {
    "no kind": {"kind": "song"},
    "a list as kind": {"kind": []},
    "no model": {"model": ""},
    "a body that is no text": {"body": {}},
    "a stream that is none": {"stream": 1},
    "a huge priority": {"priority": HUGE},
    "a huge deadline": {"time_left_ms": HUGE},
    "a negative deadline": {"time_left_ms": -1},
    "a huge credit": {"credit": HUGE},
    "negative hops": {"hops": -1},
    "a tenant of control characters": {"tenant": "a\nb"},
    "a long tenant": {"tenant": "x" * 300},
    "a tenant that is no text": {"tenant": []},
    "a long session": {"session": "x" * 300},
    "a session of control characters": {"session": "a\x7f"},
    "negative attempts": {"attempts_left": -1},
    "many to avoid": {"avoid": ("a",) * 65},
    "a text to prefer": {"prefer": "a"},
    "hints that are none": {"hints": {}},
    "long hints": {"hints": "x" * 100_000},
}


@pytest.mark.parametrize("members", BAD_TASK.values(), ids=BAD_TASK)
async def test_a_task_out_of_type_or_bounds_is_refused_by_name_and_not_begun(members: dict[str, Any]) -> None:
    engine = Commanded()
    agent, wire = await agent_of(engine)
    reply: Any = _Reply()
    wire.sink.task_received("hub", 1, replaced(TASK, **members), reply)
    assert isinstance(await reply.end(), errors.InvalidRequest)
    assert agent.status().active == 0
    assert agent.stats()["events"]["claims_rejected"] == 1
    wire.sink.task_received("hub", 1, TASK, fine := _Reply())
    assert await fine.end() is None
    await agent.close()


def test_members_are_replaced_without_a_look() -> None:
    assert replaced(TASK, credit=HUGE).credit == HUGE
    assert msgspec.structs.asdict(replaced(TASK)) == msgspec.structs.asdict(TASK)
    assert _Wire.name == "wire"
