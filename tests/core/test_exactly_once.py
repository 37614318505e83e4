"""The law of the pipeline: whatever agents, wires, plugins and clients do, every task ends exactly once, in order, and
nothing stays behind."""

import asyncio
import logging
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples
from tests.patience import PATIENCE

from anywire import errors
from anywire.builtin.fifo import Fifo
from anywire.builtin.least_loaded import LeastLoaded
from anywire.event_bus import EventBus
from anywire.events import TaskEnded
from anywire.hookspecs import hookimpl
from anywire.identity import hub_info
from anywire.messages import TaskRequest
from anywire.pipeline.attempts.decide import Decision, Hedge, Retry, decide
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline.tasks.task import Attempt
from anywire.pipeline_settings import PipelineConfig
from anywire.plugins import Plugins
from anywire.scheduler import Outcome, QueuedTask, QueueKey, Ready, SchedulerConfig
from anywire.selector import Candidates, SelectorConfig
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL
from anywire.testing.puppet import PuppetTransport
from anywire.transport_tools import WriteRoom

AGENTS = ("a", "b", "c")
WIRES = 2
MEGABYTE = 1024 * 1024
BODIES = {size: "x" * size for size in (10, 5 * MEGABYTE)}
SOAK = 100_000

Step = tuple[Any, ...]
numbers = st.integers(-3, 50)  # the newest ones are -1, -2, -3
STEPS: tuple[st.SearchStrategy[Step], ...] = (
    st.tuples(st.just("submit"), st.sampled_from([10, 5 * MEGABYTE]), st.booleans()),
    st.tuples(st.just("join"), st.integers(0, WIRES - 1), st.sampled_from(AGENTS)),
    st.tuples(st.just("restart"), st.integers(0, WIRES - 1), st.sampled_from(AGENTS)),
    st.tuples(st.just("lose"), st.integers(0, WIRES - 1), st.sampled_from(AGENTS)),
    st.tuples(st.just("fail_send"), st.integers(0, WIRES - 1), st.sampled_from(["unavailable", "large", "bug"])),
    st.tuples(st.just("write"), st.integers(0, WIRES - 1), st.sampled_from(AGENTS)),
    st.tuples(st.sampled_from(["chunk", "finish", "refuse", "fail", "duplicate", "accept", "stop"]), numbers),
    st.tuples(st.just("forge"), numbers, st.sampled_from(AGENTS)),
    st.tuples(st.just("notice"), numbers, st.sampled_from(["not_sent", "maybe_sent", "streaming"])),
    st.tuples(st.just("cancel"), numbers),
    st.tuples(st.just("advance"), st.sampled_from([0.1, 0.5, 2.5, 30.0])),
    st.tuples(st.just("pause"), st.sampled_from([0.5, 1.3, 3.0])),
    st.tuples(st.just("selector"), st.sampled_from(["raise", "nonsense", "none", "observed"])),
    st.tuples(st.just("scheduler"), st.sampled_from(["take", "put", "put_back", "remove", "nonsense", "forget"])),
    st.tuples(st.just("hook")),
    st.tuples(st.just("hedge"), st.booleans()),
    st.tuples(st.just("close"), st.just(0)),
)


class _Failure(Exception):
    pass


class _Moods:
    """What the plugins do wrong at their next call."""

    def __init__(self) -> None:
        self.next: set[str] = set()
        self.hedging = False

    def is_due(self, mood: str) -> bool:
        if mood not in self.next:
            return False
        self.next.discard(mood)
        return True

    def raise_if(self, mood: str) -> None:
        if self.is_due(mood):
            raise _Failure(mood)


class _Selector(LeastLoaded):
    def __init__(self, moods: _Moods) -> None:
        super().__init__(SelectorConfig())
        self._moods = moods

    def select(self, task: QueuedTask, candidates: Candidates) -> Any:
        self._moods.raise_if("selector raise")
        if self._moods.is_due("selector nonsense"):
            return "nobody"
        return None if self._moods.is_due("selector none") else super().select(task, candidates)

    def observed(self, outcome: Outcome) -> None:
        self._moods.raise_if("selector observed")


