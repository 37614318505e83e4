"""What the pipeline tells of a task's life, of agents and of plugins: everything once, in order, after it happened."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire import errors, events
from anywire.builtin.least_loaded import LeastLoaded
from anywire.caller import Caller
from anywire.events import Event
from anywire.failure_settings import RetryConfig
from anywire.hookspecs import hookimpl
from anywire.identity import hub_info
from anywire.pipeline.attempts.decide import Hedge, decide
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import PipelineConfig
from anywire.plugins import Plugins
from anywire.scheduler import QueuedTask
from anywire.selector import AgentView, Candidates, Choice, SelectorConfig
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL, fifo, least_loaded
from anywire.testing.puppet import PuppetTransport

OWNER = Caller("key-1", "tenant-1")


class Told:
    """All events of a pipeline, in order."""

    def __init__(self, pipeline: Orchestrator) -> None:
        self.events: list[Any] = []
        self.end = pipeline.events.subscribe("told", self.events.append)

    def types(self, *prefixes: str) -> list[str]:
        names = [str(type(each).__struct_config__.tag) for each in self.events]
        return [name for name in names if name.startswith(prefixes or "")]

    def of(self, kind: type[Event]) -> list[Any]:
        return [each for each in self.events if type(each) is kind]

    def clear(self) -> None:
        self.events.clear()


@pytest.fixture
async def pipeline(pipeline_of: Callable[..., Any], wire: PuppetTransport) -> Orchestrator:
    made: Orchestrator = await pipeline_of(wire)
    return made


def submit(pipeline: Orchestrator, **fields: Any) -> TaskStream:
    return pipeline.submit(Submission("chat", MODEL, '{"a":1}', True, caller=OWNER, **fields))


TASK = ("task.", "attempt.")
ANSWERED = ["task.admitted", "task.dispatched", "attempt.sent", "attempt.streaming", "attempt.ended", "task.ended"]


# A task


def test_every_event_has_its_type_and_is_read_again() -> None:
    own = [each for each in vars(events).values() if isinstance(each, type) and issubclass(each, Event)]
    known = {each for each in own if each is not Event}
    assert set(events.EVENTS.values()) == known
    assert set(get_args(events.AnyEvent)) == known


async def test_an_answered_task_s_life(pipeline: Orchestrator, wire: PuppetTransport, clock: SimulatedClock) -> None:
    told = Told(pipeline)
    wire.join("a")
    told.clear()
    stream = submit(pipeline, session="s", parent="p", priority=2, trace="00-1", deadline_s=5.0)
    (_, request) = wire.requests[0]
    clock.advance(0.25)
    wire.accept(request)
    wire.chunk(request, 0, "one")
    clock.advance(0.5)
    wire.chunk(request, 1, "two", final=True)
    assert told.types() == [*ANSWERED[:3], "attempt.accepted", *ANSWERED[3:]]
    admitted, dispatched, sent, accepted, streaming, attempt, ended = told.events
    assert {each.task_id for each in told.events} == {stream.task_id}
    assert {(each.tenant, each.caller, each.trace, each.priority) for each in told.events} == {
        ("tenant-1", "key-1", "00-1", 2)
    }
    assert (admitted.kind, admitted.model, admitted.stream, admitted.session) == ("chat", MODEL, True, "s")
    assert (admitted.parent, admitted.prompt_chars, admitted.deadline_ms) == ("p", 7, 5000)
    assert (dispatched.agent_id, dispatched.attempt, dispatched.candidates) == ("a", 1, 1)
    assert (dispatched.selector, dispatched.scores, dispatched.transport) == ("least_loaded", {}, "puppet")
    assert (sent.incarnation, accepted.agent_id, streaming.first_ms) == (1, "a", 250)
    assert (attempt.error, attempt.first_ms, attempt.total_ms, attempt.chunks) == ("", 250, 750, 2)
    assert (ended.error, ended.agent_id, ended.attempts, ended.chunks, ended.session) == ("", "a", 1, 2, "s")


async def test_how_a_prompt_begins_is_told_to_who_names_the_type_and_says_nothing_of_the_text(
    pipeline_of: Callable[..., Any], wire: PuppetTransport
) -> None:
    def ask(pipeline: Orchestrator, *parts: str) -> TaskStream:
        body = f'{{"messages": [{{"role": "user", "content": "{"".join(parts)}"}}]}}'
        return pipeline.submit(Submission("chat", MODEL, body, True, caller=OWNER))

    same, other, third = (letter * 2000 for letter in "abc")
    lives = [await pipeline_of(wire) for _ in range(2)]
    seen: list[list[Any]] = [[], []]
    usual = Told(lives[0])
    ask(lives[0], same)
    assert events.TaskPrefix not in lives[0].events.wanted, "it costs nothing until somebody wants it"
    for pipeline, told in zip(lives, seen, strict=True):
        pipeline.events.subscribe("capture", told.append, events.TaskPrefix)
        for parts in ((same,), (same, other), (third, other), ("short",)):
            ask(pipeline, *parts)
    assert not usual.of(events.TaskPrefix)
    first, longer, different, short = (each.prefix for each in seen[0])
    assert len(first) == 3
    assert len(longer) > 3
    assert longer[:3] == first
    assert not set(different) & set(longer)
    assert short == ()
    assert not set(first) & set(seen[1][0].prefix), "words of two lives cannot be compared"
    assert {(each.tenant, each.caller) for each in seen[0]} == {("tenant-1", "key-1")}


async def test_the_reader_has_its_end_before_anybody_is_told(pipeline: Orchestrator, wire: PuppetTransport) -> None:
    wire.join("a")
    streams: dict[str, TaskStream] = {}
    had: list[tuple[str, bool]] = []

    def ended(event: events.TaskEnded | events.AttemptEnded | events.HealthChanged) -> None:
        had.extend((type(event).__name__, each._ended or each._error is not None) for each in streams.values())

    pipeline.events.subscribe("me", ended, events.TaskEnded, events.AttemptEnded, events.HealthChanged)
    for number in range(4):
        stream = submit(pipeline)
        streams = {stream.task_id: stream}
        request = wire.requests[-1][1]
        if number < 3:  # three in a row: the agent rests
            wire.chunk(request, 0, final=True, error=errors.to_wire(errors.EngineFailed("broken")))
    assert ("HealthChanged", True) in had
    assert all(seen for _, seen in had)


async def test_a_failed_task_says_how(pipeline: Orchestrator, wire: PuppetTransport) -> None:
    told = Told(pipeline)
    wire.join("a")
    told.clear()
    stream = submit(pipeline)
    wire.chunk(wire.requests[0][1], 0, final=True, error=errors.to_wire(errors.InvalidRequest("bad field")))
    assert told.types() == [*ANSWERED[:3], "attempt.ended", "task.ended"]
    assert (told.events[-1].error, told.events[-1].message) == ("invalid_request", "bad field")
    with pytest.raises(errors.InvalidRequest):
        await stream.result()


async def test_a_lost_agent_s_task_is_told_to_wait_and_goes_on_elsewhere(
    pipeline: Orchestrator, wire: PuppetTransport
) -> None:
    told = Told(pipeline)
    wire.join("a")
    submit(pipeline)
    told.clear()
    wire.lose("a", reason="gone")
    wire.join("b")
    wire.answer(wire.requests[1][1])
    assert told.types() == [
        "attempt.ended",
        "task.requeued",
        "link.lost",
        "agent.lost",
        "agent.joined",
        "link.up",
        "agent.changed",
        "offer.changed",
        *ANSWERED[1:],
    ]
    requeued, ended = told.of(events.TaskRequeued)[0], told.events[-1]
    assert (requeued.attempt, requeued.error, requeued.after_ms) == (2, "agent_lost", 0)
    assert (ended.attempts, ended.agent_id) == (2, "b")
    assert told.of(events.AgentLost)[0].reason == "gone"
    assert told.of(events.OfferChanged)[0].model == MODEL


async def test_a_refused_and_a_congested_attempt_are_told(pipeline: Orchestrator, wire: PuppetTransport) -> None:
    wire.join("a")
    wire.join("b")
    told = Told(pipeline)
    submit(pipeline)
    wire.chunk(wire.requests[0][1], 0, final=True, error=errors.to_wire(errors.Refused("full")))
    assert told.types(*TASK) == [*ANSWERED[:3], "attempt.ended", "task.requeued", *ANSWERED[1:3]]
    told.clear()
    wire.fail_next = errors.Congested("full")
    submit(pipeline)
    assert told.types(*TASK)[:3] == ["task.admitted", "task.dispatched", "task.requeued"]
    assert told.of(events.TaskRequeued)[0].error == "congested"


async def test_a_held_task_is_told_once_with_the_reason(wire: PuppetTransport, clock: SimulatedClock) -> None:
    class Shy(LeastLoaded):
        ready = False

        def select(self, task: QueuedTask, candidates: Candidates) -> Any:
            chosen = super().select(task, candidates)
            return Choice(chosen, {"a": 0.5}, "by mood") if self.ready else None

    selector = Shy(SelectorConfig())
    config = PipelineConfig(retries=RetryConfig(base=0))
    pipeline = Orchestrator(hub_info(), [wire], fifo(), selector, clock=clock, config=config)
    await pipeline.start()
    told = Told(pipeline)
    wire.join("a")
    submit(pipeline)
    clock.advance(5)
    wire.report("a", slots=3)
    assert [each.why for each in told.of(events.TaskHeld)] == ["no agent was chosen"]
    selector.ready = True
    clock.advance(2)
    (dispatched,) = told.of(events.TaskDispatched)
    assert (dispatched.scores, dispatched.reason) == ({"a": 0.5}, "by mood")
    assert 5000 <= dispatched.waited_ms <= 7000
    selector.ready = False
    wire.lose("a")
    wire.join("b")
    assert len(told.of(events.TaskHeld)) == 2, "it is held anew"
    await pipeline.close()


async def test_a_hedge_is_a_second_dispatch_and_one_end(wire: PuppetTransport, clock: SimulatedClock) -> None:
    def hedging(task: Any, attempt: Any, error: Any, health: Any, budget: Any) -> Any:
        no_progress = isinstance(error, errors.NoProgress)
        return Hedge() if no_progress else decide(task, attempt, error, health, budget)

    pipeline = Orchestrator(
        hub_info(), [wire], fifo(), least_loaded(), clock=clock, decide=hedging, config=PipelineConfig()
    )
    await pipeline.start()
    told = Told(pipeline)
    wire.join("a")
    wire.join("b")
    told.clear()
    submit(pipeline)
    clock.advance(2.5)
    (first, second) = (request for _, request in wire.requests)
    wire.answer(second)
    wire.stop(first)
    assert told.types(*TASK) == [*ANSWERED[:3], *ANSWERED[1:], "attempt.ended"]
    assert [(each.attempt, each.error) for each in told.of(events.AttemptEnded)] == [(2, ""), (1, "cancelled")]
    await pipeline.close()


async def test_progress_is_told(pipeline: Orchestrator, wire: PuppetTransport) -> None:
    wire.join("a")
    told = Told(pipeline)
    submit(pipeline, progress=True)
    wire.progress(wire.requests[0][1], "loading", "weights")
    assert told.types(*TASK) == [*ANSWERED[:3], "attempt.accepted", "attempt.progress"]
    assert (told.events[-1].state, told.events[-1].detail) == ("loading", "weights")


# Agents and the orchestrator


async def test_an_agent_s_changes_are_told_and_its_heartbeats_are_not(
    pipeline: Orchestrator, wire: PuppetTransport
) -> None:
    told = Told(pipeline)
    wire.join("a")
    assert told.types() == ["agent.joined", "link.up", "agent.changed", "offer.changed"]
    told.clear()
    wire.report("a", active=3)
    assert not told.events
    wire.report("a", slots=2, models=("other",))
    assert [(each.model, each.state) for each in told.of(events.OfferChanged)] == [("other", "ready"), (MODEL, "gone")]
    (changed,) = told.of(events.AgentChanged)
    assert (changed.slots, changed.models) == (2, ("other",))


async def test_health_is_told_when_it_changes(
    pipeline: Orchestrator, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    told = Told(pipeline)
    wire.join("a")
    for _ in range(3):
        submit(pipeline)
        wire.chunk(wire.requests[-1][1], 0, final=True, error=errors.to_wire(errors.EngineFailed("broken")))
    clock.advance(1.5)
    submit(pipeline)
    wire.chunk(wire.requests[-1][1], 0, final=True, error=errors.to_wire(errors.InvalidRequest("neutral")))
    submit(pipeline)
    wire.answer(wire.requests[-1][1])
    assert [(each.agent_id, each.state) for each in told.of(events.HealthChanged)] == [
        ("a", "open"),
        ("a", "half_open"),
        ("a", "closed"),
    ]


async def test_the_orchestrator_tells_its_own_life(wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline = Orchestrator(hub_info("hub"), [wire], fifo(), least_loaded(), clock=clock)
    told = Told(pipeline)
    await pipeline.start()
    submit(pipeline)
    refused: list[str] = []

    def late(event: events.OrchestratorChanged) -> None:
        with suppress(errors.ShuttingDown):
            submit(pipeline)
            refused.append(event.state)

    pipeline.events.subscribe("late", late, events.OrchestratorChanged)
    await pipeline.close()
    assert [each.state for each in told.of(events.OrchestratorChanged)] == ["open", "closing", "closed"]
    assert [each.error for each in told.of(events.TaskEnded)] == ["shutting_down"]
    assert not refused, "what is told as closed takes nothing in"


# Plugins that fail


async def test_a_failing_plugin_is_told_by_name_and_a_failing_listener_to_that_does_not_loop(
    wire: PuppetTransport, clock: SimulatedClock
) -> None:
    class Broken(LeastLoaded):
        name = "broken"

        def select(self, task: QueuedTask, candidates: Candidates) -> AgentView:
            raise RuntimeError("no choice")

    pipeline = Orchestrator(hub_info(), [wire], fifo(), Broken(SelectorConfig()), clock=clock)
    await pipeline.start()
    told = Told(pipeline)

    def raising(event: Event) -> None:
        raise RuntimeError("no")

    pipeline.events.subscribe("bad", raising, events.PluginFailure, events.TaskEnded)
    wire.join("a")
    stream = submit(pipeline)
    wire.answer(wire.requests[0][1])
    failures = [(each.plugin, each.call, each.task_id) for each in told.of(events.PluginFailure)]
    assert failures == [("selector broken", "select", stream.task_id), ("subscriber bad", "TaskEnded", "")]
    counted = pipeline.stats()["plugin_failures"]
    assert counted == {"selector broken.select": 1, "subscriber bad.PluginFailure": 2, "subscriber bad.TaskEnded": 1}
    await pipeline.close()


async def test_a_hook_subscribes_before_anything_is_told(wire: PuppetTransport, clock: SimulatedClock) -> None:
    seen: list[Event] = []

    class Hook:
        @hookimpl
        def anywire_subscribe(self, events: Any) -> None:
            events.subscribe("hook", seen.append)

    plugins = Plugins()
    plugins.manager.register(Hook())
    pipeline = Orchestrator(hub_info(), [wire], fifo(), least_loaded(), clock=clock, plugins=plugins)
    await pipeline.start()
    await pipeline.close()
    assert [each.state for each in seen] == ["open", "closing", "closed"]  # type: ignore[attr-defined]


# Subscribers that act

LIFE = (events.TaskAdmitted, events.TaskDispatched, events.AttemptSent, events.AttemptAccepted,
        events.AttemptProgress, events.AttemptStreaming, events.TaskRequeued)  # fmt: skip


@pytest.mark.parametrize("kind", LIFE, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("whole", [False, True])
async def test_a_subscriber_may_cancel_the_task_that_it_is_told_of(
    pipeline: Orchestrator, wire: PuppetTransport, kind: type[Event], whole: bool
) -> None:
    told = Told(pipeline)
    pipeline.events.subscribe("me", lambda event: [pipeline.cancel(each) for each in list(pipeline._tasks)], kind)
    wire.join("a")
    submit(pipeline, progress=True)
    for _, request in wire.requests:
        if whole:
            wire.answer(request)
            continue
        wire.accept(request)
        wire.progress(request, "running")
        wire.chunk(request, 0, "text")
        wire.lose("a")
        wire.join("a", incarnation=2)
    ends = [each.error for each in told.of(events.TaskEnded)]
    assert len(ends) == 1
    assert ends == ["cancelled"] or whole or kind is events.TaskRequeued
    assert told.types("task.")[-1] == "task.ended"
    assert not pipeline.boundary.failures
    assert pipeline.stats()["tasks"]["running"] == 0


# The law

STEPS = st.one_of(
    st.tuples(st.just("submit"), st.integers(0, 0)),
    st.tuples(st.sampled_from(["accept", "chunk", "finish", "refuse", "fail", "stop"]), st.integers(-3, 20)),
    st.tuples(st.sampled_from(["join", "lose"]), st.integers(0, 2)),
    st.tuples(st.sampled_from(["cancel", "congest", "unreachable"]), st.integers(-3, 20)),
    st.tuples(st.just("advance"), st.integers(1, 30)),
    st.tuples(st.just("interfere"), st.integers(0, len(LIFE) - 1)),
)


class _World:
    """A pipeline whose events are checked one by one against what they claim. A subscriber interferes: it cancels
    tasks, or submits one, in the middle of a delivery."""

    def __init__(self) -> None:
        self.clock, self.wire = SimulatedClock(), PuppetTransport()
        self.streams: dict[str, TaskStream] = {}
        self.begun: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.last = 0
        self.state: dict[tuple[str, int], str] = {}
        self.interfering: set[type[Event]] = set()
        self.rng = random.Random(1)

        def decision(task: Any, attempt: Any, error: Any, health: Any, budget: Any) -> Any:
            hedge = isinstance(error, errors.NoProgress) and self.rng.random() < 0.5
            return Hedge() if hedge else decide(task, attempt, error, health, budget)

        self.pipeline = Orchestrator(hub_info(), [self.wire], fifo(), least_loaded(), clock=self.clock, decide=decision)
        self.faults: list[str] = []
        self.pipeline.events.subscribe("law", self._guarded)
        self.pipeline.events.subscribe("meddler", self._meddle)

    def _guarded(self, event: Any) -> None:
        try:
            self._check(event)
        except AssertionError as fault:
            self.faults.append(f"{event}: {fault}")

    def _check(self, event: Any) -> None:
        number = int(event.id.rpartition("-")[2])
        assert number == self.last + 1, "an id is missing"
        self.last = number
        task_id = getattr(event, "task_id", "")
        if isinstance(event, events.TaskAdmitted):
            assert not self.begun[task_id]
            self.begun[task_id] += 1
        elif isinstance(event, events.TaskEnded):
            assert self.begun[task_id] == 1
            assert not self.ended[task_id]
            self.ended[task_id] += 1
            stream = self.streams.get(task_id)
            assert stream is None or stream._ended or stream._error is not None, "its reader has no end"
        elif isinstance(event, events.TaskHeld | events.TaskRequeued | events.TaskDispatched):
            assert self.begun[task_id]
            assert not self.ended[task_id]
        elif hasattr(event, "attempt"):
            key = task_id, event.attempt
            before = self.state.get(key, "")
            after = event.__struct_config__.tag.removeprefix("attempt.")
            assert after in {
                "": ("sent", "ended"),
                "sent": ("accepted", "streaming", "ended"),
                "accepted": ("streaming", "ended"),
                "streaming": ("ended",),
            }.get(before, ()), f"{before!r} before it"
            self.state[key] = after

    def _meddle(self, event: Any) -> None:
        if type(event) not in self.interfering:
            return
        self.interfering.discard(type(event))
        for task_id in list(self.streams):
            self.pipeline.cancel(task_id, "meddled with")
        with suppress(errors.AnywireError):
            self.submit()

    def submit(self) -> None:
        stream = self.pipeline.submit(Submission("chat", MODEL, "{}", True))
        self.streams[stream.task_id] = stream

    def step(self, name: str, number: int) -> None:
        requests = [request for _, request in self.wire.requests]
        request = requests[number % len(requests)] if requests else None
        match name:
            case "submit":
                with suppress(errors.AnywireError):
                    self.submit()
            case "join":
                self.wire.join("abc"[number])
            case "lose":
                self.wire.lose("abc"[number])
            case "cancel" if self.streams:
                self.pipeline.cancel(list(self.streams)[number % len(self.streams)])
            case "congest":
                self.wire.fail_next = errors.Congested("full")
            case "unreachable":
                self.wire.fail_next = errors.AgentUnavailable("gone")
            case "advance":
                self.clock.advance(number / 2)
            case "interfere":
                self.interfering.add(LIFE[number])
            case _ if request is not None:
                self._speak(name, request)

    def _speak(self, name: str, request: Any) -> None:
        attempt = self.pipeline.attempts.open.get((request.task_id, request.attempt))
        seq = attempt.next_seq if attempt is not None else 0
        match name:
            case "accept":
                self.wire.chunk(request, seq)
            case "chunk":
                self.wire.chunk(request, seq, "text")
            case "finish":
                self.wire.chunk(request, seq, "text", final=True)
            case "stop":
                self.wire.stop(request)
            case "refuse":
                self.wire.chunk(request, seq, final=True, error=errors.to_wire(errors.Refused("full")))
            case "fail":
                self.wire.chunk(request, seq, final=True, error=errors.to_wire(errors.EngineFailed("broken")))


@given(st.lists(STEPS, max_size=60))
@settings(max_examples=examples(150))
def test_every_task_admitted_ends_once_and_events_tell_the_truth_in_order(script: list[tuple[str, int]]) -> None:
    async def run() -> None:
        world = _World()
        await world.pipeline.start()
        world.wire.join("a")
        for step in script:
            world.step(*step)
            assert not world.faults
        await world.pipeline.close()
        assert not world.faults
        assert set(world.begun) == set(world.ended) >= set(world.streams)
        assert not world.pipeline.boundary.failures

    asyncio.run(run())
