"""The open ends of one role on several transports: what opens is used, what does not is tried again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from anywire.clock import Clock
from anywire.errors import ConfigError, TransportUnavailable
from anywire.transport import AgentPort, Hub, Transport

log = logging.getLogger(__name__)

FIRST_RETRY = 0.5
LONGEST_RETRY = 15.0

End = TypeVar("End", bound=Hub | AgentPort)


class Ends(Generic[End]):
    """``ends[number]`` is the open end of transport ``number``, None while it is not open.

    ``open_one`` opens a transport; ``opened`` is told of each that opens later than `open`. A transport named alone is
    never waited for: `open` raises what it raised.
    """

    def __init__(
        self,
        transports: Sequence[Transport],
        open_one: Callable[[int, Transport], Awaitable[End]],
        opened: Callable[[End], None],
        clock: Clock,
    ) -> None:
        self.ends: list[End | None] = [None] * len(transports)
        self.failures = 0
        """How often a transport did not open."""
        self._transports, self._open_one, self._opened, self._clock = transports, open_one, opened, clock
        self._retries: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Open all. Raises `TransportUnavailable` when none opens, `ConfigError` when there is none."""
        failed: dict[int, TransportUnavailable] = {}
        for number, transport in enumerate(self._transports):
            try:
                self.ends[number] = await self._open_one(number, transport)
            except TransportUnavailable as error:
                failed[number] = error
            except ConfigError:
                await self.close()
                raise
            except Exception as error:
                log.exception("transport %s failed to open", transport.name)
                failed[number] = TransportUnavailable(f"the transport {transport.name} failed to open: {error}")
        if not any(self.ends):
            raise next(iter(failed.values())) if failed else ConfigError("no transport is configured")
        for number, failure in failed.items():
            self._note(number, failure)
            self._retries.append(asyncio.get_running_loop().create_task(self._retry(number)))

    async def close(self) -> None:
        """Close what is open, each whatever the others do; idempotent."""
        for retry in self._retries:
            retry.cancel()
        await asyncio.gather(*self._retries, return_exceptions=True)
        ends, self.ends = self.ends, [None] * len(self._transports)
        for end, transport in zip(ends, self._transports, strict=True):
            if end is None:
                continue
            try:
                await end.close()
            except Exception:
                log.exception("transport %s failed to close", transport.name)

    async def _retry(self, number: int) -> None:
        # Nothing tells when a network interface or a library's service is back: back-off is the only way.
        pause = FIRST_RETRY
        while True:
            await self._clock.sleep(pause)
            pause = min(2 * pause, LONGEST_RETRY)
            try:
                end = await self._open_one(number, self._transports[number])
            except Exception as error:
                if not isinstance(error, TransportUnavailable):
                    log.exception("transport %s failed to open", self._transports[number].name)
                self._note(number, error)
                continue
            log.warning("transport %s is open now", self._transports[number].name)
            self.ends[number] = end
            self._opened(end)
            return

    def _note(self, number: int, error: Exception) -> None:
        self.failures += 1
        log.warning("transport %s does not open, others are used meanwhile: %s", self._transports[number].name, error)
