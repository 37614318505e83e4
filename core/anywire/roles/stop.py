"""The event loop of a role or command, and how it is asked to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from anywire.listening.connection_limit import raise_descriptors
from anywire.this_system import IS_POSIX

T = TypeVar("T")
log = logging.getLogger(__name__)

LEFT_ALONE = 5.0
"""Seconds after which tasks that do not end at their cancel no longer keep the process."""


class StopRequested(Exception):
    """Raised by `Stop.unless` in place of a result; `run` ends without an error then."""


class Stop:
    """The wish to stop: by SIGINT or SIGTERM, or by `request`. A second signal ends the process at once. Make one
    inside of the running loop; it takes the handlers of both signals."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._signals = 0
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            on_signal(loop, number, self._signalled)

    def request(self, reason: str) -> None:
        """Ask to stop; only the first reason is logged."""
        if not self._asked.is_set():
            log.info("stopping: %s", reason)
            self._asked.set()

    async def wait(self) -> None:
        """Wait until somebody asks to stop."""
        await self._asked.wait()

    async def unless(self, awaitable: Awaitable[T]) -> T:
        """The result of ``awaitable``; when asked to stop first, it is cancelled and `StopRequested` raised."""
        work = asyncio.ensure_future(awaitable)
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait((work, asked), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise StopRequested
        finally:
            asked.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait((work,))

    def _signalled(self, number: int) -> None:
        self._signals += 1
        if self._signals > 1:
            print(f"stopped at once by a second {signal.Signals(number).name}", file=sys.stderr, flush=True)
            os._exit(1)
        self.request(f"{signal.Signals(number).name} (a second one ends at once)")


def on_signal(loop: asyncio.AbstractEventLoop, number: signal.Signals, handle: Callable[[int], None]) -> None:
    """Have ``handle(number)`` called on ``loop`` at each such signal, also where the loop itself cannot (Windows)."""
    try:
        loop.add_signal_handler(number, handle, number)
    except NotImplementedError:
        signal.signal(number, lambda found, _: _wake(loop, handle, found))


def _wake(loop: asyncio.AbstractEventLoop, handle: Callable[[int], None], number: int) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(handle, number)


def run(main: Callable[[Stop], Coroutine[Any, Any, T]]) -> T | None:
    """Run ``main(stop)`` on a new event loop, on uvloop where it is installed, and return its result; None when it was
    asked to stop before it had one. What plugins have left running is cancelled, and left alone after `LEFT_ALONE`
    seconds."""
    raise_descriptors()
    left: set[asyncio.Task[Any]] = set()

    async def guarded() -> T | None:
        try:
            return await main(Stop())
        except StopRequested:
            return None
        finally:
            left.update(await _cancel_others())

    runner = asyncio.Runner(loop_factory=_loop_factory())
    try:
        return runner.run(guarded())
    finally:
        if left:
            runner.get_loop().close()  # the runner's own close would wait for them without end
        else:
            runner.close()


async def _cancel_others() -> set[asyncio.Task[Any]]:
    """Cancel all other tasks of the loop; those that have not ended in time."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for each in others:
        each.cancel()
    if not others:
        return set()
    _, left = await asyncio.wait(others, timeout=LEFT_ALONE)
    for each in left:
        log.error("a task does not end at its cancel and is left alone: %r", each.get_coro())
    return left


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        # That of Windows cannot watch the sockets of DDS, ZeroMQ and TLS.
        return None if IS_POSIX else asyncio.SelectorEventLoop
    return uvloop.new_event_loop
