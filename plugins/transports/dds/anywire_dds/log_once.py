"""Warnings about faulty peers, each logged once."""

from __future__ import annotations

import logging
from collections.abc import Hashable

MOST = 256
"""Warnings remembered; after so many different ones nothing more is logged, since senders can be invented."""


class LogOnce:
    """Logs one warning for each key, because a faulty peer may repeat its message without end."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._logged: set[Hashable] = set()

    def warning(self, key: Hashable, message: str, *values: object, exc_info: bool = False) -> None:
        """Log ``message`` with ``values``, unless a warning with this ``key`` was logged already."""
        if key in self._logged or len(self._logged) >= MOST:
            return
        self._logged.add(key)
        self._log.warning(message + " (logged once)", *values, exc_info=exc_info)
