"""The event loop of a command, and how it is asked to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


class StopRequested(Exception):
    """Raised by `Stop.unless` in place of a result; ends a command without an error."""


class Stop:
    """SIGINT or SIGTERM asks to stop, a second one ends the process at once. Made inside of the running loop."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._signals = 0
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled, number)

    def request(self, reason: str) -> None:
        if not self._asked.is_set():
            log.info("stopping: %s", reason)
            self._asked.set()

    async def wait(self) -> None:
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


def run(main: Callable[[Stop], Coroutine[Any, Any, T]]) -> T | None:
    """Run a command's coroutine, on uvloop where it is installed; None when it was asked to stop early."""

    async def guarded() -> T | None:
        try:
            return await main(Stop())
        except StopRequested:
            return None

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(guarded())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