class _Scheduler(Fifo):
    def __init__(self, moods: _Moods) -> None:
        super().__init__(SchedulerConfig(max_queue_size=20))
        self._moods = moods

    def put(self, task: QueuedTask) -> None:
        self._moods.raise_if("scheduler put")
        super().put(task)

    def put_back(self, task: QueuedTask) -> None:
        self._moods.raise_if("scheduler put_back")
        super().put_back(task)

    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        self._moods.raise_if("scheduler take")
        if self._moods.is_due("scheduler nonsense"):
            return QueuedTask("invented", (QueueKey(MODEL, "chat"),))
        if self._moods.is_due("scheduler forget"):
            super().take(ready, now_ns)  # it loses a task: a deadline is all that is left to it
        return super().take(ready, now_ns)

    def remove(self, task_id: str) -> bool:
        self._moods.raise_if("scheduler remove")
        return super().remove(task_id)


class _Hooks:
    """One for all scripts, since looking for installed plugins takes longer than a script."""

    def __init__(self) -> None:
        self.moods, self.ended = _Moods(), list[str]()
        self.plugins = Plugins()
        self.plugins.manager.register(self, name="moody")
        self.plugins.guard()

    @hookimpl
    def anywire_subscribe(self, events: EventBus) -> None:
        events.subscribe("moody", self._task_ended, TaskEnded)

    def _task_ended(self, event: TaskEnded) -> None:
        self.ended.append(event.task_id)
        self.moods.raise_if("hook")


HOOKS = _Hooks()


