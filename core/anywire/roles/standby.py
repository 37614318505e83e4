"""Several orchestrators of one fleet: one is active, the others stand by and one of them takes its place.

A process has one `Life` after the other. In each it opens its hub at once, so that the agents know it before it is
needed, and lets clients in when it is elected. What ends a life, be it that it was deposed or that it could not let
clients in, ends all of it: its tasks, its hub, its candidacy. The next life is a new orchestrator that stands by.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NoReturn, Protocol

from anywire.clock import Clock, SystemClock
from anywire.errors import AnywireError
from anywire.messages import HubInfo
from anywire.transport import Candidacy, Elects

log = logging.getLogger(__name__)

LONGEST_PAUSE = 15.0
"""Seconds after which one that could not let clients in stands by again, at the latest."""


class Life(Protocol):
    """One orchestrator, from its hub's opening to its end."""

    @property
    def info(self) -> HubInfo: ...

    async def start(self) -> None:
        """Open the hub. Raises what ends the process."""
        ...

    async def admit(self) -> None:
        """Let clients in. Raises `AnywireError` when it cannot: another one may be able to."""
        ...

    async def close(self, grace: float, candidacy: Candidacy | None) -> None:
        """Let no client in any more, then close ``candidacy``: the next one may need the address. Meanwhile running
        tasks get ``grace`` seconds, and end with an error after that."""
        ...


class _Turn:
    """What a candidate is told, as something to wait for. It may be told while nobody waits any more."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.elected_: asyncio.Future[None] = loop.create_future()
        self.deposed_: asyncio.Future[str] = loop.create_future()

    def active_seen(self, hub: HubInfo) -> None:
        log.info("standing by: orchestrator %s on host %s (pid %d) is active", hub.hub_id, hub.host, hub.pid)

    def elected(self) -> None:
        if not self.elected_.done():
            self.elected_.set_result(None)

    def deposed(self, reason: str) -> None:
        if not self.deposed_.done():
            self.deposed_.set_result(reason)


class Standby:
    """Stands in the election of ``elects`` with one life of ``make`` after the other.

    ``grace`` is what running tasks get at a shutdown, ``lease`` the candidates' lease; both in seconds.
    """

    def __init__(
        self,
        elects: Elects,
        make: Callable[[], Life],
        *,
        strength: int = 0,
        grace: float = 0.0,
        lease: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        self._elects, self._make, self._strength = elects, make, strength
        self._grace, self._lease, self._clock = grace, lease, clock or SystemClock()
        self._failures = 0

    async def run(self) -> NoReturn:
        """Until cancelled: then the life there is ends, and if it was active the next candidate takes over. Raises what
        `Life.start` and `Elects.stand` raise."""
        while True:
            if not await self._live():
                # Nothing tells when an address is free again: back-off is the only way.
                await self._clock.sleep(min(self._lease * 2**self._failures, LONGEST_PAUSE))
                self._failures += 1

    async def _live(self) -> bool:
        """One life; False when it could not let clients in."""
        life, turn = self._make(), _Turn()
        candidacy: Candidacy | None = None
        grace = 0.0
        try:
            await life.start()
            candidacy = await self._elects.stand(life.info, self._strength, turn)
            await turn.elected_
            log.info("orchestrator %s is active from now on", life.info.hub_id)
            try:
                await life.admit()
            except AnywireError as error:
                log.error("orchestrator %s cannot take over and leaves it to another one: %s", life.info.hub_id, error)
                return False
            self._failures = 0
            grace = self._grace
            reason = await turn.deposed_
            grace = 0.0
            log.error("orchestrator %s is deposed, its tasks are ended: %s", life.info.hub_id, reason)
            return True
        finally:
            await life.close(grace, candidacy)
