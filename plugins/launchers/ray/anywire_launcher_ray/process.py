"""One agent as the launcher tells of it: a `anywire.launcher.RunningProcess`."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

import msgspec

from anywire.errors import LaunchFailed
from anywire.log_lines import readable, relay
from anywire_launcher_ray.lives import Lives
from anywire_launcher_ray.messages import (
    MAX_LINES,
    Down,
    Ended,
    Placed,
    Reported,
    Start,
    Waiting,
)

log = logging.getLogger(__name__)

SHOWN_LINES = 20
"""Newest lines of its log that an error shows."""
STOP_TIMEOUT = 20.0
"""Seconds beyond its grace that a stop may take. Then nobody knows what is left."""


class RayProcess:
    """The agent ``start`` describes. The launcher calls `placed`, `reported` and so on with what the driver tells, and
    gives ``stop_it``, which asks the driver to stop it."""

    def __init__(self, start: Start, changed: Callable[[], None], stop_it: Callable[[float], None]) -> None:
        self.name = start.name
        self.node = ""
        """Ray's id of its node; empty while it has none."""
        self.address = ""
        """The address of that node."""
        self.number = start.agent
        self._start, self._changed, self._stop_it = start, changed, stop_it
        self._lives = Lives()
        self._host = ""
        self._pid = 0
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._was_ready = asyncio.Event()
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._stopping = False

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def host(self) -> str:
        """The name of the machine of its node; "a Ray cluster" until it has one."""
        return self._host or "a Ray cluster"

    @property
    def restarts(self) -> int:
        return self._lives.restarts

    @property
    def is_over(self) -> bool:
        return self._over.done()

    @property
    def is_stopping(self) -> bool:
        return self._stopping

    @property
    def order(self) -> Start:
        """What the driver is told to start it, now or again."""
        return msgspec.structs.replace(self._start, was_ready=self._was_ready.is_set())

    async def ready(self) -> None:
        waiting = asyncio.ensure_future(self._was_ready.wait())
        try:
            await asyncio.wait((waiting, self._over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not self._was_ready.is_set():
            raise LaunchFailed(f"{self.name} did not start ({self._over.result()}){self._last_words()}")

    async def ended(self) -> str:
        return await asyncio.shield(self._over)

    def logs(self) -> list[str]:
        return list(self._lines)

    async def stop(self, grace: float = 10.0) -> None:
        if not self._stopping:
            self._stopping = True
            self._stop_it(grace)
        await asyncio.wait((self._over,), timeout=grace + STOP_TIMEOUT)
        if not self._over.done():
            log.error("%s did not stop within %.0f s; Ray ends it with its driver", self.name, grace + STOP_TIMEOUT)
            self.over("stopped, and nobody has seen its end")

    def placed(self, told: Placed) -> None:
        self._lives.see(told.life)
        self._host, self.node, self.address = told.host, told.node, told.address
        log.debug("%s lives on %s, node %s (%s)", self.name, told.host, told.node, told.address)

    def reported(self, told: Reported) -> None:
        before = self.restarts
        self._lives.see(told.life, told.restarts)
        if self.restarts > before:
            log.error("%s ended unexpectedly and is started again, for the %d. time", self.name, self.restarts)
        for line in told.lines:
            self._lines.append(line)
            relay(self.name, line)
        was = self._pid, self._was_ready.is_set()
        self._pid = told.pid
        if told.ready:
            self._was_ready.set()
        if was != (self._pid, self._was_ready.is_set()):
            self._changed()

    def down(self, told: Down) -> None:
        log.error("%s is lost and is started again: %s", self.name, told.reason)
        self.away()

    def waiting(self, told: Waiting) -> None:
        log.warning("%s waits for a place: %s", self.name, told.reason)

    def ended_for_good(self, told: Ended) -> None:
        self.over(told.reason)

    def away(self) -> None:
        """Nothing is known of it now."""
        self._pid, self.node, self.address = 0, "", ""
        self._changed()

    def over(self, reason: str) -> None:
        """It has ended, and is not started again."""
        if not self._over.done():
            self._over.set_result(reason)
            self.away()

    def _last_words(self) -> str:
        """Why it ended, as the end of a sentence: the error it told, else its last lines."""
        lines = [readable(line) for line in list(self._lines)[-SHOWN_LINES:]]
        if lines and lines[-1].startswith("error: "):
            return f": {lines[-1]}"
        return "; its last lines:\n" + "\n".join(f"    {line}" for line in lines) if lines else ""
