"""What an experiment adds of its own: the load generator's work for a request, and a comparison of two arms."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from timing import Rounds, per

pytest.importorskip("anywire_experiment")

from anywire_experiment.load.generator import Generator
from anywire_experiment.load.rows import Answer, Rows
from anywire_experiment.load.target import Question, Target
from anywire_experiment.plan.workload import Closed, Workload
from anywire_experiment.statistics import compare

REQUESTS = 2000
BLOCKS, SAMPLES = 16, 2000


class AtOnce(Target):
    """A system that takes no time."""

    async def first_model(self) -> str:
        return "synthetic"

    async def connect(self, clients: int) -> None:
        """There is nothing to connect to."""

    async def ask(self, question: Question) -> Answer:
        now = time.monotonic_ns()
        await asyncio.sleep(0)  # let the other clients run, as an answer over a wire does
        return Answer("ok", "", 200, "memory", "agent", 1, "task", now, now, time.monotonic_ns(), 1, "x", [now])

    async def close(self) -> None:
        """Holds nothing."""


@pytest.mark.benchmark(group="experiment: a request of the load generator", timer=per(REQUESTS))
def test_load_generator(rounds: Rounds) -> None:
    """64 clients, each with its next request as soon as it is answered."""
    workload = Workload(requests=REQUESTS, model="synthetic", arrivals=Closed(clients=64))

    async def work() -> None:
        generator = Generator("load", workload, AtOnce(), Rows(), seed=1, transports=frozenset({"memory"}))
        done = await generator.measure(lambda at_ns: None)
        assert (done.requests, done.failed) == (REQUESTS, 0)

    rounds(work)


@pytest.mark.benchmark(group="experiment: a comparison of two arms, 16 blocks")
def test_comparison(benchmark: BenchmarkFixture) -> None:
    drawn = np.random.default_rng(1).lognormal(0.0, 0.3, (2, BLOCKS, SAMPLES))
    found = benchmark(compare, list(drawn[0]), list(drawn[1]), margin=0.1)
    assert found.ratio.low < 1 < found.ratio.high
