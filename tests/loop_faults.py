"""Fails the test in which an event loop met an exception that nobody handled, or in which a task was left running.

A pytest plugin, loaded by ``conftest.py`` at the root for every test of the repository. It fails a test

* when something was logged by ``asyncio`` as an error: an exception in a callback, a task whose exception nobody asked
  for, a task that was destroyed while it was pending,
* when tasks are still pending on the test's loop after its fixtures have been torn down.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

TURNS = 10
"""Turns of the loop in which a task that was cancelled, and not awaited, may end."""


GRPC_POLLER = "PollerCompletionQueue._handle_events"
"""grpcio has one poller for all event loops of a process. What completes after the loop of an earlier test was closed,
it reports to the loop of the test that runs now: no fault of either. A process that has one loop never meets it."""

GRPC_TASKS = ("_AioCall._handle_status_once_received", "_schedule_rpc_coro()", "_handle_exceptions()")
"""Tasks of grpcio, of a call that was closed and of one at a server that was stopped: each ends once grpcio's own
thread has seen that end. That may take a while on a busy machine, and nobody can wait for it otherwise."""


class LoopFaults(logging.Handler):
    """What went wrong in event loops during one test. A test that wants a fault takes it out of ``found``."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if not (GRPC_POLLER in text and "Event loop is closed" in text):
            self.found.append(text)

    def loop_met(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """An exception handler of event loops: logs as they do by themselves, which `emit` then notes."""
        loop.default_exception_handler(context)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and pytest_asyncio.is_async_test(item):
            item.fixturenames.insert(0, "_no_task_left")


@pytest.fixture(autouse=True)
def loop_faults(request: pytest.FixtureRequest) -> Iterator[LoopFaults]:
    """The faults of event loops in this test; any that is left in ``found`` at its end fails the test."""
    faults, logger = LoopFaults(), logging.getLogger("asyncio")
    logger.addHandler(faults)
    gc.freeze()  # only what the test makes is looked through at its end: all objects would double the suite's time
    yield faults
    # Finalizers of tasks, coroutines and sockets run only after the test holds these no longer.
    if request.node.funcargs is not None:  # after a run that was interrupted, pytest has taken them already
        request.node.funcargs.clear()
    gc.collect()
    gc.unfreeze()
    logger.removeHandler(faults)
    if faults.found:
        pytest.fail("\n\n".join(["an event loop met what nobody handled:", *faults.found]), pytrace=False)


@pytest.fixture
async def _no_task_left(loop_faults: LoopFaults) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(loop_faults.loop_met)
    yield
    if closing := {task for task in asyncio.all_tasks() if any(name in repr(task) for name in GRPC_TASKS)}:
        await asyncio.wait(closing)  # or the time of the test is over
    for _ in range(TURNS):
        if not (pending := asyncio.all_tasks() - {asyncio.current_task()}):
            return
        await asyncio.sleep(0)
    names = "\n".join(sorted(repr(task) for task in pending))
    pytest.fail(f"tasks are still pending at the end of the test:\n{names}", pytrace=False)
