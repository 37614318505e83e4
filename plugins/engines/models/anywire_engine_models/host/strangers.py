"""What launchers and servers give, checked: they are plugins, and what they claim harms nobody else."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard

from anywire_engine_models.host.model_log import LINE_CHARS, ModelLog
from anywire_engine_models.host.server import Device, Exit, Server, StartFailed

LAST_LINES = 20
"""Of a server's log, in an `Exit`."""
REASON_CHARS = 1000
MAX_SPAWNED = 100
"""Processes of one start that are told of."""

log = logging.getLogger(__name__)


class LaunchWatcher:
    """The `Watcher` of one start. ``spawned`` and ``progressed`` are called when there is news, of at most
    `MAX_SPAWNED` processes (a launcher may try several ports), and of progress, in steps of a hundredth, never back."""

    def __init__(
        self, model_log: ModelLog, spawned: Callable[[int], None], progressed: Callable[[float], None]
    ) -> None:
        self._log, self._spawned, self._progressed = model_log, spawned, progressed
        self._pid, self._spawns, self._part = 0, 0, 0.0
        self.lines: deque[str] = deque(maxlen=LAST_LINES)
        self.is_over = False
        """Nothing is listened to any more."""

    def spawned(self, pid: int) -> None:
        is_new = isinstance(pid, int) and pid > 0 and pid != self._pid
        if is_new and not self.is_over and self._spawns < MAX_SPAWNED:
            self._pid, self._spawns = pid, self._spawns + 1
            self._spawned(pid)

    def progress(self, part: float) -> None:
        if self.is_over or not isinstance(part, int | float) or not math.isfinite(part):
            return
        part = round(min(max(part, 0.0), 1.0), 2)
        if part > self._part:
            self._part = part
            self._progressed(part)

    def line(self, text: str) -> None:
        if self.is_over or not isinstance(text, str):
            return
        text = text[:LINE_CHARS].replace("\r", " ").replace("\n", " ").rstrip()
        self.lines.append(text)
        self._log.add(text)


def is_server(given: Any) -> TypeGuard[Server]:
    """Whether a launcher has given what it must give."""
    try:
        return (
            isinstance(given.exited, asyncio.Future)
            and isinstance(given.pid, int)
            and isinstance(given.address, str)
            and isinstance(given.key, str)
            and callable(given.stop)
        )
    except Exception:
        return False


def is_device(given: Any) -> TypeGuard[Device]:
    return (
        isinstance(given, Device)
        and isinstance(given.name, str)
        and 0 < len(given.name) <= 100
        and isinstance(given.reason, str)
    )


def checked_exit(given: Any, lines: Iterable[str]) -> Exit:
    """The exit that a launcher tells, with ``lines`` where it tells none, and no longer than it may be."""
    if not isinstance(given, Exit) or not isinstance(given.reason, str) or not given.reason:
        return Exit("it has ended, and its launcher does not say how", lines=tuple(lines))
    told = given.lines if isinstance(given.lines, tuple) else ()
    last = [each[:LINE_CHARS] for each in told[-LAST_LINES:] if isinstance(each, str)] or lines
    return Exit(
        given.reason[:REASON_CHARS],
        given.code if isinstance(given.code, int) else None,
        given.signal if isinstance(given.signal, str) else "",
        tuple(last),
    )


def exit_of(server: Server, lines: Iterable[str]) -> Exit:
    """How a server has ended whose ``exited`` is done."""
    exited = server.exited
    failed = exited.cancelled() or exited.exception() is not None
    return checked_exit(None if failed else exited.result(), lines)


def failure_of(error: BaseException, lines: Iterable[str]) -> StartFailed:
    """What a launch has raised, as the failure of a start."""
    if isinstance(error, StartFailed):
        return StartFailed(checked_exit(error.exit, lines), elsewhere=error.elsewhere is True)
    what = f"its launcher failed: {type(error).__name__}: {error}"
    log.error("%s", what, exc_info=error)
    return StartFailed(Exit(what[:REASON_CHARS], lines=tuple(lines)))
