"""What the processes of a system use: processor time, wake-ups, memory. Linux alone tells all of it."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from cost_probe import cpu_seconds

LINUX = platform.system() == "Linux"


class Used(NamedTuple):
    """Seconds of processor time, and how often threads went to sleep and were woken: voluntary context switches."""

    cpu: float
    wakeups: int


Reading = dict[int, Used]
"""What each process has used since it began."""


def with_children(processes: Iterable[int]) -> list[int]:
    """These processes and all below them that are alive."""
    found: dict[int, None] = {}
    for pid in processes:
        try:
            process = psutil.Process(pid)
            found |= dict.fromkeys([pid, *(each.pid for each in process.children(recursive=True))])
        except psutil.NoSuchProcess:
            continue
    return list(found)


def read(processes: Iterable[int]) -> Reading:
    """What these processes and all below them have used."""
    reading = {}
    for pid in with_children(processes):
        try:
            reading[pid] = Used(cpu_seconds(pid), _wakeups(pid))
        except (OSError, psutil.NoSuchProcess):
            continue  # it ended meanwhile
    return reading


def used(before: Reading, after: Reading) -> Used:
    """What was used between two readings. A process that ended between them is left out."""
    zero = Used(0.0, 0)
    pairs = [(now, before.get(pid, zero)) for pid, now in after.items()]
    return Used(sum(now.cpu - was.cpu for now, was in pairs), sum(now.wakeups - was.wakeups for now, was in pairs))


def memory(processes: Iterable[int]) -> int:
    """Bytes that these processes and all below them hold, where the system tells it each shared page in parts."""
    total = 0
    for pid in with_children(processes):
        try:
            full = psutil.Process(pid).memory_full_info()
        except (OSError, psutil.Error):
            continue
        total += getattr(full, "pss", full.rss)
    return total


class Machine(NamedTuple):
    """A moment, and the processor seconds that everything on the machine had used then."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Machine:
        times = psutil.cpu_times()
        return cls(time.monotonic(), times.user + getattr(times, "nice", 0.0) + times.system)


def others(before: Machine, after: Machine, known: float) -> float:
    """The cores that anything else used between two moments, where ``known`` processor seconds are accounted for."""
    return max(0.0, (after.cpu - before.cpu - known) / max(after.wall - before.wall, 1e-9))


def own_cpu() -> float:
    """Processor seconds of this process."""
    return time.process_time()


def _wakeups(pid: int) -> int:
    """Of all threads of a process: what the system tells of the process itself is its first thread's alone."""
    if not LINUX:
        return int(psutil.Process(pid).num_ctx_switches().voluntary)
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            status = (thread / "status").read_text()
        except OSError:
            continue  # the thread ended meanwhile
        total += int(status.partition("\nvoluntary_ctxt_switches:")[2].split(None, 1)[0])
    return total
