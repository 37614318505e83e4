"""The plugin boundary: the one place from which the pipeline and the agent call code of plugins.

What a plugin raises, or returns against its contract, is that plugin's failure: it is logged with the plugin's name and
the task, counted, and answered by the fallback that the plugin's contract names. No other task notices.

| plugin | fallback |
|---|---|
| selector | the built-in choice (the least loaded candidate) decides |
| scheduler | the task concerned ends with `PluginFailed` |
| hook, listener | is skipped; the others are called |
| filter hook | its result is ignored |
| engine | the task ends with `EngineFailed`; a failed `status` is reported as state ``failed`` |
| service | see `anywire.service` |
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from anywire.secrecy import without_secrets

log = logging.getLogger(__name__)

Result = TypeVar("Result")

QUIET = 10.0
"""Seconds between two log entries about the same call of the same plugin; what failed meanwhile is counted in them."""


def label(kind: str, plugin: object) -> str:
    """How a plugin is named in logs and counts: its ``name``, or what its class is called."""
    return f"{kind} {getattr(plugin, 'name', '') or type(plugin).__name__}"


class Boundary:
    """Calls plugins and keeps count of what they did wrong, by ``name.call``."""

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()
        self.listener: Callable[[str, str, str, str], object] | None = None
        """Called with plugin, call, error and task id of every failure."""
        self._logged: dict[str, tuple[float, int]] = {}

    def call(
        self, plugin: str, call: str, function: Callable[..., Result], *args: Any, otherwise: Result, task_id: str = ""
    ) -> Result:
        """``function(*args)``, or ``otherwise`` when it raises."""
        try:
            return function(*args)
        except Exception as error:
            self.failed(plugin, call, error, task_id)
            return otherwise

    def failed(self, plugin: str, call: str, error: BaseException | str, task_id: str = "") -> None:
        """Count and log that ``call`` of ``plugin`` raised ``error``, or did what ``error`` says."""
        name = f"{plugin}.{call}"
        self.failures[name] += 1
        what = without_secrets(error if isinstance(error, str) else f"raised {type(error).__name__}: {error}")
        if self.listener is not None:
            self.listener(plugin, call, what, task_id)
        now = time.monotonic()
        last, count = self._logged.get(name, (-QUIET, 0))
        if now - last < QUIET:
            self._logged[name] = (last, count + 1)
            return
        self._logged[name] = (now, 0)
        log.error(
            "%s %s%s%s",
            name,
            what,
            f" (task {task_id})" if task_id else "",
            f"; {count} more failures like this since the last time it was logged" if count else "",
            exc_info=error if isinstance(error, BaseException) else None,
        )
