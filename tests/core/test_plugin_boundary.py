"""What a strategy, hook or listener raises or returns against its contract harms no task but, at most, its own."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import AsyncExitStack
from importlib import metadata
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from tests.patience import PATIENCE

from anywire import errors, plugins
from anywire.builtin.fifo import Fifo
from anywire.builtin.least_loaded import LeastLoaded
from anywire.event_bus import EventBus
from anywire.events import TaskEnded
from anywire.hookspecs import hookimpl
from anywire.identity import hub_info
from anywire.messages import Chunk, TaskRequest
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.scheduler import Outcome, QueuedTask, QueueKey, Ready, SchedulerConfig
from anywire.selector import AgentView, Candidates, SelectorConfig
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL, fifo, least_loaded
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

Make = Callable[..., Any]


@pytest.fixture
async def pipeline_with(wire: PuppetTransport, clock: SimulatedClock) -> AsyncIterator[Make]:
    """Makes a started orchestrator with the scheduler, selector and hooks given."""
    async with AsyncExitStack() as stack:

        async def make(scheduler: Any = None, selector: Any = None, hooks: Sequence[Any] = ()) -> Orchestrator:
            found = Plugins()
            for each in hooks:
                found.manager.register(each)
            found.guard()
            pipeline = Orchestrator(
                hub_info("hub"),
                [wire],
                fifo() if scheduler is None else scheduler,
                least_loaded() if selector is None else selector,
                plugins=found,
                clock=clock,
            )
            await pipeline.start()
            stack.push_async_callback(pipeline.close)
            return pipeline

        yield make


def chat(pipeline: Orchestrator, **settings: Any) -> Any:
    return pipeline.submit(Submission("chat", MODEL, "{}", **settings))


def newest(wire: PuppetTransport) -> TaskRequest:
    return wire.requests[-1][1]


class _Selector(LeastLoaded):
    def __init__(self, select: Callable[[int], Any] = lambda number: None, observed: bool = False) -> None:
        super().__init__(SelectorConfig())
        self.calls, self._select, self._raises = 0, select, observed

    def select(self, task: QueuedTask, candidates: Candidates) -> Any:
        self.calls += 1
        return self._select(self.calls) or super().select(task, candidates)

    def observed(self, outcome: Outcome) -> None:
        if self._raises:
            raise ValueError("observed")


def every_second_raises(number: int) -> None:
    if number % 2 == 0:
        raise ValueError("every second choice")


async def test_eight_clients_and_a_selector_that_raises_every_second_time(
    pipeline_with: Make, wire: PuppetTransport
) -> None:
    """One slot: each answer frees it, and the choice for the next task, which may raise, runs in that very moment."""
    selector = _Selector(every_second_raises, observed=True)
    pipeline = await pipeline_with(selector=selector)
    wire.join("a", slots=1)
    streams = [chat(pipeline) for _ in range(8)]
    for stream in streams:
        wire.answer(newest(wire))
        assert await asyncio.wait_for(read(stream), PATIENCE) == "answer"
    failures = pipeline.stats()["plugin_failures"]
    assert failures == {"selector least_loaded.select": 4, "selector least_loaded.observed": 8}
    assert pipeline.agents()[0].in_flight == 0


STRANGER: Any = AgentView(None, None, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("nonsense", ["a", 5, object(), STRANGER], ids=["text", "number", "object", "view"])
async def test_a_choice_that_is_no_candidate_is_replaced(
    pipeline_with: Make, wire: PuppetTransport, nonsense: Any
) -> None:
    pipeline = await pipeline_with(selector=_Selector(lambda number: nonsense))
    wire.join("a")
    stream = chat(pipeline)
    wire.answer(newest(wire))
    assert await read(stream) == "answer"
    assert pipeline.stats()["events"]["plugin_failures"] == 1


async def test_what_observed_raises_leaves_the_slot_free(pipeline_with: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_with(selector=_Selector(observed=True))
    wire.join("a", slots=1)
    for _ in range(3):
        stream = chat(pipeline)
        wire.answer(newest(wire))
        assert await read(stream) == "answer"
    assert pipeline.agents()[0].in_flight == 0


class _Scheduler(Fifo):
    """Fails in the call named, at its first call or always."""

    def __init__(self, call: str, *, always: bool = False) -> None:
        super().__init__(SchedulerConfig())
        self._call, self._always = call, always

    def _fail_in(self, call: str) -> None:
        if call == self._call:
            self._call = call if self._always else ""
            raise ValueError(f"scheduler fails in {call}")

    def put(self, task: QueuedTask) -> None:
        self._fail_in("put")
        super().put(task)

    def put_back(self, task: QueuedTask) -> None:
        self._fail_in("put_back")
        super().put_back(task)

    def take(self, ready: Ready, now_ns: int) -> Any:
        self._fail_in("take")
        if self._call == "nonsense":
            return "a task"
        if self._call == "invented":
            return QueuedTask("invented", (QueueKey(MODEL, "chat"),))
        return super().take(ready, now_ns)

    def remove(self, task_id: str) -> bool:
        self._fail_in("remove")
        return super().remove(task_id)


async def test_put_that_raises_refuses_its_own_task_alone(pipeline_with: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_with(_Scheduler("put"))
    wire.join("a")
    with pytest.raises(errors.PluginFailed, match="scheduler fifo failed in put: it raised ValueError"):
        chat(pipeline)
    stream = chat(pipeline)
    wire.answer(newest(wire))
    assert await read(stream) == "answer"
    assert pipeline.stats()["tasks"]["running"] == 0


@pytest.mark.parametrize("call", ["take", "nonsense", "invented"])
async def test_each_take_that_fails_costs_one_task(pipeline_with: Make, wire: PuppetTransport, call: str) -> None:
    pipeline = await pipeline_with(_Scheduler(call, always=True))
    streams = [chat(pipeline) for _ in range(5)]
    wire.join("a")
    for stream in streams:
        with pytest.raises(errors.PluginFailed, match="failed in take"):
            await asyncio.wait_for(read(stream), PATIENCE)
    assert pipeline.waiting == 0


async def test_put_back_that_raises_costs_the_task_that_was_put_back(
    pipeline_with: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_with(_Scheduler("put_back"))
    wire.join("a", slots=2)
    lost, other = chat(pipeline), chat(pipeline)
    second = newest(wire)
    wire.chunk(wire.requests[0][1], 0, final=True, error=errors.to_wire(errors.Refused("busy")))
    with pytest.raises(errors.PluginFailed, match="put_back"):
        await read(lost)
    wire.answer(second)
    assert await read(other) == "answer"


async def test_remove_that_raises_is_counted(pipeline_with: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_with(_Scheduler("remove"))
    stream = chat(pipeline)
    stream.cancel("not wanted")
    with pytest.raises(errors.TaskCancelled):
        await read(stream)
    assert pipeline.stats()["plugin_failures"] == {"scheduler fifo.remove": 1}


class _Observer:
    def __init__(self, name: str, order: list[str], raises: bool = False) -> None:
        self.name, self.order, self.raises = name, order, raises

    @hookimpl
    def anywire_filter_candidates(self) -> None:
        """Takes fewer arguments than there are."""
        self.order.append(self.name)
        if self.raises:
            raise ValueError(self.name)


class _Wrapper:
    def __init__(self, order: list[str], where: str = "") -> None:
        self.order, self.where = order, where

    @hookimpl(wrapper=True)
    def anywire_filter_candidates(self, task: QueuedTask) -> Generator[None, Any, Any]:
        self.order.append("before")
        if self.where == "before":
            raise ValueError("before")
        result = yield
        self.order.append("after")
        if self.where == "after":
            raise ValueError("after")
        return result


@pytest.mark.parametrize(
    ("where", "order"),
    [("", ["before", "3", "2", "1", "after"]), ("before", ["before", "3", "2", "1"]),
     ("after", ["before", "3", "2", "1", "after"])],
)  # fmt: skip
async def test_hooks_follow_pluggys_rules_and_a_broken_one_silences_no_other(
    pipeline_with: Make, wire: PuppetTransport, where: str, order: list[str]
) -> None:
    called: list[str] = []
    hooks = [_Observer("1", called), _Observer("2", called, raises=True), _Observer("3", called)]
    pipeline = await pipeline_with(hooks=[*hooks, _Wrapper(called, where)])
    wire.join("a")
    stream = chat(pipeline)
    wire.answer(newest(wire))
    assert await read(stream) == "answer"
    assert called == order


async def test_filters_that_raise_or_return_nonsense_are_left_out(pipeline_with: Make, wire: PuppetTransport) -> None:
    class Raises:
        @hookimpl
        def anywire_filter_candidates(self, candidates: Any) -> Any:
            raise ValueError("filter")

    class Nonsense:
        @hookimpl
        def anywire_filter_candidates(self) -> Any:
            return 5

    class OnlyB:
        @hookimpl
        def anywire_filter_candidates(self, candidates: Sequence[AgentView]) -> Any:
            return [agent for agent in candidates if agent.agent_id == "b"]

    pipeline = await pipeline_with(hooks=[Raises(), OnlyB(), Nonsense()])
    for agent in ("a", "b", "c"):
        wire.join(agent)
    chat(pipeline)
    assert wire.requests[0][0] == "b"
    assert pipeline.stats()["events"]["plugin_failures"] == 2


async def test_a_listener_that_raises_silences_no_other(pipeline_with: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_with()
    heard: list[int] = []

    def raises() -> None:
        raise ValueError("listener")

    pipeline.listen(raises)
    pipeline.listen(lambda: heard.append(1))
    wire.join("a")
    assert heard
    stream = chat(pipeline)
    wire.answer(newest(wire))
    assert await read(stream) == "answer"


async def test_the_reader_has_its_answer_before_any_plugin_runs(pipeline_with: Make, wire: PuppetTransport) -> None:
    seen: list[bool] = []
    streams: list[Any] = []

    class Looks:
        @hookimpl
        def anywire_subscribe(self, events: EventBus) -> None:
            events.subscribe("looks", lambda event: seen.append(streams[0].waiting == 1), TaskEnded)

    class Observes(_Selector):
        def observed(self, outcome: Outcome) -> None:
            seen.append(streams[0].waiting == 1)

    pipeline = await pipeline_with(selector=Observes(), hooks=[Looks()])
    wire.join("a")
    streams.append(chat(pipeline))
    wire.answer(newest(wire))
    assert seen == [True, True]
    assert pipeline.stats()["tasks"]["running"] == 0


def test_a_broken_hooks_package_is_named_and_skipped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = EntryPoint("broken", "no_such_module_anywhere", "anywire.hooks")

    def entry_points() -> metadata.EntryPoints:
        return metadata.EntryPoints([*metadata.entry_points(group="anywire.transports"), broken])

    monkeypatch.setattr(plugins, "entry_points", entry_points)
    with caplog.at_level(logging.ERROR):
        found = Plugins()
    assert "no_such_module_anywhere" in caplog.text
    assert list(found.broken) == ["broken (no_such_module_anywhere)"]
    assert found.names("transports")


# What plugins do while an agent is chosen


@pytest.mark.parametrize("hold", [False, True], ids=["chosen", "held"])
async def test_a_task_that_is_cancelled_while_its_agent_is_chosen_is_not_sent(
    pipeline_with: Make, wire: PuppetTransport, clock: SimulatedClock, hold: bool
) -> None:
    class Cancelling(LeastLoaded):
        def select(self, task: QueuedTask, candidates: Candidates) -> Any:
            pipeline.cancel(task.task_id)
            return None if hold else super().select(task, candidates)

    pipeline = await pipeline_with(selector=Cancelling(SelectorConfig()))
    wire.join("a")
    with pytest.raises(errors.TaskCancelled):
        await read(chat(pipeline))
    clock.advance(3)
    assert not wire.requests
    assert (pipeline.waiting, pipeline.agents()[0].in_flight) == (0, 0)


async def test_a_gate_that_is_closed_while_an_agent_is_chosen_ends_that_task_too(
    pipeline_with: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_with(selector=_Selector(lambda number: pipeline.close_gate()))
    wire.join("a")
    with pytest.raises(errors.ShuttingDown):
        await asyncio.wait_for(read(chat(pipeline)), PATIENCE)
    assert not wire.requests


async def test_an_agent_that_is_lost_while_it_is_chosen_gets_nothing(
    pipeline_with: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_with(selector=_Selector(lambda number: wire.lose("a") if number == 1 else None))
    wire.join("a")
    stream = chat(pipeline)
    assert pipeline.waiting == 1
    wire.join("b")
    wire.answer(newest(wire))
    assert await read(stream) == "answer"


async def test_filters_that_fail_late_or_are_wrapped_into_nonsense_are_left_out(
    pipeline_with: Make, wire: PuppetTransport
) -> None:
    class Lazy:
        @hookimpl
        def anywire_filter_candidates(self, candidates: Sequence[AgentView]) -> Any:
            return (1 / 0 for _ in candidates)

    class Wrapper:
        @hookimpl(wrapper=True)
        def anywire_filter_candidates(self, candidates: Sequence[AgentView]) -> Generator[Any, Any, Any]:
            found = yield
            return 5 if len(wire.requests) else found

    pipeline = await pipeline_with(hooks=[Lazy(), Wrapper()])
    wire.join("a")
    for _ in range(2):
        stream = chat(pipeline)
        wire.answer(newest(wire))
        assert await read(stream) == "answer"
    assert pipeline.stats()["plugin_failures"] == {"hook anywire_filter_candidates.result": 2}


async def test_a_scheduler_that_takes_no_held_task_back_fails_each_of_a_thousand(
    pipeline_with: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    class NoneBack(Fifo):
        def put_back(self, task: QueuedTask) -> None:
            raise ValueError("put_back")

    class Holding(LeastLoaded):
        def select(self, task: QueuedTask, candidates: Candidates) -> Any:
            """Let it wait."""

    pipeline = await pipeline_with(scheduler=NoneBack(SchedulerConfig()), selector=Holding(SelectorConfig()))
    wire.join("a")
    streams = [chat(pipeline) for _ in range(1000)]
    clock.advance(1.5)
    for stream in streams:
        with pytest.raises(errors.PluginFailed):
            await asyncio.wait_for(read(stream), PATIENCE)
    assert pipeline.waiting == 0


async def test_an_agent_that_names_a_kind_several_times_is_one_candidate(
    pipeline_with: Make, wire: PuppetTransport
) -> None:
    seen: list[list[str]] = []

    class Looking(LeastLoaded):
        def select(self, task: QueuedTask, candidates: Candidates) -> Any:
            seen.append([agent.agent_id for agent in candidates])
            return super().select(task, candidates)

    pipeline = await pipeline_with(selector=Looking(SelectorConfig()))
    wire.join("a", capabilities=("chat",) * 5)
    wire.join("b")
    chat(pipeline)
    assert seen == [["a", "b"]]
    wire.lose("a")
    wire.lose("b")
    assert pipeline.models() == []


class _Abstract(LeastLoaded):
    def __init__(self, config: Any) -> None:
        raise ValueError("it cannot be made")


class _WithoutConfig:
    name = "bare"


@pytest.mark.parametrize("made", [5, _Abstract, _WithoutConfig], ids=["number", "raises", "no config"])
def test_a_plugin_that_cannot_be_made_is_named(made: Any) -> None:
    class Registers:
        @hookimpl
        def anywire_register(self, kind: str) -> Any:
            return {"odd": made} if kind == "selectors" else None

    found = Plugins()
    found.manager.register(Registers())
    with pytest.raises(errors.PluginError, match="selector 'odd'"):
        found.create("selectors", "odd", {})


async def test_an_early_answer_that_is_none_is_left_out(pipeline_with: Make, wire: PuppetTransport) -> None:
    class Odd:
        @hookimpl
        def anywire_answer(self) -> Any:
            return Chunk("", "", 0, 0, deltas=None)  # type: ignore[arg-type]

    pipeline = await pipeline_with(hooks=[Odd()])
    wire.join("a")
    stream = chat(pipeline)
    wire.answer(newest(wire))
    assert await read(stream) == "answer"
