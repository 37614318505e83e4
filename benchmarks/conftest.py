"""What the benchmarks share: one event loop as the product uses it, and a way to time many tasks as one round."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

TASKS = 500
"""Tasks in one round; figures are per round in the table and per task in ``extra_info``."""

Rounds = Callable[[Callable[[int], Coroutine[Any, Any, Any]]], None]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        loop = asyncio.new_event_loop()
    else:
        loop = uvloop.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.fixture
def rounds(benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop) -> Rounds:
    """Times ``main(TASKS)`` on the loop, several rounds after a warm-up."""

    def run(main: Callable[[int], Coroutine[Any, Any, Any]]) -> None:
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            lambda: loop.run_until_complete(main(TASKS)), rounds=15, warmup_rounds=2
        )
        if benchmark.stats is not None:
            per_task = benchmark.stats.stats.median / TASKS
            benchmark.extra_info |= {"us_per_task": round(per_task * 1e6, 1), "tasks_per_s": round(1 / per_task)}

    return run


@pytest.fixture
def domain() -> int:
    return random.SystemRandom().randint(10, 200)
