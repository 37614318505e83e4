"""Warnings that are logged once for each key."""

from __future__ import annotations

import logging


class OnceLog:
    """Logs a warning once for each key, and repetitions as debug; remembers the last ``limit`` keys."""

    def __init__(self, logger: logging.Logger, limit: int = 1000) -> None:
        self._logger, self._limit = logger, limit
        self._logged: dict[object, None] = {}

    def warn(self, key: object, message: str, *args: object) -> None:
        level = logging.DEBUG if key in self._logged else logging.WARNING
        self._logged.pop(key, None)
        self._logged[key] = None
        if len(self._logged) > self._limit:
            del self._logged[next(iter(self._logged))]
        self._logger.log(level, message, *args)
