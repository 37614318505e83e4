"""Waiting until a server answers that its model is loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.5
"""Seconds between two questions, doubled from the first to the longest."""
ANSWER_TIMEOUT = 5.0
"""Seconds that a server has for one answer."""
SAID_CHARS = 200


class Readiness:
    """One server that starts. ``seen`` says what its last answer was, for an error."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.seen = "it was not asked yet"

    async def wait(self, ended: asyncio.Future[Any], look: Callable[[], Awaitable[None]]) -> bool:
        """Ask until the answer has status 200: then True. False as soon as ``ended`` is done. ``look`` is called
        between two questions."""
        pause = FIRST_PAUSE
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT)
        async with aiohttp.ClientSession(
            timeout=timeout, headers=self._headers, connector=aiohttp.TCPConnector(force_close=True)
        ) as session:
            while not ended.done():
                asking = asyncio.ensure_future(self._ask(session))
                try:
                    await asyncio.wait({asking, ended}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not asking.done():
                        self.seen = f"{self._url} did not answer"
                        asking.cancel()
                        await asyncio.wait({asking})
                if ended.done():
                    break
                if asking.result():
                    return True
                await look()
                await asyncio.wait({ended}, timeout=pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        return False

    async def _ask(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(self._url, allow_redirects=False) as response:
                if response.status == 200:
                    return True
                said = (await response.content.read(SAID_CHARS)).decode(errors="replace")
                self.seen = f"{self._url} answered with status {response.status}: {said}".rstrip(": ")
        except aiohttp.ClientConnectorError:
            self.seen = f"nobody listens at {self._url}"
        except TimeoutError:
            self.seen = f"{self._url} did not answer within {ANSWER_TIMEOUT:g} s"
        except aiohttp.ClientResponseError:
            self.seen = f"{self._url} answered with what is no HTTP"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self.seen = f"{self._url} did not answer: {str(error) or type(error).__name__}"
        return False
