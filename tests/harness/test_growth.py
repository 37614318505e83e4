"""What `benchmarks/growth.py` makes of its measurements, and what it measures: held by count and size, not by time."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections import Counter
from types import FrameType
from typing import Any

import pytest

from anywire.lease import AwakeTime
from anywire.pipeline.attempts.progress import LOOK, MOST, ProgressWatch
from anywire.pipeline_settings import PipelineConfig
from anywire.testing.clock import SimulatedClock
from cost import ROOT, environment_of
from growth import FLAT, GROWTHS, MEMORY, Figure, Growth, growth_figures, table
from growth_probe import STREAMED, Stand, stand
from transport_stack import IN_FLIGHT

COUNTED = 4 * IN_FLIGHT


def test_a_ratio_is_that_of_each_block_to_its_own_base() -> None:
    growth = Growth("task", "a task, agents", (1, 10, 100), 10)
    blocks = [
        {("after", 1): 0.9e-6 * speed, ("after", 10): 1e-6 * speed, ("after", 100): 1.2e-6 * speed}
        for speed in (1, 5, 2)
    ]
    found = {each.what: each for each in growth_figures(growth, blocks, "after")}
    assert found["a task, agents: 10"].value == pytest.approx(2.0)
    assert found["a task, agents: 100, of 10"].value == pytest.approx(1.2)
    assert found["a task, agents: 100, of 10"].is_missed
    assert found["a task, agents: 1, of 10"].value == pytest.approx(0.9)
    assert found["a task, agents: 1, of 10"].aim is None, "one by itself has a turn of the loop of its own"
    assert "a task, agents: 10, of 10" not in found


def test_an_aim_is_reached_or_told_by_how_much_it_is_missed() -> None:
    assert Figure("x", 150.0, "ms", 150.0).verdict == "reached (≤ 150)"
    assert Figure("x", 165.0, "ms", 150.0).verdict == "missed by 10 % (≤ 150)"
    assert Figure("x", 165.0, "ms").verdict == ""


def test_the_table_sets_the_trees_beside_each_other() -> None:
    after = [Figure("a", 12_345.6, "bytes", 12_288.0), Figure("b", 1.04, "×", FLAT, "1.01 to 1.07")]
    alone = table({"after": after}).splitlines()
    assert alone[2] == "| a | 12,346 bytes |  | missed by 0 % (≤ 12288) |"
    assert alone[3] == "| b | 1.04 × | 1.01 to 1.07 | reached (≤ 1.1) |"
    both = table({"before": [Figure("a", 99.91, "bytes")], "after": after}).splitlines()
    assert both[2].startswith("| a | 99.9 bytes | 12,346 bytes |")
    assert both[3].startswith("| b |  | 1.04 × |")
    assert {line.count("|") for line in both} == {6}


def test_every_operation_has_a_base_among_its_sizes() -> None:
    assert all(growth.base in growth.sizes for growth in GROWTHS)


# What is measured


async def calls(made: Stand, work: str, count: int) -> int:
    """How many functions are called, of Python and of C, while so many tasks come or chunks."""
    found = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal found
        found += event in ("call", "c_call")

    await getattr(made, work)(count)
    gc.disable()
    sys.setprofile(note)
    try:
        await getattr(made, work)(count)
    finally:
        sys.setprofile(None)
        gc.enable()
    return found


async def calls_with(agents: int, streams: int, work: str) -> int:
    async with stand() as made:
        made.join(agents, slots=2 * IN_FLIGHT)
        made.join(10, slots=max(1, streams), model=STREAMED)
        await made.open(streams)
        return await calls(made, work, COUNTED)


async def test_a_task_takes_as_many_calls_with_many_agents_and_open_streams_as_with_few() -> None:
    few = await calls_with(1, 0, "answer")
    assert await calls_with(1, 1500, "answer") < 1.1 * few
    # Among many, the order of their loads is kept.
    several = await calls_with(30, 0, "answer")
    assert several < 1.25 * few
    assert await calls_with(600, 0, "answer") < 1.02 * several


async def test_a_chunk_takes_as_many_calls_among_many_streams_as_among_few() -> None:
    assert await calls_with(1, 1500, "stream") < 1.1 * await calls_with(1, IN_FLIGHT, "stream")


@pytest.mark.parametrize("what", [what for what, (_, _, most) in MEMORY.items() if most])
def test_what_waits_and_what_is_open_takes_no_more_memory_than_is_promised(what: str) -> None:
    command = [sys.executable, "-P", str(ROOT / "benchmarks" / "growth_probe.py"), str(ROOT), "memory", f"{what} 3000"]
    with environment_of(ROOT) as environment:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    assert 500 < float(json.loads(done.stdout)) < float(MEMORY[what][2] or 0)


class Late:
    """Takes in what is told of attempts that are late."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def attempt_failed(self, attempt: Any, error: Exception, over: bool) -> None:
        self.told.append(attempt)
        attempt.state = "ended"

    def reader_stalled(self, task: Any) -> None:
        raise AssertionError(task)


class Sent:
    """An attempt that is never accepted."""

    def __init__(self) -> None:
        self.state, self.agent_id = "sent", "a"
        self.cancelled = self.moved = False
        self.due = self.expires = 0.0
        self.chunks = self.looks = 0

    @property
    def task(self) -> Any:
        self.looks += 1
        return type("Task", (), {"stalled_due": 0.0})


@pytest.mark.parametrize("count", [1, MOST, MOST + 1, 5 * MOST + 7])
async def test_a_look_at_progress_is_at_no_more_attempts_than_it_may_be_and_each_has_its_turn(count: int) -> None:
    clock, late = SimulatedClock(), Late()
    attempts: Any = {(f"task-{number}", 1): Sent() for number in range(count)}
    watch = ProgressWatch(attempts, AwakeTime(clock), Counter(), PipelineConfig(accept_timeout=1.0), late)
    for attempt in attempts.values():
        watch.watch(attempt)
    turns = -(-count // MOST)
    for _ in range(round(1 / LOOK) - 1):
        before = sum(each.looks for each in attempts.values())
        clock.advance(LOOK)
        assert sum(each.looks for each in attempts.values()) - before <= MOST
    assert not late.told
    clock.advance(LOOK * (turns + 1))
    clock.advance(LOOK * turns)
    assert len(late.told) == len({id(each) for each in late.told}) == count
    watch.close()
