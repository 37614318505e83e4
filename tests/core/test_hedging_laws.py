"""The laws of hedging, whatever agents, wires and clients do: a hedge ends in exactly one way, texts are neither shown
twice nor mixed, there are never more hedges than the share of tasks allows, losers are stopped once and harm nobody."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples
from tests.patience import PATIENCE

from anywire import errors, events
from anywire.identity import hub_info
from anywire.messages import AgentInfo, TaskRequest
from anywire.pipeline.attempts.first_tokens import LEAST
from anywire.pipeline.attempts.hedging import MOST_SAVED
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline.tasks.task import Task
from anywire.pipeline_settings import PipelineConfig
from anywire.scheduler import QueueKey
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL, fifo, least_loaded
from anywire.testing.puppet import PuppetTransport

QUICKER = "another attempt was quicker"
USUAL = 0.1
PLACES = {"a": ("near", "one"), "b": ("near", "one"), "c": ("far", "one"), "d": ("near", "two")}
"""Agents with their transport and their host."""

Step = tuple[Any, ...]
Key = tuple[str, int]
numbers = st.integers(-4, 60)  # the newest ones are -1, -2, …
STEPS: tuple[st.SearchStrategy[Step], ...] = (
    st.tuples(st.just("submit"), st.sampled_from([True, True, True, False])),
    st.tuples(st.sampled_from(["chunk", "finish", "accept", "stop", "fail", "refuse"]), numbers),
    st.tuples(st.sampled_from(["join", "lose"]), st.sampled_from(sorted(PLACES))),
    st.tuples(st.just("cancel"), numbers),
    st.tuples(st.just("advance"), st.sampled_from([0.05, 0.11, 0.11, 0.3, 2.5, 20.0])),
    st.tuples(st.just("fail_send"), st.sampled_from(["near", "far"]), st.sampled_from(["congested", "unavailable"])),
)


class _Wire(PuppetTransport):
    """Tells the world of each request before it is sent."""

    world: _World

    def send(self, agent_id: str, message: Any) -> None:
        if isinstance(message, TaskRequest):
            self.world.guarded(self.world.sending, agent_id, message)
        super().send(agent_id, message)
        if isinstance(message, TaskRequest):
            self.world.requests.append((self, agent_id, message))


class _World:
    """A pipeline that knows what is late. Agents answer an attempt with ``attempt:0;attempt:1;…``. What it may do is
    checked where it does it."""

    def __init__(self, share: float, resume: bool) -> None:
        self.share, self.clock = share, SimulatedClock()
        self.wires = {name: _Wire(name) for name in ("near", "far")}
        self.pipeline = Orchestrator(
            hub_info("h"),
            list(self.wires.values()),
            fifo(1000),
            least_loaded(),
            config=PipelineConfig.model_validate(
                {"deadline": 60, "resume": resume, "retries": {"base": 0, "floor": 1000}, "hedging": {"share": share}}
            ),
            clock=self.clock,
        )
        self.streams: list[TaskStream] = []
        self.requests: list[tuple[PuppetTransport, str, TaskRequest]] = []
        """In the order in which they were sent."""
        self.faults: list[AssertionError] = []
        """What was found where the pipeline would take an error for a plugin's own."""
        self.said: Counter[Key] = Counter()
        self.hedges: set[Key] = set()
        """Attempts that were begun beside another one, and were sent."""
        self.tried: dict[str, set[str]] = {}
        self.streamed: list[Key] = []
        self.ended: dict[Key, list[str]] = {}
        self.failed: set[str] = set()
        """Agents that have failed an attempt which was not given up."""
        hedge, made = self.pipeline._dispatcher.hedge, self.pipeline._retries.made

        def hedging(task: Task) -> None:
            assert task.retry_budget is not None
            before = task.retry_budget.left(self.clock.now_ns())
            hedge(task)
            if task.retry_budget.left(self.clock.now_ns()) != before:
                self.faults.append(AssertionError("a hedge has cost a retry"))

        def retrying(task: Task, error: errors.AnywireError) -> None:
            if task.attempts:
                self.faults.append(AssertionError("it is sent again while another attempt is under way"))
            made(task, error)

        self.pipeline._dispatcher.hedge = hedging  # type: ignore[method-assign]
        self.pipeline._retries.made = retrying  # type: ignore[method-assign]
        told = self.pipeline.events
        told.subscribe("law", lambda event: self.guarded(self._sent, event), events.AttemptSent)
        told.subscribe(
            "law", lambda event: self.streamed.append((event.task_id, event.attempt)), events.AttemptStreaming
        )
        told.subscribe("law", self._ended, events.AttemptEnded)
        for wire in self.wires.values():
            wire.world = self

    async def start(self) -> None:
        await self.pipeline.start()
        self.join("a")
        for _ in range(LEAST):
            self.submit(True)
            self.clock.advance(USUAL)
            self.act("finish", -1)
        for agent in PLACES:
            self.join(agent)

    def guarded(self, law: Callable[..., None], *given: Any) -> None:
        try:
            law(*given)
        except AssertionError as fault:
            self.faults.append(fault)

    # Laws that hold where something is done

    def sending(self, agent_id: str, request: TaskRequest) -> None:
        """An attempt is handed to a wire. Of a second one the place is the best there is."""
        task = self.pipeline._tasks[request.task_id]
        others = [each for each in task.attempts.values() if each.number != request.attempt]
        tried = self.tried.setdefault(request.task_id, set())
        if others:
            (first,) = others
            assert task.submission.stream
            assert not task.chunks
            assert agent_id not in tried, "it goes to an agent that has not tried the task"
            free = {each.agent_id for each in self.pipeline.registry.serving.candidates(QueueKey(MODEL, "chat"))}
            free = {agent_id, *free} - tried
            (transport, host), mine = PLACES[first.agent_id], PLACES[agent_id]
            if any(PLACES[each][1] != host for each in free):
                assert mine[1] != host, "there is one on another host"
            elif any(PLACES[each][0] != transport for each in free):
                assert mine[0] != transport, "there is one over another transport"
        tried.add(agent_id)

    def _sent(self, event: events.AttemptSent) -> None:
        task = self.pipeline._tasks[event.task_id]
        assert len(task.attempts) <= 2
        if task.attempts[event.attempt].is_hedge:
            self.hedges.add((event.task_id, event.attempt))

    def _ended(self, event: events.AttemptEnded) -> None:
        self.ended.setdefault((event.task_id, event.attempt), []).append(event.error)

    def check(self) -> None:
        """What holds after each step."""
        assert not self.faults, self.faults
        pipeline, counted = self.pipeline, self.pipeline.stats()["events"]
        tasks = sum(stream.stages.admitted > 0 for stream in self.streams)
        assert counted.get("hedges", 0) == len(self.hedges) <= self.share * tasks
        assert counted.get("hedges_won", 0) == len(self.hedges.intersection(self.streamed))
        open_at = Counter(attempt.agent_id for attempt in pipeline.attempts.open.values())
        for agent in pipeline.agents():
            assert agent.in_flight == open_at[agent.agent_id]
            assert agent.in_flight <= agent.status.slots
        suspects = {subject for subject in pipeline.health._records if isinstance(subject, str)}
        assert suspects <= self.failed, "a loser says nothing of its agent"

    def check_ends(self) -> None:
        """What has come of each hedge, once everything is over."""
        cancels = Counter[Key]()
        reasons: dict[Key, str] = {}
        for wire in self.wires.values():
            for cancel in wire.cancels():
                if cancel.reason != "link lost":  # said again to an agent that is back
                    cancels[cancel.task_id, cancel.attempt] += 1
                    reasons[cancel.task_id, cancel.attempt] = cancel.reason
        assert max(cancels.values(), default=1) == 1, "an attempt is stopped once"
        assert all(len(ended) == 1 for ended in self.ended.values()), "an attempt ends once"
        assert len(set(self.streamed)) == len(self.streamed)
        for task_id, number in self.hedges:
            key = (task_id, number)
            (error,) = self.ended[key]
            won = key in self.streamed
            lost = reasons.get(key) == QUICKER
            given_up = key in reasons and not lost and not won
            failed = bool(error) and key not in reasons and not won
            assert [won, lost, given_up, failed].count(True) == 1
        overtaken = {key for key, reason in reasons.items() if reason == QUICKER}
        assert not overtaken.intersection(self.streamed), "who was stopped as the slower one was not shown"
        for task_id, number in overtaken:
            assert self.hedges.intersection((task_id, each) for each in range(number - 1, number + 2))

    # What agents, wires and clients do

    def do(self, step: Step) -> None:
        match step:
            case ("submit", stream):
                self.submit(stream)
            case ("join", agent):
                self.join(agent)
            case ("lose", agent):
                self._lose(agent)
            case ("cancel", number):
                self.streams[number % len(self.streams)].cancel("by the test")
            case ("advance", seconds):
                self.clock.advance(seconds)
            case ("fail_send", wire, "congested"):
                self.wires[wire].fail_next = errors.Congested("full")
            case ("fail_send", wire, _):
                self.wires[wire].fail_next = errors.AgentUnavailable("gone", phase="not_sent")
            case (action, number):
                self.act(action, number)

    def submit(self, stream: bool) -> None:
        with suppress(errors.NoAgent, errors.ModelNotFound, errors.DeadlineTooShort):
            self.streams.append(self.pipeline.submit(Submission("chat", MODEL, "{}", stream)))

    def join(self, agent: str) -> None:
        transport, host = PLACES[agent]
        capabilities = ("chat", "resume")
        self.wires[transport]._resuming.add(agent)
        info = AgentInfo(agent, 1, host=host, capabilities=capabilities, lease_ms=1000)
        self.wires[transport].join(agent, slots=3, info=info)

    def _lose(self, agent: str) -> None:
        if any(each.agent_id == agent and not each.cancelled for each in self.pipeline.attempts.open.values()):
            self.failed.add(agent)
        self.wires[PLACES[agent][0]].lose(agent)

    def act(self, action: str, number: int) -> None:
        """Let some attempt ever sent, current or given up, say something."""
        if not self.requests:
            return
        wire, agent, request = self.requests[number % len(self.requests)]
        key = (request.task_id, request.attempt)
        text = f"{request.attempt}:{len(request.resume.split(';')) - 1 + self.said[key]};"
        attempt = self.pipeline.attempts.open.get(key)
        counts = attempt is not None and not attempt.cancelled
        match action:
            case "accept":
                wire.chunk(request, self.said[key])
            case "chunk" if request.stream:
                wire.chunk(request, self.said[key], text)
                self.said[key] += 1
            case "finish":
                wire.chunk(request, self.said[key], text, final=True)
                self.said[key] += 1
            case "stop":
                if not counts:
                    wire.stop(request)
            case "refuse":
                wire.chunk(request, 0, final=True, error=errors.to_wire(errors.Refused("busy")))
            case "fail":
                if counts:
                    self.failed.add(agent)
                wire.chunk(request, 0, final=True, error=errors.to_wire(errors.EngineFailed("broken")))

    def end_engines(self) -> None:
        """Every engine that was asked to stop has ended."""
        for wire in self.wires.values():
            asked = {(cancel.task_id, cancel.attempt) for cancel in wire.cancels()}
            for _, request in wire.requests:
                if (request.task_id, request.attempt) in asked:
                    wire.stop(request)

    async def finish(self) -> None:
        for _ in range(2):
            self.end_engines()
            self.clock.advance(65)
            await asyncio.sleep(0)
        self.end_engines()


