"""When something that is no process of ours answers: it is asked until it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp

_FIRST, _LONGEST = 0.01, 0.5
"""Seconds between two tries at first, and in the end: how far a foreign program is, nothing else tells."""
_TRY = 10.0
"""Seconds that one try may take."""
_REFUSED = 400


async def answers(url: str) -> None:
    """Return once ``url`` is answered with a status below 400; whoever calls it sets the time limit."""
    timeout = aiohttp.ClientTimeout(total=_TRY)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        async for _ in tries():
            try:
                async with session.get(url, allow_redirects=False) as response:
                    if response.status < _REFUSED:
                        return
            except (aiohttp.ClientError, TimeoutError):
                continue


async def tries() -> AsyncIterator[None]:
    """Endless, with growing pauses between one and the next."""
    pause = _FIRST
    while True:
        yield
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST)
