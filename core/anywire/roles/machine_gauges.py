"""Gauges of an agent's process and of its machine, as its reports have them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

EVERY = 1.0
"""Seconds between two readings of the machine: in a shorter time its use of the processor says little."""


class MachineGauges:
    """Reads gauges of `anywire.messages.GAUGES` that need no graphics card: of the process each time, of the machine
    once a second, the first time a second after the first call. ``now`` is in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._due: float | None = None
        self._machine: Mapping[str, float] = {}

    def read(self) -> dict[str, float]:
        return {**_of_process(), **self._of_machine()}

    def _of_machine(self) -> Mapping[str, float]:
        now = self._now()
        if self._due is not None and now < self._due:
            return self._machine
        import psutil  # here, so that nobody else loads it

        used = psutil.cpu_percent()  # since the call before; the first one says nothing
        if self._due is not None:
            memory = float(psutil.virtual_memory().available)
            self._machine = {"cpu_percent": used, "ram_free_bytes": memory} | _disk()
        self._due = now + EVERY
        return self._machine


def _of_process() -> dict[str, float]:
    """What this process has used, and the load of its machine; nothing on a system that does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return {}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "max_rss_bytes": usage.ru_maxrss * unit,
        "load1": round(os.getloadavg()[0], 2),
    }


def _disk() -> dict[str, float]:
    """What this user may still write in the working folder; nothing where that cannot be told (it was removed)."""
    try:
        found = os.statvfs(".")
    except (OSError, AttributeError):  # Windows has no statvfs
        return {}
    return {"disk_free_bytes": float(found.f_bavail * found.f_frsize)}