async def _texts(stream: TaskStream) -> list[str]:
    texts: list[str] = []
    with suppress(errors.AnywireError):
        async for chunk in stream:
            texts.extend(chunk.deltas)
    return "".join(texts).split(";")[:-1]


async def _run(share: float, resume: bool, script: Sequence[Step]) -> None:
    world = _World(share, resume)
    await world.start()
    for step in script:
        world.do(step)
        await asyncio.sleep(0)
        # Whoever makes no progress has failed as well.
        for attempt in world.pipeline.attempts.open.values():
            if attempt.code == "no_progress":
                world.failed.add(attempt.agent_id)
        world.check()
    await world.finish()
    for stream in world.streams:
        texts = [text.split(":") for text in await asyncio.wait_for(_texts(stream), PATIENCE)]
        assert [int(at) for _, at in texts] == list(range(len(texts))), "nothing is shown twice, nothing is missing"
        attempts = [int(attempt) for attempt, _ in texts]
        assert attempts == sorted(attempts)
        if not resume:
            assert set(attempts) <= {stream.attempts}, "an answer is made of its own attempt alone"
    assert not world.pipeline.attempts.open
    assert all(agent.in_flight == 0 for agent in world.pipeline.agents())
    world.check_ends()
    await world.pipeline.close()
    assert not world.clock.pending


