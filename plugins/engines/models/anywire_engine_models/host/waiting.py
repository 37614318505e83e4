"""Waiting with a limit, by the clock of the host."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from anywire.clock import Clock


async def wait_for_any(clock: Clock, futures: Iterable[asyncio.Future[Any]], seconds: float) -> bool:
    """Wait until one of them is done, for at most so long; whether one is. Cancels none of them, also when it is
    cancelled itself."""
    waited = set(futures)
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end() -> None:
        if not over.done():
            over.set_result(None)

    timer = clock.call_later(seconds, end)
    try:
        await asyncio.wait({*waited, over}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
        over.cancel()
    return any(each.done() for each in waited)