class _BoundedWire(PuppetTransport):
    """A wire whose buffers fill, and are written out when the test says so."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.rooms: dict[str, WriteRoom] = {}

    def send(self, agent_id: str, message: Any) -> None:
        if isinstance(message, TaskRequest):
            room = self.rooms.setdefault(agent_id, WriteRoom())
            if self.fail_next is None:
                room.admit(len(message.body))
                room.set_waiting(room.waiting + len(message.body))
        super().send(agent_id, message)

    async def drain(self, agent_id: str) -> None:
        if agent_id in self.rooms:
            await self.rooms[agent_id].drain()

    def write(self, agent_id: str) -> None:
        if agent_id in self.rooms:
            self.rooms[agent_id].set_waiting(0)


class _World:
    """Agents that answer an attempt with ``attempt:0;attempt:1;…`` over two wires, driven step by step."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.moods = _Moods()
        self.wires = [_BoundedWire(f"wire{number}") for number in range(WIRES)]
        self.ended: list[str] = []
        HOOKS.moods, HOOKS.ended = self.moods, self.ended
        self.orchestrator = Orchestrator(
            hub_info("h"),
            self.wires,
            _Scheduler(self.moods),
            _Selector(self.moods),
            config=PipelineConfig(deadline=60, agent_wait=5, window=8, resume=False),
            plugins=HOOKS.plugins,
            clock=self.clock,
            decide=self.decide,
        )
        self.lives = dict.fromkeys(AGENTS, 1)
        self.streams: list[TaskStream] = []
        self.said: dict[tuple[str, int], int] = {}
        self.finals: set[tuple[str, int]] = set()

    def decide(self, task: Any, attempt: Attempt, error: errors.AnywireError, health: Any, budget: Any) -> Decision:
        decision = decide(task, attempt, error, health, budget)
        if self.moods.hedging and isinstance(error, errors.NoProgress) and not task.chunks:
            return Hedge()
        if self.moods.hedging and isinstance(decision, Retry):
            return Retry(after=0.3)
        return decision

    def do(self, step: Step) -> None:
        match step:
            case ("submit", size, stream):
                with suppress(errors.QueueFull, errors.PluginFailed, errors.ShuttingDown):
                    body = BODIES[size]
                    self.streams.append(self.orchestrator.submit(Submission("chat", MODEL, body, stream)))
            case ("join", wire, agent):
                self.wires[wire].join(agent, incarnation=self.lives[agent], slots=2, capabilities=("chat", "resume"))
            case ("restart", wire, agent):
                self.lives[agent] += 1
                self.wires[wire].join(agent, incarnation=self.lives[agent], slots=2, capabilities=("chat", "resume"))
            case ("lose", wire, agent):
                self.wires[wire].lose(agent, incarnation=self.lives[agent])
            case ("write", wire, agent):
                self.wires[wire].write(agent)
            case ("fail_send", wire, kind):
                failures: dict[str, Exception] = {
                    "unavailable": errors.AgentUnavailable("gone"),
                    "large": errors.PayloadTooLarge("limit"),
                    "bug": _Failure("a transport against its contract"),
                }
                self.wires[wire].fail_next = failures[kind]  # type: ignore[assignment]
            case ("cancel", number) if self.streams:
                self.streams[number % len(self.streams)].cancel("by the test")
            case ("advance", seconds):
                self.clock.advance(seconds)
            case ("pause", seconds):
                self.clock.pause(seconds)
            case (("selector" | "scheduler") as plugin, mood):
                self.moods.next.add(f"{plugin} {mood}")
            case ("hook",):
                self.moods.next.add("hook")
            case ("hedge", on):
                self.moods.hedging = on
            case ("close", _):
                self.orchestrator.close_gate()
            case ("forge", number, agent):
                self.forge(number, agent)
            case ("notice", number, phase):
                self.notice(number, phase)
            case (action, number):
                self.act(action, number)

    def some_request(self, number: int) -> tuple[PuppetTransport, TaskRequest] | None:
        requests = [(wire, request) for wire in self.wires for _, request in wire.requests]
        return requests[number % len(requests)] if requests else None

    def act(self, action: str, number: int) -> None:
        """Let some attempt ever sent, current or given up, say something."""
        found = self.some_request(number)
        if found is None:
            return
        wire, request = found
        key = (request.task_id, request.attempt)
        seq = self.said.get(key, 0)
        text = f"{request.attempt}:{seq};"
        match action:
            case "accept":
                wire.chunk(request, seq)
            case "chunk" if request.stream:
                wire.chunk(request, seq, text)
                self.said[key] = seq + 1
            case "duplicate" if seq:
                wire.chunk(request, seq - 1, text)
            case "finish":
                wire.chunk(request, seq, text, final=True)
                self.said[key] = seq + 1
            case "stop":
                wire.stop(request)
            case "refuse":
                self.error(wire, request, errors.Refused("busy"))
            case "fail":
                self.error(wire, request, errors.EngineFailed("broken"))

    def forge(self, number: int, agent: str) -> None:
        """Let an agent answer what was not sent to it."""
        found = self.some_request(number)
        if found is not None:
            wire, request = found
            owner = wire.receiver(request)
            if owner[0] != agent:
                wire.speak(agent, self.lives[agent], request, 0, "forged", final=True)

    def notice(self, number: int, phase: Any) -> None:
        """Let the transport say that an attempt makes no progress, or never left."""
        found = self.some_request(number)
        if found is not None:
            wire, request = found
            error = errors.AgentLost("noticed by the wire", phase=phase)
            wire.sink.send_failed(*wire.receiver(request), request.task_id, request.attempt, error)

    def error(self, wire: PuppetTransport, request: TaskRequest, error: errors.AnywireError) -> None:
        wire.chunk(request, 0, final=True, error=errors.to_wire(error))

    def end_engines(self) -> None:
        """Every engine that was asked to stop has ended, and every buffer was written out."""
        for wire in self.wires:
            for cancel in wire.cancels():
                for _, request in wire.requests:
                    if (request.task_id, request.attempt) == (cancel.task_id, cancel.attempt):
                        wire.stop(request)
            for agent in AGENTS:
                wire.write(agent)


async def _read(stream: TaskStream) -> tuple[list[str], str]:
    """What the reader sees: the texts, and how it ended."""
    texts: list[str] = []
    try:
        async for chunk in stream:
            texts.extend(chunk.deltas)
            if chunk.final:
                return texts, "answered"
    except errors.AnywireError as error:
        return texts, error.code
    pytest.fail("the stream ended without a final chunk or an error")


