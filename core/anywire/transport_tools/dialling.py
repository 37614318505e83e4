"""Connecting again and again: pauses that grow, and a loop that no exception ends."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable

from anywire.clock import Clock, SystemClock
from anywire.errors import AnywireError
from anywire.once_log import OnceLog

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds: what the first pause is at most, and what the longest is."""


class StopDialling(Exception):
    """Raised by an attempt after which there is nobody to dial any more."""


class Backoff:
    """Pauses between attempts with full jitter: each is random, from 0 to a ceiling that doubles up to ``longest``
    seconds, so that many ends that lost one peer do not return to it at once."""

    def __init__(
        self,
        first: float = FIRST_PAUSE,
        longest: float = LONGEST_PAUSE,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.first, self.longest = first, longest
        self._uniform = uniform
        self._ceiling = first

    def next(self) -> float:
        """Seconds until the next attempt."""
        pause = self._uniform(0.0, self._ceiling)
        self._ceiling = min(2 * self._ceiling, self.longest)
        return pause

    def reset(self) -> None:
        """Begin anew: an attempt was successful."""
        self._ceiling = self.first


async def keep_dialling(
    attempt: Callable[[], Awaitable[bool]],
    address: str,
    *,
    clock: Clock | None = None,
    backoff: Backoff | None = None,
) -> None:
    """Call ``attempt`` until it raises `StopDialling` or this task is cancelled.

    ``attempt`` connects to ``address`` and returns when the connection has ended: True if it was a link, which
    resets the back-off, and False otherwise. What it raises is logged, and it is called again: an `AnywireError` or an
    `OSError` (nobody is there) as a warning, each text once, and anything else with its traceback. ``clock`` and
    ``backoff`` are the system's clock and `Backoff` with its defaults unless given.
    """
    clock, backoff, once = clock or SystemClock(), backoff or Backoff(), OnceLog(log)
    while True:
        try:
            if await attempt():
                backoff.reset()
        except StopDialling:
            return
        except (AnywireError, OSError) as error:
            once.warn(str(error), "no connection to %s: %s", address, error)
        except Exception:
            log.exception("connecting to %s failed; it will be tried again", address)
        await clock.sleep(backoff.next())
