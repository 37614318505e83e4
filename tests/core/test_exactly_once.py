"""The law of the pipeline: whatever agents, wires and clients do, every task ends exactly once, in order, and
nothing stays behind."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples
from tests.patience import PATIENCE

from anywire import errors
from anywire.identity import hub_info
from anywire.messages import TaskRequest
from anywire.pipeline.orchestrator import Orchestrator, PipelineConfig
from anywire.pipeline.stream import TaskStream
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL, IdlestSelector, ListScheduler
from anywire.testing.puppet import PuppetTransport

AGENTS = ("a", "b", "c")
WIRES = 2

Step = tuple[Any, ...]
numbers = st.integers(0, 50)
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("submit")),
    st.tuples(st.just("join"), st.integers(0, WIRES - 1), st.sampled_from(AGENTS)),
    st.tuples(st.just("restart"), st.integers(0, WIRES - 1), st.sampled_from(AGENTS)),
    st.tuples(st.just("lose"), st.integers(0, WIRES - 1), st.sampled_from(AGENTS)),
    st.tuples(st.just("fail_send"), st.integers(0, WIRES - 1), st.sampled_from(["congested", "unavailable", "large"])),
    st.tuples(st.sampled_from(["chunk", "finish", "refuse", "fail", "duplicate"]), numbers),
    st.tuples(st.just("cancel"), numbers),
    st.tuples(st.just("advance"), st.sampled_from([0.1, 2.0, 30.0])),
)


class _World:
    """Agents that answer an attempt with ``attempt:0;attempt:1;…`` over two wires, driven step by step."""

    def __init__(self, orchestrator: Orchestrator, wires: list[PuppetTransport], clock: SimulatedClock) -> None:
        self.orchestrator, self.wires, self.clock = orchestrator, wires, clock
        self.lives = dict.fromkeys(AGENTS, 1)
        self.streams: list[TaskStream] = []
        self.said: dict[tuple[str, int], int] = {}

    def do(self, step: Step) -> None:
        match step:
            case ("submit",):
                with suppress(errors.QueueFull):
                    self.streams.append(self.orchestrator.submit(Submission("chat", MODEL, "{}", True)))
            case ("join", wire, agent):
                self.wires[wire].join(agent, incarnation=self.lives[agent], slots=2)
            case ("restart", wire, agent):
                self.lives[agent] += 1
                self.wires[wire].join(agent, incarnation=self.lives[agent], slots=2)
            case ("lose", wire, agent):
                self.wires[wire].lose(agent, incarnation=self.lives[agent])
            case ("fail_send", wire, kind):
                failures = {
                    "congested": errors.Congested("full"),
                    "unavailable": errors.AgentUnavailable("gone"),
                    "large": errors.PayloadTooLarge("limit"),
                }
                self.wires[wire].fail_next = failures[kind]
            case ("cancel", number) if self.streams:
                self.streams[number % len(self.streams)].cancel("by the test")
            case ("advance", seconds):
                self.clock.advance(seconds)
            case (action, number):
                self.act(action, number)

    def act(self, action: str, number: int) -> None:
        """Let some attempt ever sent, current or given up, say something."""
        requests = [(wire, request) for wire in self.wires for _, request in wire.requests]
        if not requests:
            return
        wire, request = requests[number % len(requests)]
        key = (request.task_id, request.attempt)
        seq = self.said.get(key, 0)
        text = f"{request.attempt}:{seq};"
        match action:
            case "chunk":
                wire.chunk(request, seq, text)
                self.said[key] = seq + 1
            case "duplicate" if seq:
                wire.chunk(request, seq - 1, text)
            case "finish":
                wire.chunk(request, seq, text, final=True)
                self.said[key] = seq + 1
            case "refuse":
                self.error(wire, request, errors.Refused("busy"))
            case "fail":
                self.error(wire, request, errors.EngineFailed("broken"))

    def error(self, wire: PuppetTransport, request: TaskRequest, error: errors.AnywireError) -> None:
        wire.chunk(request, 0, final=True, error=errors.to_wire(error))


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


async def _run(script: list[Step]) -> None:
    clock = SimulatedClock()
    wires = [PuppetTransport(f"wire{number}") for number in range(WIRES)]
    config = PipelineConfig(deadline=60, agent_wait=5, window=8)
    orchestrator = Orchestrator(hub_info("h"), wires, ListScheduler(20), IdlestSelector(), config=config, clock=clock)
    ended: list[str] = []
    orchestrator._finished_hook = lambda record: ended.append(record.task_id)
    await orchestrator.start()
    world = _World(orchestrator, wires, clock)
    for step in script:
        world.do(step)
        for agent in orchestrator.agents():
            assert 0 <= agent.in_flight <= agent.status.slots
        await asyncio.sleep(0)
    clock.advance(100)
    for stream in world.streams:
        texts, end = await asyncio.wait_for(_read(stream), PATIENCE)
        attempts = {text.split(":")[0] for text in texts}
        assert attempts <= {str(stream.attempts)}, "an answer is made of its own attempt alone"
        assert [int(text.split(":")[1].strip(";")) for text in texts] == list(range(len(texts)))
        assert end != "answered" or texts
    assert sorted(ended) == sorted(stream.task_id for stream in world.streams)
    assert all(agent.in_flight == 0 for agent in orchestrator.agents())
    stats = orchestrator.stats()
    assert (stats["tasks"]["running"], stats["tasks"]["queued"]) == (0, 0)
    await orchestrator.close()


def _runs(main: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
    asyncio.run(main(*arguments))


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(steps, max_size=60))
def test_every_task_ends_exactly_once_and_in_order(script: list[Step]) -> None:
    _runs(_run, script)
