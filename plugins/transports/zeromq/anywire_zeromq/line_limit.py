"""Log lines about peers, limited: a peer may repeat its mistake without end, and many may make it."""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable

PERIOD = 60.0
"""Seconds until the same line is logged again about the same peer."""

KEYS = 100
"""Lines of one `LineLimit` in one period, all peers together."""


class LineLimit:
    """Warnings of one end: one per peer and `PERIOD`, and no more than `KEYS` altogether. The others are logged at
    level DEBUG."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._logged: dict[Hashable, float] = {}

    def warning(self, key: Hashable, text: str, *args: object) -> None:
        """Log ``text % args`` unless a line with this ``key`` was logged within the period.

        ``key`` names the peer and its mistake, for example ``(address, reason)``.
        """
        now = time.monotonic()
        if key not in self._logged and len(self._logged) >= KEYS:
            self._logged = {each: at for each, at in self._logged.items() if now - at < PERIOD}
        at = self._logged.get(key)
        if (at is None and len(self._logged) >= KEYS) or (at is not None and now - at < PERIOD):
            self._log.debug(text, *args)
            return
        self._logged[key] = now
        self._log.warning(text, *args)

    def reset(self) -> None:
        """Log each line again the next time it comes, because what it was about has ended."""
        self._logged.clear()
