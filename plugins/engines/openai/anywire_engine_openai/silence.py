"""Noticing a server that is connected and says nothing: a frozen process, a route that is gone."""

from __future__ import annotations

import asyncio

import aiohttp

from anywire_engine_openai.connection_errors import silent


class SilenceWatch:
    """Watches one response's body. `asking` and `heard` stand around each read; a read that waits for longer than
    ``first`` seconds for the first byte, or ``later`` for another one, raises `ConnectionFailed`. 0: no limit. Time in
    which nobody reads does not count. Close it."""

    def __init__(self, content: aiohttp.StreamReader, first: float, later: float) -> None:
        self._content, self._limit, self._later = content, first, later
        self._loop = asyncio.get_running_loop()
        self._begun = False
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._arm(first)

    def asking(self) -> None:
        self._since = self._loop.time()

    def heard(self) -> None:
        self._since = 0.0
        if not self._begun:
            self._begun, self._limit = True, self._later
            self.close()
            self._arm(self._later)

    def limit(self, seconds: float) -> None:
        """From now on no silence may be longer than so many seconds."""
        self._later = self._limit = seconds
        self.close()
        self._arm(seconds)

    def cut(self) -> None:
        """End the body here: whoever reads it gets an error. aiohttp would let them wait for ever when its session is
        closed."""
        self._content.set_exception(aiohttp.ClientConnectionError("it was closed here"))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, seconds: float) -> None:
        if seconds:
            self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        waited = self._loop.time() - self._since if self._since else 0.0
        if waited >= self._limit:
            self._timer = None
            self._content.set_exception(silent(self._limit, begun=self._begun))
        else:
            self._arm(self._limit - waited)
