"""Time limits that a pause of this process does not use up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anywire.lease import AwakeTime, Silence


@asynccontextmanager
async def awake_timeout(awake: AwakeTime, seconds: float) -> AsyncIterator[Silence]:
    """Raise `TimeoutError` out of the block when it has taken ``seconds`` of awake time, see `AwakeTime`.

    Time in which this process was paused or its event loop was blocked does not count, and input that waits is read
    before the limit applies. Call ``cancel`` of what is yielded to lift the limit.
    """
    async with asyncio.timeout(None) as limit:
        silence = Silence(awake, seconds, lambda: limit.reschedule(asyncio.get_running_loop().time()))
        try:
            yield silence
        finally:
            silence.cancel()
