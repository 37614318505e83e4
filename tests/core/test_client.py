"""A client over the client plane: what it may ask, what it gets, and what it is told when it gets nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, ClassVar

import pytest

from anywire import Client, errors
from anywire.builtin.memory import MemoryConfig, MemoryTransport
from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.engine import Delta, Engine, EngineStatus
from anywire.identity import hub_info
from anywire.messages import Command, TaskRequest
from anywire.offers import offers
from anywire.pipeline.orchestrator import Orchestrator
from anywire.roles.agent import Agent
from anywire.roles.fleet import fleet_agent, leave
from anywire.submission import Submission
from anywire.testing.doubles import MODEL, Script, ScriptedEngine, fifo, least_loaded
from anywire.testing.puppet import PuppetTransport
from anywire.testing.recorder import PATIENCE
from anywire.testing.rig import Rig

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with Rig("memory", {"network": request.node.name}) as rig:
        yield rig


async def serving(rig: Rig, engine: Engine | None = None, **settings: Any) -> Client:
    """A client of an orchestrator with one agent."""
    await rig.agent("a", engine=engine)
    await rig.fleet(await rig.pipeline("a", **settings), "client")
    return await rig.client()


def script(tag: str, **fields: Any) -> dict[str, Any]:
    filled: dict[str, Any] = json.loads(Script(tag=tag, **fields).body())
    return {"model": MODEL, "messages": [], **filled}


class TellingEngine(Engine):
    """Answers with what it was told, keeping the task; with ``extra``, as two choices that plain text cannot hold."""

    name: ClassVar[str] = "telling"
    Config = SyntheticConfig
    capabilities = ("chat", "completion", "embedding")

    def __init__(self, extra: str = "") -> None:
        super().__init__(SyntheticConfig())
        self.tasks: list[TaskRequest] = []
        self._extra = extra

    async def start(self, changed: Callable[[], None]) -> None: ...
    async def close(self) -> None: ...
    def status(self) -> EngineStatus:
        return EngineStatus("ready", offers(MODEL))

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        self.tasks.append(task)
        if task.stream:
            yield Delta("plain ")
        yield Delta("text", self._extra, "tool_calls", '{"total_tokens": 7}')


# Answers


async def test_each_kind_is_answered_in_openais_form(rig: Rig) -> None:
    client = await serving(rig, SyntheticEngine(SyntheticConfig()))
    chat = await client.chat(model="synthetic", messages=HELLO, max_tokens=3)
    assert (chat["object"], chat["model"], chat["usage"]["completion_tokens"]) == ("chat.completion", "synthetic", 3)
    assert chat["choices"][0]["message"]["role"] == "assistant"
    assert chat["choices"][0]["finish_reason"] == "length"
    text = await client.completions(model="synthetic", prompt="hello", max_tokens=3)
    assert (text["object"], len(text["choices"][0]["text"].split())) == ("text_completion", 3)
    found = await client.embeddings(model="synthetic", input=["a", "b"])
    assert (found["object"], [each["index"] for each in found["data"]]) == ("list", [0, 1])
    ranked = await client.ask("rerank", model="synthetic", query="a", documents=["b", "a"])
    assert (ranked["model"], [each["index"] for each in ranked["results"]]) == ("synthetic", [1, 0])
    tokens = await client.ask("tokenize", model="synthetic", prompt="hello")
    told = await client.ask("detokenize", model="synthetic", tokens=tokens["tokens"])
    assert told["prompt"] == "hello"
    pieces = [piece.text async for piece in client.stream(model="synthetic", prompt="hello", max_tokens=3)]
    assert "".join(pieces) == text["choices"][0]["text"]


class FailingEngine(TellingEngine):
    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        if "fail" in task.body:
            raise errors.EngineFailed("it broke")
        yield Delta("text")


async def test_each_task_of_a_client_leaves_one_line(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="anywire.request_log")
    client = await serving(rig, FailingEngine())
    await client.chat(model=MODEL, messages=HELLO)
    assert [piece async for piece in client.stream(model=MODEL, messages=HELLO)]
    with pytest.raises(errors.EngineFailed):
        await client.chat(model=MODEL, messages=[{"role": "user", "content": "fail"}])
    told = [each.fields for each in caplog.records if each.name == "anywire.request_log"]  # type: ignore[attr-defined]
    assert [each["request"] for each in told] == [f"client {client.hub.info.hub_id} chat"] * 3
    assert [each["status"] for each in told] == ["answered", "answered", "failed"]
    assert told[2]["error"] == "engine_failed"
    assert {each["model"] for each in told} == {MODEL}


async def test_only_the_orchestrator_says_that_a_priority_is_ignored(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    client = await serving(rig)
    await client.chat(model=MODEL, messages=HELLO, priority=5)
    assert ["ignores priorities" in each.message for each in caplog.records] == [True]


async def test_what_plain_text_cannot_hold_comes_intact(rig: Rig) -> None:
    choices = [{"index": 0, "message": {"tool_calls": [{"id": "1"}]}}, {"index": 1, "message": {"content": "b"}}]
    client = await serving(rig, TellingEngine(json.dumps(choices)))
    answer = await client.chat(model=MODEL, messages=HELLO)
    assert (answer["choices"], answer["usage"]) == (choices, {"total_tokens": 7})
    pieces = [piece async for piece in client.stream(model=MODEL, messages=HELLO)]
    assert [piece.text for piece in pieces if piece.text] == ["plain ", "text"]
    assert [piece.choices for piece in pieces if piece.choices] == [choices]
    assert (pieces[-1].finish_reason, pieces[-1].usage) == ("tool_calls", {"total_tokens": 7})


async def test_members_beside_the_choices_come_beside_them(rig: Rig) -> None:
    choices = [{"index": 0, "message": {"content": "text"}}]
    beside = {"system_fingerprint": "fp", "service_tier": None}
    client = await serving(rig, TellingEngine(json.dumps({"choices": choices, **beside})))
    answer = await client.chat(model=MODEL, messages=HELLO)
    assert answer["choices"] == choices
    assert answer.items() >= beside.items()
    assert answer["id"].startswith("chatcmpl-")
    pieces = [piece async for piece in client.stream(model=MODEL, messages=HELLO)]
    assert [(piece.choices, piece.members) for piece in pieces if piece.choices] == [(choices, beside)]


async def test_whole_answers_stay_whole_and_settings_arrive(rig: Rig) -> None:
    engine = TellingEngine()
    client = await serving(rig, engine, deadline=50)
    await client.chat(model=MODEL, messages=HELLO, priority=3, trace="00-aa-bb-01", deadline=5, temperature=0.5)
    await client.chat(model=MODEL, messages=HELLO)
    named, default = engine.tasks
    assert json.loads(named.body) == {"model": MODEL, "messages": HELLO, "temperature": 0.5}
    assert (named.stream, named.priority, named.trace, named.hops) == (False, 3, "00-aa-bb-01", 0)
    assert 0 < named.time_left_ms <= 5000
    assert 40_000 < default.time_left_ms <= 50_000, "without a deadline the orchestrator's own holds"


# Errors


async def test_nobody_there_is_told_with_the_transport_and_what_to_check(rig: Rig) -> None:
    client = await rig.client(agent_wait=0.01)
    for ask in (client.models(), client.chat(model=MODEL, messages=HELLO), anext(client.stream(model="m", prompt=""))):
        with pytest.raises(errors.NoAgent, match=r"no orchestrator is seen over memory .*anywire doctor"):
            await ask


async def test_an_orchestrator_without_agents_is_told_apart_from_none(rig: Rig) -> None:
    await rig.fleet(await rig.pipeline(), "client")
    client = await rig.client(agent_wait=0.01)
    with pytest.raises(errors.NoAgent, match=f"no agent for model '{MODEL}'"):
        await client.chat(model=MODEL, messages=HELLO)


async def test_full_queue_reaches_the_client(rig: Rig) -> None:
    _, engine = await rig.agent("a", slots=1)
    orchestrator = Orchestrator(hub_info(), [rig.new_transport()], fifo(1), least_loaded())
    await orchestrator.start()
    await rig.seen(orchestrator, "a")
    await rig.fleet(orchestrator, "client")
    client = await rig.client()
    asking = [asyncio.create_task(client.chat(**script("held", hold_after=0))) for _ in range(3)]
    done, running = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    with pytest.raises(errors.QueueFull, match="max_queue_size"):
        done.pop().result()
    assert len(running) == 2
    for each in running:
        each.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await engine.event("cancelled", "held")
    await orchestrator.close()


async def test_lost_agent_and_bad_request_reach_the_client_with_their_code(rig: Rig) -> None:
    client = await serving(rig, SyntheticEngine(SyntheticConfig()))
    with pytest.raises(errors.InvalidRequest) as caught:
        await client.chat(model="synthetic", messages=HELLO, n=1_000_000)
    assert caught.value.param == "n"
    peer = await rig.peer("agent", "mortal")
    await peer.event("ready")
    await client.hub.agents_until(lambda seen: any(MODEL in each.offers for each in seen))
    pieces = client.stream(**script("t", chunks=5, hold_after=1))
    await anext(pieces)
    await peer.crash()
    with pytest.raises(errors.AgentLost, match="mortal was lost"):
        await anext(pieces)


async def test_a_model_not_listed_is_answered_for_and_not_refused(rig: Rig) -> None:
    """A client that knew it a moment ago must not try again and again."""
    await rig.agent("a")
    end = await rig.fleet(await rig.pipeline("a"), "client")
    hub, sink, info = await rig.hub(plane="client")
    await sink.event("joined", end.info.agent_id)
    hub.send(end.info.agent_id, TaskRequest(info.hub_id, "t", 1, "chat", "gone", "{}"))
    error = errors.from_wire((await sink.final("t")).error, phase="streaming")
    assert isinstance(error, errors.ModelNotFound)


async def test_refused_task_keeps_its_place() -> None:
    wire = PuppetTransport()
    async with Client(wire) as client:
        tasks = [client.submit(task_of(tag)) for tag in ("first", "second")]
        wire.join("orchestrator", slots=1)
        refusal = errors.to_wire(errors.Refused("draining"))
        wire.chunk(wire.requests[0][1], 0, final=True, error=refusal)
        assert len(wire.requests) == 1, "it is not asked again before it reports"
        wire.report("orchestrator", slots=1)
        for task in tasks:
            wire.answer(wire.requests[-1][1], task.task_id)
            assert (await task.result()).deltas == (task.task_id,)
    assert [request.attempt for _, request in wire.requests] == [1, 2, 1]


@pytest.mark.parametrize(
    ("asking", "message"),
    [
        (
            lambda client: client.chat(model=MODEL, messages=[{"content": {1, 2}.__iter__()}]),
            "cannot be written as JSON",
        ),
        (lambda client: client.chat(model=MODEL, messages=HELLO, stream=True), r"use stream\(\)"),
        (lambda client: client.chat(model=MODEL, messages=HELLO, deadline=-1), "deadline"),
        (lambda client: client.chat(model=MODEL, messages=HELLO, deadline=math.nan), "deadline"),
        (lambda client: anext(client.stream(model=MODEL)), "either messages or prompt"),
        (lambda client: anext(client.stream(model=MODEL, messages=HELLO, prompt="x")), "either messages or prompt"),
    ],
)
async def test_what_cannot_be_asked_is_refused_before_it_is_sent(
    rig: Rig, asking: Callable[[Client], Any], message: str
) -> None:
    client = await serving(rig)
    with pytest.raises(errors.InvalidRequest, match=message):
        await asking(client)


# Life


def test_wrong_use_is_told() -> None:
    with pytest.raises(errors.ConfigError, match="name the transport"):
        Client()
    with pytest.raises(errors.PluginError, match="memory"):
        Client("memroy")
    with pytest.raises(errors.ConfigError, match="netwrok"):
        Client("memory", netwrok="x")
    for several in (("memory", "memory"), (MemoryTransport(MemoryConfig()),)):
        with pytest.raises(errors.ConfigError, match="one transport named"):
            Client(*several, network="x")


async def test_named_transport_with_options(rig: Rig) -> None:
    await serving(rig)
    async with Client("memory", network=rig.options["network"]) as client:
        assert await client.models() == [MODEL]


async def test_only_an_open_client_takes_tasks(rig: Rig) -> None:
    client = Client(rig.new_transport())
    with pytest.raises(errors.ShuttingDown, match="not open yet"):
        await client.chat(model=MODEL, messages=HELLO)
    async with client:
        pass
    with pytest.raises(errors.ShuttingDown, match="closed"):
        await client.models()


async def test_closing_ends_what_runs_through_to_the_engine(rig: Rig) -> None:
    _, engine = await rig.agent("a")
    await rig.fleet(await rig.pipeline("a"), "client")
    client = await rig.client()
    asking = asyncio.create_task(client.chat(**script("held", hold_after=0)))
    await engine.event("holding", "held")
    await client.close()
    await engine.event("cancelled", "held")
    with pytest.raises(errors.ShuttingDown, match="closed"):
        await asking


async def test_tasks_wait_for_the_first_orchestrator_in_their_order(rig: Rig) -> None:
    client = await rig.client()
    asking = [asyncio.create_task(client.chat(**script(f"t{number}"))) for number in range(20)]
    _, engine = await rig.agent("a", slots=1)
    await rig.fleet(await rig.pipeline("a"), "client")
    answers = await asyncio.wait_for(asyncio.gather(*asking), PATIENCE)
    assert [each["choices"][0]["message"]["content"] for each in answers] == [f"t{n}:0;" for n in range(20)]
    assert [event[1] for event in engine.named("started")] == [f"t{number}" for number in range(20)]


# Several orchestrators


async def two_of(rig: Rig) -> tuple[list[Agent], Client]:
    await rig.agent("a")
    ends = [await rig.fleet(await rig.pipeline("a"), "client") for _ in range(2)]
    client = await rig.client()
    await client.hub.agents_until(lambda seen: len([each for each in seen if each.status.state == "ready"]) == 2)
    return ends, client


async def test_an_orchestrator_that_drains_gets_nothing_new_and_finishes_the_old(rig: Rig) -> None:
    ends, client = await two_of(rig)
    running = client.stream(**script("old", chunks=300))
    text = (await anext(running)).text
    first = next(end for end in ends if end.status().active)
    leaving = asyncio.create_task(leave(first, PATIENCE))
    await asyncio.sleep(0)  # let it begin
    for number in range(5):
        submitted = client.submit(task_of(f"new{number}"))
        await submitted.result()
        assert submitted.agent_id != first.info.agent_id
    text += "".join([piece.text async for piece in running])
    assert text == Script(tag="old", chunks=300).text()
    await leaving


def task_of(tag: str) -> Submission:
    return Submission("chat", MODEL, Script(tag=tag).body())


async def test_a_lost_orchestrator_is_replaced_before_a_token_and_not_after(rig: Rig) -> None:
    engine = ScriptedEngine()
    await rig.agent("a", engine=engine)
    first_wire, second_wire = rig.new_transport(), rig.new_transport()
    pipeline = await rig.pipeline("a")
    first = fleet_agent(pipeline, [first_wire], "client")
    await first.start()
    client = await rig.client()
    await client.models()
    waiting = asyncio.create_task(client.chat(**script("waiting", hold_after=0)))
    begun = client.stream(**script("begun", chunks=5, hold_after=1))
    await anext(begun)
    await engine.recorder.event("holding", "waiting")
    first_wire.crash()
    with pytest.raises(errors.AgentLost):
        await anext(begun)
    other = await rig.pipeline("a")
    second = fleet_agent(other, [second_wire], "client")
    await second.start()
    await engine.recorder.until(lambda: len([e for e in engine.recorder.named("started") if e[1] == "waiting"]) == 2)
    assert len([event for event in engine.recorder.named("started") if event[1] == "begun"]) == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await first.close()
    await second.close()


async def test_a_client_cannot_drain_an_orchestrator(rig: Rig) -> None:
    await rig.agent("a")
    end = await rig.fleet(await rig.pipeline("a"), "client")
    hub, sink, info = await rig.hub(plane="client")
    await sink.event("joined", end.info.agent_id)
    hub.send(end.info.agent_id, Command(info.hub_id, "1", "drain"))
    client = await rig.client()
    async with aclosing(client.stream(**script("t", chunks=3))) as pieces:
        assert "".join([piece.text async for piece in pieces]) == Script(tag="t", chunks=3).text()
    assert not end.draining


def test_importing_anywire_imports_no_pipeline() -> None:
    program = (
        "import sys, anywire; print('anywire.roles.client' in sys.modules); anywire.Client; print(len(dir(anywire)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False")
