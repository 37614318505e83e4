"""What the server of a model uses of its machine."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec
import psutil


class ServerUsage(msgspec.Struct, frozen=True, omit_defaults=True):
    """All numbers are 0 to 100 percent: ``cpu_usage`` of all processors of the machine, since the last time that it was
    asked (at first: since the server's start); ``mem_usage`` of its memory, with all processes of the server;
    ``gpu_usage`` and ``vram_usage`` of the graphics card with most memory, by all programs, None where there is no
    card. ``rss_bytes`` is the memory in bytes."""

    cpu_usage: float
    mem_usage: float
    rss_bytes: int
    gpu_usage: float | None = None
    vram_usage: float | None = None


class UsageReader:
    """Reads the usage of server processes; it remembers the newest reading of each."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[float, float, float]] = {}
        """By process: when it was created, when it was read, and the processor seconds it had used then."""

    def read(self, pid: int, gauges: Mapping[str, float]) -> ServerUsage | None:
        """The usage of the process ``pid`` and its children now; None when it is gone. ``gauges`` are those of
        `anywire.messages.GAUGES` of the machine."""
        used = rss = 0.0
        try:
            process = psutil.Process(pid)
            created = process.create_time()
            for each in (process, *process.children(recursive=True)):
                try:
                    with each.oneshot():
                        times = each.cpu_times()
                        used += times.user + times.system
                        rss += each.memory_info().rss
                except psutil.Error:
                    if each is process:
                        raise
        except psutil.Error:
            self._before.pop(pid, None)
            return None
        now = time.time()
        known, since, used_then = self._before.get(pid, (created, created, 0.0))
        if known != created:  # another process with the number of one that ended
            since, used_then = created, 0.0
        self._before = {each: before for each, before in self._before.items() if psutil.pid_exists(each)}
        self._before[pid] = created, now, used
        processors = psutil.cpu_count() or 1
        busy = max(0.0, used - used_then) / max(now - since, 0.001) / processors
        return ServerUsage(
            round(min(100.0, 100 * busy), 2),
            round(100 * rss / psutil.virtual_memory().total, 2),
            int(rss),
            gauges.get("gpu_percent"),
            gauges.get("vram_used_percent"),
        )
