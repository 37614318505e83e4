"""What the pipeline costs without a gateway: orchestrator, transport, agent and the synthetic engine at no delay."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from anywire.pipeline.orchestrator import Orchestrator
from anywire.submission import Submission
from timing import Rounds, opened, per
from transport_stack import ANSWER, IN_FLIGHT, STREAM, pipeline, submission

SINGLE, MANY, STREAMS = 200, 2048, 64
TASK = submission(ANSWER)


@pytest.fixture(scope="module")
def orchestrator(loop: asyncio.AbstractEventLoop, transport: str, options: dict[str, Any]) -> Iterator[Orchestrator]:
    with opened(loop, pipeline(transport, options)) as orchestrator:
        yield orchestrator
        assert set(orchestrator.stats()["tasks"]["ended"]) == {"answered"}


async def one_by_one(orchestrator: Orchestrator, task: Submission, count: int) -> None:
    for _ in range(count):
        await orchestrator.submit(task).result()


async def in_flight(orchestrator: Orchestrator, task: Submission, count: int) -> None:
    await asyncio.gather(*(one_by_one(orchestrator, task, count // IN_FLIGHT) for _ in range(IN_FLIGHT)))


async def streams(orchestrator: Orchestrator, task: Submission, count: int) -> None:
    async def read() -> None:
        stream, tokens = orchestrator.submit(task), 0
        while chunks := await stream.take():
            tokens += sum(len(chunk.deltas) for chunk in chunks)
        assert tokens == STREAM

    await asyncio.gather(*(read() for _ in range(count)))


@pytest.mark.benchmark(group="pipeline: task of 20 tokens, one at a time", timer=per(SINGLE))
def test_task(orchestrator: Orchestrator, rounds: Rounds) -> None:
    rounds(lambda: one_by_one(orchestrator, TASK, SINGLE))


@pytest.mark.benchmark(group="pipeline: tasks of 20 tokens, 64 in flight", timer=per(MANY))
def test_tasks_in_flight(orchestrator: Orchestrator, rounds: Rounds) -> None:
    rounds(lambda: in_flight(orchestrator, TASK, MANY))


@pytest.mark.benchmark(group="pipeline: tokens, 64 streams of 64", timer=per(STREAMS * STREAM))
def test_streams(orchestrator: Orchestrator, rounds: Rounds) -> None:
    task = submission(STREAM, stream=True)
    rounds(lambda: streams(orchestrator, task, STREAMS))