async def _run(script: Sequence[Step]) -> None:
    world = _World()
    orchestrator, clock = world.orchestrator, world.clock
    await orchestrator.start()
    for step in script:
        world.do(step)
        for agent in orchestrator.agents():
            assert 0 <= agent.in_flight <= agent.status.slots
        assert orchestrator.waiting <= 20
        await asyncio.sleep(0)
    world.moods.next.clear()
    world.end_engines()
    clock.advance(65)
    await asyncio.sleep(0)
    world.end_engines()
    for stream in world.streams:
        texts, end = await asyncio.wait_for(_read(stream), PATIENCE)
        attempts = {text.split(":")[0] for text in texts}
        assert attempts <= {str(stream.attempts)}, "an answer is made of its own attempt alone"
        assert [int(text.split(":")[1].strip(";")) for text in texts] == list(range(len(texts)))
        assert end != "answered" or texts
    assert sorted(world.ended) == sorted(stream.task_id for stream in world.streams)
    assert all(agent.in_flight == 0 for agent in orchestrator.agents())
    stats = orchestrator.stats()
    assert (stats["tasks"]["running"], stats["tasks"]["queued"]) == (0, 0)
    assert not orchestrator.attempts.open
    await orchestrator.close()


@settings(max_examples=examples(300))
@given(st.lists(st.one_of(*STEPS), max_size=60))
def test_every_task_ends_exactly_once_and_in_order(script: list[Step]) -> None:
    asyncio.run(_run(script))


def _random_step(random: random.Random) -> Step:
    """The steps of `STEPS`, drawn without hypothesis: it shrinks well and draws slowly."""
    number = random.choice([-1, -2, -3, random.randrange(51)])
    wire, agent = random.randrange(WIRES), random.choice(AGENTS)
    submit = ("submit", random.choice([10, 10, 10, 5 * MEGABYTE]), random.random() < 0.7)
    say = random.choice(["chunk", "chunk", "finish", "finish", "refuse", "fail", "duplicate", "accept", "stop"])
    plugin = random.choice(["raise", "nonsense", "none", "observed"])
    failure = random.choice(["take", "put", "put_back", "remove", "nonsense", "forget"])
    weights: list[tuple[Step, float]] = [
        (submit, 5),
        ((say, number), 14),
        (("join", wire, agent), 4),
        (("restart", wire, agent), 0.5),
        (("lose", wire, agent), 1),
        (("fail_send", wire, random.choice(["unavailable", "large", "bug"])), 0.5),
        (("write", wire, agent), 1),
        (("forge", number, agent), 0.5),
        (("notice", number, random.choice(["not_sent", "maybe_sent", "streaming"])), 0.5),
        (("cancel", number), 0.5),
        (("advance", random.choice([0.1, 0.5, 2.5, 2.5, 30.0])), 2),
        (("pause", random.choice([0.5, 1.3, 3.0])), 0.5),
        (("selector", plugin), 0.7),
        (("scheduler", failure), 0.7),
        (("hook",), 0.5),
        (("hedge", random.random() < 0.5), 0.5),
        (("close", 0), 0.05),
    ]
    return random.choices([step for step, _ in weights], [weight for _, weight in weights])[0]


@pytest.fixture
def no_logs() -> Iterator[None]:
    """pytest keeps every log record of a test with what its traceback holds: of many scripts, gigabytes."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(0)
@pytest.mark.usefixtures("no_logs")
def test_random_scripts_lose_double_and_hang_nothing() -> None:
    """100,000 of them with ANYWIRE_SOAK, a seeded hundredth otherwise."""
    soak = bool(os.environ.get("ANYWIRE_SOAK"))
    seed = int(os.environ.get("ANYWIRE_SEED", "1"))
    draw = random.Random(seed)

    async def main() -> None:
        for number in range(SOAK if soak else SOAK // 100):
            script = [_random_step(draw) for _ in range(draw.randrange(60))]
            try:
                await _run(script)
            except BaseException:
                print(f"seed {seed}, script {number}: {script}")
                raise

    asyncio.run(main())
