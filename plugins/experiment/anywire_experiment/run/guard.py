"""``python -m anywire_experiment.run.guard``: ends the processes of a cell once the runner is gone, however it ended.

The runner holds the other end of its standard input, and writes a line for each process: ``+PID`` when it was started,
``-PID`` when it has ended. The end of that input with processes left means that the runner was killed: they are asked
to end, and after `GRACE` seconds they are killed, with everything that they have started. A program is found with what
it left behind as a daemon: on Linux it stays below the program (`anywire_experiment.run.launch`), elsewhere in its
session.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable

import psutil

GRACE = 5.0
"""Seconds that processes get to end, and what they have started to end with them."""
_PAUSE = 0.1
"""Seconds between two looks: nobody tells a process of the end of one that is not its child."""
_ROUNDS = 20
"""Looks for what is still started while everything is killed."""


def main() -> None:
    # It ends with its input, and whoever asks the runner to end does not mean the guard.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: dict[int, psutil.Process] = {}
    for line in sys.stdin:
        sign, pid = line[0], int(line[1:])
        if sign == "-":
            watched.pop(pid, None)
            continue
        try:
            watched[pid] = psutil.Process(pid)
        except psutil.NoSuchProcess:
            continue
    end(watched.values())


def end(roots: Iterable[psutil.Process]) -> None:
    """End these processes, each of which leads a session, and all that they have started."""
    roots = list(roots)
    if not roots:
        return
    seen = _families(roots)
    for root in roots:
        for number in (signal.SIGCONT, signal.SIGTERM):
            _send(root, number)
    until = time.monotonic() + GRACE
    while any(map(_is_alive, seen)) and time.monotonic() < until:
        time.sleep(_PAUSE)
        # What is started meanwhile is below them only as long as they live.
        seen |= _families(roots)
    for _ in range(_ROUNDS):
        for each in seen:
            _send(each, signal.SIGKILL)
        if not (more := _families([*roots, *seen]) - seen):
            return
        seen |= more


def _families(roots: Iterable[psutil.Process]) -> set[psutil.Process]:
    """They, everything below them, and everything in the sessions that they lead; of that what is alive."""
    found = set(roots)
    for root in roots:
        try:
            found.update(root.children(recursive=True))
        except psutil.Error:
            continue
    # Where another process has its number by now, the session of that number is not its.
    sessions = {root.pid for root in roots if root.is_running() or not psutil.pid_exists(root.pid)}
    found.update(each for each in psutil.process_iter() if _session(each.pid) in sessions)
    return {each for each in found if _is_alive(each)}


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except (psutil.Error, OSError):
        return


if __name__ == "__main__":
    main()
