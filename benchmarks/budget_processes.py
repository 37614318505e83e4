"""Processes of a system by their part in it, and what each of their threads has used, read from ``/proc`` (Linux)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

Parts = Mapping[str, list[int]]
"""Pids by part: ``orchestrator``, ``agents``, ``server``, ``client``."""
LOOP = "loop"
"""The first thread of a process, on which its event loop runs."""


class Use(msgspec.Struct):
    """Seconds on a processor; how often it slept, and how often another thread took its place."""

    seconds: float = 0.0
    slept: int = 0
    displaced: int = 0

    def plus(self, other: Use, sign: int = 1) -> Use:
        return Use(
            self.seconds + sign * other.seconds,
            self.slept + sign * other.slept,
            self.displaced + sign * other.displaced,
        )


Uses = dict[tuple[str, str], Use]
"""By part, and by the thread's name."""


def thread_name(pid: int, tid: int, name: str) -> str:
    """The thread's own name; those without one have their program's."""
    return LOOP if tid == pid else name


def read_uses(parts: Parts) -> Uses:
    """What all threads of these processes have used so far; threads of one name count together."""
    uses: Uses = {}
    for part, pids in parts.items():
        for pid in pids:
            for folder in Path(f"/proc/{pid}/task").iterdir():
                try:
                    key = part, thread_name(pid, int(folder.name), (folder / "comm").read_text().strip())
                    use = _use(folder)
                except (FileNotFoundError, ProcessLookupError):  # it has ended
                    continue
                uses[key] = uses.get(key, Use()).plus(use)
    return uses


def spent(before: Uses, after: Uses) -> Uses:
    """What was used in between, by threads that live; those that used nothing are left out."""
    found = {key: use.plus(before.get(key, Use()), -1) for key, use in after.items()}
    return {key: use for key, use in found.items() if use.seconds > 0}


def together(one: Uses, other: Uses) -> Uses:
    """What was used at two times; a thread may have used something at one of them alone."""
    return {key: one.get(key, Use()).plus(other.get(key, Use())) for key in {**one, **other}}


def _use(folder: Path) -> Use:
    switches = {}
    for line in (folder / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.endswith("ctxt_switches"):
            switches[name] = int(value)
    nanoseconds = int((folder / "schedstat").read_text().split()[0])
    return Use(nanoseconds / 1e9, switches["voluntary_ctxt_switches"], switches["nonvoluntary_ctxt_switches"])
