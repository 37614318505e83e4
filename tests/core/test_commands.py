"""Commands: what an agent carries out, how its results stream, and everything that ends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, ClassVar

import pytest
from tests.patience import PATIENCE

from anywire import errors
from anywire.caller import Caller
from anywire.engine import Delta, Engine, EngineStatus
from anywire.identity import agent_info
from anywire.messages import Cancel, Command, CommandResult, Credit, TaskRequest
from anywire.offers import offers
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline.services import commands as pipeline_commands
from anywire.roles import agent_commands
from anywire.roles.agent import Agent
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL, ScriptedConfig
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import Rig
from anywire.transport import AgentPort

Make = Callable[..., Any]


class Commanded(Engine):
    """Counts: ``count`` to ``to``, ``hold`` until it is stopped, and what the tests give it."""

    name: ClassVar[str] = "commanded"
    Config = ScriptedConfig

    def __init__(self, **more: Callable[[Mapping[str, Any]], Any]) -> None:
        super().__init__(ScriptedConfig())
        self.more = more
        self.begun: list[str] = []
        self.yielded: list[Any] = []
        self.stopped = asyncio.Event()
        self.holding = asyncio.Event()

    async def start(self, changed: Callable[[], None]) -> None:
        """Always ready."""

    async def close(self) -> None:
        """Holds nothing."""

    def status(self) -> EngineStatus:
        return EngineStatus("ready", offers(MODEL))

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        yield Delta("text")

    def command(self, name: str, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        self.begun.append(name)
        if name == "count":
            return self._count(arguments)
        if name == "hold":
            return self._hold()
        if name in self.more:
            found: AsyncIterator[Any] = self.more[name](arguments)
            return found
        return super().command(name, arguments)

    async def _count(self, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        try:
            for number in range(arguments["to"]):
                self.yielded.append(number)
                yield {"number": number}
        finally:
            self.stopped.set()

    async def _hold(self) -> AsyncIterator[Any]:
        try:
            yield "begun"
            self.holding.set()
            await asyncio.get_running_loop().create_future()
        finally:
            self.stopped.set()


class _Port(AgentPort):
    def report(self, status: Any) -> None:
        """Nobody reads it."""

    async def close(self) -> None:
        """Holds nothing."""


class _Wire:
    """A transport of one port; the test is the hub."""

    name = "wire"
    capabilities = None
    is_local = False

    def __init__(self) -> None:
        self.sink: Any = None

    async def open_agent(self, info: Any, plane: Any, sink: Any) -> AgentPort:
        self.sink = sink
        return _Port()


class _Reply:
    """``full``: so many sends raise `Congested`."""

    def __init__(self, full: int = 0) -> None:
        self.results: list[CommandResult] = []
        self.full = full
        self.came = asyncio.Event()
        self.final: asyncio.Future[CommandResult] = asyncio.get_running_loop().create_future()

    def send(self, result: CommandResult) -> None:
        if self.full:
            self.full -= 1
            raise errors.Congested("no room")
        self.results.append(result)
        self.came.set()
        if result.final:
            self.final.set_result(result)

    async def drain(self) -> None:
        """Says at once that there is room."""

    async def end(self) -> errors.AnywireError | None:
        final = await asyncio.wait_for(self.final, PATIENCE)
        return errors.from_wire(final.error, phase="streaming") if final.error else None


async def agent_of(engine: Engine, *, clock: Any = None) -> tuple[Agent, _Wire]:
    wire = _Wire()
    agent = Agent(agent_info("a", engine=engine), engine, [wire], clock=clock)  # type: ignore[list-item]
    await agent.start()
    return agent, wire


def tell(wire: _Wire, name: str, arguments: str = "", *, id: str = "c", reply: Any = None, **more: Any) -> _Reply:  # noqa: A002
    reply = reply or _Reply()
    wire.sink.command_received("hub", 1, Command("hub", id, name, arguments, **more), reply)
    found: _Reply = reply
    return found


# At the agent


async def test_results_come_in_order_and_the_last_one_ends_the_command() -> None:
    agent, wire = await agent_of(Commanded())
    reply = tell(wire, "count", '{"to":3}')
    assert await reply.end() is None
    told = [(each.seq, each.data, each.final) for each in reply.results]
    assert told == [(0, '{"number":0}', False), (1, '{"number":1}', False), (2, '{"number":2}', False), (3, "", True)]
    await agent.close()


async def test_a_slow_reader_stops_the_engines_iterator() -> None:
    engine = Commanded()
    agent, wire = await agent_of(engine)
    reply = tell(wire, "count", '{"to":100}', credit=2)
    while len(reply.results) < 2:
        reply.came.clear()
        await asyncio.wait_for(reply.came.wait(), PATIENCE)
    for _ in range(20):
        await asyncio.sleep(0)
    assert engine.yielded == [0, 1]
    wire.sink.credit_received("hub", 1, Credit("hub", "c", 0, 3))
    for _ in range(20):
        await asyncio.sleep(0)
    assert engine.yielded == [0, 1, 2, 3, 4]
    wire.sink.credit_received("hub", 1, Credit("hub", "c", 0, 1000))
    assert await reply.end() is None
    assert [each.seq for each in reply.results] == list(range(101))
    await agent.close()


async def test_no_room_for_a_result_is_waited_for() -> None:
    agent, wire = await agent_of(Commanded())
    reply = tell(wire, "count", '{"to":2}', reply=_Reply(full=3))
    assert await reply.end() is None
    assert [each.seq for each in reply.results] == [0, 1, 2]
    await agent.close()


async def _too_long(arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
    yield "x" * 65533
    yield "x" * 65535


async def _no_json(arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
    yield object()


async def _raises(arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
    yield 1
    raise RuntimeError("broken")


async def _says(arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
    yield 1
    raise errors.InvalidRequest("no such model", param="model")


async def _own_cancellation(arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
    inner = asyncio.get_running_loop().create_future()
    inner.cancel()
    await inner
    yield 1


@pytest.mark.parametrize(
    ("command", "results", "code", "text", "failures"),
    [
        (_too_long, 1, "engine_failed", "a result of 65537 bytes, the limit is 65536", 1),
        (_no_json, 0, "engine_failed", "no JSON", 1),
        (_raises, 1, "engine_failed", "RuntimeError: broken", 1),
        (_says, 1, "invalid_request", "no such model", 0),
        (_own_cancellation, 0, "engine_failed", "what it waited for was cancelled", 1),
        (lambda arguments: 5, 0, "engine_failed", "TypeError", 1),
        (lambda arguments: [1, 2], 0, "engine_failed", "TypeError", 1),
    ],
    ids=["too long", "no json", "raises", "says", "own cancellation", "number", "list"],
)
async def test_what_an_engine_does_wrong_ends_its_command_alone(
    command: Any, results: int, code: str, text: str, failures: int
) -> None:
    engine = Commanded(odd=command)
    agent, wire = await agent_of(engine)
    held = tell(wire, "hold", id="other")
    reply = tell(wire, "odd")
    error = await reply.end()
    assert error is not None
    assert (error.code, len(reply.results) - 1) == (code, results)
    assert text in str(error)
    assert agent.boundary.failures["engine commanded.command"] == failures
    assert not held.final.done()
    assert await tell(wire, "count", '{"to":1}', id="next").end() is None
    await agent.close()


@pytest.mark.parametrize("arguments", ["5", "[]", "{", "\ud800"], ids=["number", "list", "broken", "surrogate"])
async def test_arguments_that_are_no_object_are_told(arguments: str) -> None:
    engine = Commanded()
    agent, wire = await agent_of(engine)
    error = await tell(wire, "count", arguments).end()
    assert isinstance(error, errors.InvalidRequest)
    assert error.param == "arguments"
    assert engine.begun == []
    await agent.close()


async def test_an_unknown_command_and_a_target_nobody_has_are_told() -> None:
    agent, wire = await agent_of(Commanded())
    assert isinstance(await tell(wire, "dance", id="1").end(), errors.UnknownCommand)
    error = await tell(wire, "count", '{"to":1}', id="2", target=("b",)).end()
    assert isinstance(error, errors.InvalidRequest)
    assert "agent a is no orchestrator" in str(error)
    await agent.close()


async def test_only_an_operator_commands() -> None:
    engine = Commanded()
    agent, wire = await agent_of(engine)
    for number, name in enumerate(("count", "drain")):
        error = await tell(wire, name, '{"to":1}', id=str(number), role="observe").end()
        assert isinstance(error, errors.Forbidden)
    assert engine.begun == []
    assert not agent.draining
    await agent.close()


async def test_a_drain_is_the_agents_own() -> None:
    engine = Commanded()
    agent, wire = await agent_of(engine)
    assert await tell(wire, "drain").end() is None
    assert agent.draining
    assert engine.begun == []
    assert await tell(wire, "count", '{"to":1}', id="2").end() is None, "a draining agent is still asked"
    await agent.close()


async def test_a_cancel_stops_the_engine_before_it_is_answered() -> None:
    engine = Commanded()
    agent, wire = await agent_of(engine)
    reply = tell(wire, "hold")
    await asyncio.wait_for(engine.holding.wait(), PATIENCE)
    wire.sink.cancel_received("hub", 1, Cancel("hub", "c", 0, "enough"))
    error = await reply.end()
    assert isinstance(error, errors.TaskCancelled)
    assert str(error) == "enough"
    assert engine.stopped.is_set()
    assert reply.results[-1].seq == 1
    await agent.close()


async def test_a_cancel_of_a_command_that_waits_for_credit_ends_it() -> None:
    engine = Commanded()
    agent, wire = await agent_of(engine)
    reply = tell(wire, "count", '{"to":5}', credit=1)
    await asyncio.wait_for(reply.came.wait(), PATIENCE)
    wire.sink.cancel_received("hub", 1, Cancel("hub", "c", 0, "enough"))
    assert isinstance(await reply.end(), errors.TaskCancelled)
    assert engine.stopped.is_set()
    await agent.close()


async def test_a_cancel_that_overtakes_its_command_keeps_it_from_being_done() -> None:
    engine = Commanded()
    agent, wire = await agent_of(engine)
    wire.sink.cancel_received("hub", 1, Cancel("hub", "c", 0))
    wire.sink.cancel_received("other", 1, Cancel("other", "d", 0))
    assert isinstance(await tell(wire, "count", '{"to":1}').end(), errors.TaskCancelled)
    assert await tell(wire, "count", '{"to":1}', id="d").end() is None, "another hub's cancel names another command"
    assert engine.begun == ["count"]
    await agent.close()


async def test_what_is_remembered_of_a_hub_is_bounded_and_another_hub_cannot_push_it_out() -> None:
    engine = Commanded()
    agent, wire = await agent_of(engine)
    wire.sink.cancel_received("hub", 1, Cancel("hub", "c", 0))
    for number in range(5000):
        wire.sink.cancel_received("flood", 1, Cancel("flood", f"{number}", 0))
    assert len(agent._commands._cancelled) <= 1025
    assert isinstance(await tell(wire, "count", '{"to":1}').end(), errors.TaskCancelled)
    await agent.close()


async def test_the_same_id_twice_from_a_hub_is_done_once() -> None:
    engine = Commanded()
    agent, wire = await agent_of(engine)
    first = tell(wire, "count", '{"to":2}')
    again = tell(wire, "count", '{"to":2}')
    assert await first.end() is None
    late = tell(wire, "count", '{"to":2}')
    of_another = _Reply()
    wire.sink.command_received("other", 1, Command("other", "c", "count", '{"to":2}'), of_another)
    assert await of_another.end() is None
    assert engine.begun == ["count", "count"]
    assert again.results == late.results == []
    await agent.close()


async def test_a_deadline_ends_a_command() -> None:
    clock, engine = SimulatedClock(), Commanded()
    agent, wire = await agent_of(engine, clock=clock)
    reply = tell(wire, "hold", time_left_ms=2000)
    await asyncio.wait_for(engine.holding.wait(), PATIENCE)
    clock.advance(1.9)
    await asyncio.sleep(0)
    assert not reply.final.done()
    clock.advance(0.2)
    assert isinstance(await reply.end(), errors.DeadlineExceeded)
    assert engine.stopped.is_set()
    await agent.close()


async def test_a_lost_hub_ends_its_commands_on_that_link_alone() -> None:
    engine, other = Commanded(), Commanded()
    engine.more["other"] = lambda arguments: other._hold()
    agent, wire = await agent_of(engine)
    tell(wire, "hold")
    kept = _Reply()
    wire.sink.command_received("second", 1, Command("second", "c", "other"), kept)
    await asyncio.wait_for(engine.holding.wait(), PATIENCE)
    await asyncio.wait_for(other.holding.wait(), PATIENCE)
    wire.sink.hub_lost("hub", 1, "gone")
    await asyncio.wait_for(engine.stopped.wait(), PATIENCE)
    assert not other.stopped.is_set()
    await agent.close()
    assert isinstance(await kept.end(), errors.ShuttingDown)
    assert other.stopped.is_set()


async def test_so_many_commands_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_commands, "MAX_OF_ONE_HUB", 2)
    monkeypatch.setattr(agent_commands, "MAX_COMMANDS", 3)
    engine = Commanded()
    agent, wire = await agent_of(engine)
    held = [tell(wire, "hold", id=f"{number}") for number in range(2)]
    assert isinstance(await tell(wire, "hold", id="2").end(), errors.QueueFull)
    of_others = [_Reply(), _Reply()]
    for number, reply in enumerate(of_others):
        wire.sink.command_received(f"other{number}", 1, Command(f"other{number}", "c", "hold"), reply)
    assert isinstance(await of_others[1].end(), errors.QueueFull)
    wire.sink.cancel_received("hub", 1, Cancel("hub", "0", 0))
    await held[0].end()
    assert await tell(wire, "count", '{"to":1}', id="3").end() is None
    await agent.close()


async def test_an_engine_that_does_not_stop_is_named_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    async def deaf(arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        while len(asked) < 2:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                asked.append(1)
        yield "at last"

    clock = SimulatedClock()
    agent, wire = await agent_of(Commanded(deaf=deaf), clock=clock)
    reply = tell(wire, "deaf")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    wire.sink.cancel_received("hub", 1, Cancel("hub", "c", 0))
    await asyncio.sleep(0)
    assert not reply.final.done()
    clock.advance(5.1)
    assert isinstance(await reply.end(), errors.TaskCancelled)
    assert len(reply.results) == 1
    assert agent.boundary.failures["engine commanded.command"] == 1
    await agent.close()


# At the orchestrator


async def read_all(results: AsyncGenerator[Any, None]) -> list[Any]:
    return [each async for each in results]


async def begun(pipeline: Orchestrator, wire: PuppetTransport, **more: Any) -> tuple[asyncio.Task[list[Any]], Command]:
    task = asyncio.create_task(read_all(pipeline.command(["a"], "load", {"model": "m"}, **more)))
    await asyncio.sleep(0)
    return task, wire.commands[-1][1]


async def test_an_orchestrator_sends_a_command_and_reads_its_results(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    caller = Caller("key", "alice", "operate")
    task, command = await begun(pipeline, wire, caller=caller)
    assert (command.name, command.arguments, command.target) == ("load", '{"model":"m"}', ())
    assert (command.tenant, command.role, command.time_left_ms) == ("alice", "operate", 60000)
    wire.result("a", command, 0, '"one"')
    wire.result("a", command, 1, "2", final=True)
    assert await task == ["one", 2]
    assert wire.cancels() == []


@pytest.mark.parametrize(
    ("seq", "data", "text"),
    [(1, "1", "0 was due"), (-1, "1", "0 was due"), (0, "{", "no JSON"), (0, "1" * 70000, "at most 65536")],
    ids=["gap", "negative", "no json", "too long"],
)
async def test_a_result_that_is_none_ends_the_command_and_it_is_cancelled(
    pipeline_of: Make, wire: PuppetTransport, seq: int, data: str, text: str
) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    task, command = await begun(pipeline, wire)
    wire.result("a", command, seq, data)
    with pytest.raises(errors.StreamCorrupted, match=text):
        await task
    assert [cancel.task_id for cancel in wire.cancels()] == [command.id]


async def test_results_beyond_the_credit_end_the_command(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    results = pipeline.command(["a"], "load")
    first = asyncio.create_task(anext(results))
    await asyncio.sleep(0)
    command = wire.commands[-1][1]
    for number in range(pipeline_commands.WINDOW + 1):
        wire.result("a", command, number, "1")
    await first
    with pytest.raises(errors.StreamCorrupted, match="credit"):
        await read_all(results)


async def test_a_lost_link_ends_a_command_which_is_not_repeated(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    task, _ = await begun(pipeline, wire)
    wire.lose("a")
    with pytest.raises(errors.AgentLost, match="may have been done"):
        await task
    wire.join("a", incarnation=2)
    assert len(wire.commands) == 1


async def test_a_deadline_and_a_reader_that_leaves_cancel_the_command(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    task, late = await begun(pipeline, wire, deadline=2)
    clock.advance(2.1)
    with pytest.raises(errors.DeadlineExceeded):
        await task
    results = pipeline.command(["a"], "load")
    first = asyncio.create_task(anext(results))
    await asyncio.sleep(0)
    left = wire.commands[-1][1]
    wire.result("a", left, 0, "1")
    await first
    await results.aclose()
    assert [(cancel.task_id, cancel.attempt) for cancel in wire.cancels()] == [(late.id, 0), (left.id, 0)]


async def test_commands_are_for_operators_and_for_agents_that_are_there(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire)
    with pytest.raises(errors.Forbidden):
        pipeline.command(["a"], "load", caller=Caller(role="observe"))
    with pytest.raises(errors.AgentUnavailable, match="there is no agent 'a'"):
        await read_all(pipeline.command(["a"], "load"))
    with pytest.raises(errors.InvalidRequest, match="no name"):
        await read_all(pipeline.command(["a"], "rm -rf"))
    wire.join("a")
    with pytest.raises(errors.InvalidRequest, match="no JSON"):
        await read_all(pipeline.command(["a"], "load", {"x": object()}))
    assert wire.commands == []


@pytest.mark.parametrize("below", [("",), ("\n",), ("x" * 257,), (5,), ("a",) * 65], ids=str)
async def test_a_target_that_an_agent_would_drop_is_refused_at_once(
    pipeline_of: Make, wire: PuppetTransport, below: tuple[str, ...]
) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    with pytest.raises(errors.InvalidRequest, match="target"):
        await asyncio.wait_for(read_all(pipeline.command(("a", *below), "load", deadline=0)), PATIENCE)
    assert wire.commands == []


@pytest.mark.parametrize("deadline", [-1.0, float("nan"), 1e15, 1e300])
async def test_a_deadline_that_cannot_travel_is_refused_at_once(
    pipeline_of: Make, wire: PuppetTransport, deadline: float
) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    with pytest.raises(errors.InvalidRequest, match="deadline"):
        await asyncio.wait_for(read_all(pipeline.command(["a"], "load", deadline=deadline)), PATIENCE)
    assert wire.commands == []


async def test_an_endless_deadline_is_none(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    task, command = await begun(pipeline, wire, deadline=float("inf"))
    assert command.time_left_ms == 0
    wire.result("a", command, 0, final=True)
    assert await task == []


async def test_arguments_are_bounded_by_their_bytes(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    with pytest.raises(errors.InvalidRequest, match="bytes, the limit is 65536"):
        await read_all(pipeline.command(["a"], "load", {"model": "é" * 40_000}))


async def test_a_command_reaches_a_whole_agent_and_its_slow_reader_stops_the_engine() -> None:
    async with Rig("memory", {"network": "commands"}) as rig:
        engine = Commanded()
        await rig.agent("a", engine=engine)
        pipeline = await rig.pipeline("a")
        async with aclosing(pipeline.command(["a"], "count", {"to": 1000})) as results:
            assert await asyncio.wait_for(anext(results), PATIENCE) == {"number": 0}
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(engine.yielded) == pipeline_commands.WINDOW
            assert len([each async for each in results]) == 999
        assert await read_all(pipeline.command(["a"], "drain")) == [None]
        with pytest.raises(errors.UnknownCommand):
            await read_all(pipeline.command(["a"], "dance"))