@settings(max_examples=examples(60))
@given(st.sampled_from([0.1, 0.34, 1.0]), st.booleans(), st.lists(st.one_of(*STEPS), max_size=60))
def test_the_laws_of_hedging(share: float, resume: bool, script: list[Step]) -> None:
    asyncio.run(_run(share, resume, script))


def _random_step(draw: random.Random) -> Step:
    """The steps of `STEPS`, drawn without hypothesis, so that many streams are late."""
    number = draw.choice([-1, -2, -3, draw.randrange(80)])
    say = draw.choice(["chunk", "chunk", "finish", "finish", "stop", "accept", "fail", "refuse"])
    agent = draw.choice(sorted(PLACES))
    weights: list[tuple[Step, float]] = [
        (("submit", draw.random() < 0.9), 4),
        ((say, number), 8),
        (("advance", draw.choice([0.05, 0.11, 0.11, 0.3, 2.5])), 5),
        (("join", agent), 1),
        (("lose", agent), 0.4),
        (("cancel", number), 0.3),
        (("fail_send", draw.choice(["near", "far"]), draw.choice(["congested", "unavailable"])), 0.4),
    ]
    return draw.choices([step for step, _ in weights], [weight for _, weight in weights])[0]


@pytest.mark.timeout(0)
def test_random_scripts_keep_the_laws_of_hedging() -> None:
    """Fifty seeded scripts, and twenty times as many in the long form."""

    async def main() -> None:
        for seed in range(examples(50)):
            draw = random.Random(seed)
            script = [_random_step(draw) for _ in range(draw.randrange(120))]
            try:
                await _run(draw.choice([0.1, 1.0]), draw.random() < 0.5, script)
            except BaseException:
                print(f"script {seed}: {script}")
                raise

    asyncio.run(main())


@settings(max_examples=examples(15))
@given(st.sampled_from([0.01, 0.05, 0.3]), st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=8))
def test_no_order_of_arrivals_gets_more_hedges_than_the_share(share: float, runs: list[tuple[bool, int]]) -> None:
    """Also within any stretch there are at most the share of its tasks, and what was saved up before."""

    async def main() -> None:
        world = _World(share, False)
        await world.start()
        made = [0]
        for late, streams in runs:
            for _ in range(streams):
                world.submit(True)
                world.clock.advance(2 * USUAL if late else USUAL / 2)
                world.act("finish", -1)
                world.end_engines()
                made.append(len(world.hedges))
                assert made[-1] <= share * len(world.streams)
        least = 0.0
        for number, hedges in enumerate(made):
            least = min(least, hedges - share * number)
            assert hedges - share * number <= least + MOST_SAVED + 1e-6
        world.check()
        await world.finish()
        await world.pipeline.close()

    asyncio.run(main())
