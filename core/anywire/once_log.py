"""Warnings about others, limited: each is logged once, and only so many a minute."""

from __future__ import annotations

import logging
import time

LINES, PERIOD = 100, 60.0
"""Warnings of one `OnceLog` that are logged in so many seconds, whatever their keys are."""


class OnceLog:
    """Logs a warning once for each key, and at most `LINES` warnings in `PERIOD` seconds: a stranger may repeat its
    mistake without end, and may give each another name. Everything else is logged at level DEBUG. The last ``limit``
    keys are remembered."""

    def __init__(self, logger: logging.Logger, limit: int = 1000) -> None:
        self._logger, self._limit = logger, limit
        self._logged: dict[object, None] = {}
        self._since = self._lines = 0.0

    def warn(self, key: object, message: str, *args: object) -> None:
        """Log ``message % args`` unless that was done for this ``key``."""
        known = key in self._logged
        if known or self._is_full():
            self._logger.debug(message, *args)
        else:
            self._logger.warning(message, *args)
        if known:
            del self._logged[key]
        self._logged[key] = None
        if len(self._logged) > self._limit:
            del self._logged[next(iter(self._logged))]

    def reset(self) -> None:
        """Log each warning again the next time it comes: what it was about has ended."""
        self._logged.clear()

    def _is_full(self) -> bool:
        """Whether enough was logged lately; otherwise one line more is counted."""
        now = time.monotonic()
        if now - self._since >= PERIOD:
            self._since, self._lines = now, 0
        self._lines += 1
        if self._lines == LINES + 1:
            self._logger.warning(
                "over %d warnings of this kind in %g s: the others are logged at level debug", LINES, PERIOD
            )
        return self._lines > LINES
