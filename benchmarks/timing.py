"""How a benchmark is timed: many tasks are a round, and a round is told as the time of one task."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Rounds(Protocol):
    """The fixture ``rounds``: times ``work`` on the event loop."""

    def __call__(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None: ...


def per(count: int) -> Callable[[], float]:
    """A timer by which a round of ``count`` tasks takes as long as one of them on average: the table then has the time
    of a task, and as OPS the tasks per second."""

    def perf_counter_per_task() -> float:
        return time.perf_counter() / count

    return perf_counter_per_task


@contextmanager
def opened(loop: asyncio.AbstractEventLoop, stack: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """What an asynchronous context gives, between one run of the loop and another."""
    entered = loop.run_until_complete(stack.__aenter__())
    try:
        yield entered
    finally:
        loop.run_until_complete(stack.__aexit__(None, None, None))
