"""The tokens that callers have used today, kept in a file, so that a daily budget holds over a restart.

The file is written within five seconds after a task has ended, and at the end: ``kill -9`` forgets at most the tokens
of those seconds, and of the tasks that were under way. Each orchestrator that has the same state folder adds what it
has counted, and takes over what the others have: one that takes over from another goes on where that one was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from anywire.clock import Clock, Timer
from anywire.errors import ConfigError
from anywire.files.private_files import change_private, read_private
from anywire.files.state_folders import made_state_folder
from anywire.pipeline.tasks.limits import CallerLimits

FOLDER = "anywire"
"""The state folder of what belongs to no plugin."""
FILE = "tokens-used.json"
PAUSE = 4.5
"""Seconds from the end of a task to the writing of the file. Its thread and the event loop take the interpreter from
each other at every call of the system: written each second, it took up to 5 % of an orchestrator's processor time."""

log = logging.getLogger(__name__)


class _Kept(msgspec.Struct):
    """``day`` counts from 1970-01-01, ``used`` are tokens by the id of the caller."""

    day: int
    used: dict[str, Annotated[int, msgspec.Meta(ge=0, lt=2**62)]]


class KeptBudgets:
    """Keeps what ``limits`` counts in a state folder below ``root``. A folder or a file that cannot be used is logged,
    and the budgets then hold until the end of this process."""

    def __init__(self, limits: CallerLimits, root: Path, clock: Clock) -> None:
        self._limits, self._root, self._clock = limits, root, clock
        self._timer: Timer | None = None
        self._saving: asyncio.Task[None] | None = None
        self._failed = False

    async def start(self) -> None:
        """Take over what was used before, and begin to keep what is used."""
        day = self._limits.day
        try:
            used = await asyncio.to_thread(_read, self._root, day)
        except (OSError, ConfigError) as error:
            log.error("the tokens used today cannot be read, and count from 0 again: %s", error)
        else:
            self._limits.know_used(day, used)
        self._limits.spent = self._spent

    async def close(self) -> None:
        """Write what is not written yet; idempotent."""
        self._limits.spent = lambda: None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._saving is not None:
            await self._saving
        await self._save()

    def _spent(self) -> None:
        if self._timer is None and self._saving is None:
            self._timer = self._clock.call_later(PAUSE, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._saving = asyncio.get_running_loop().create_task(self._save())
        self._saving.add_done_callback(self._saved)

    def _saved(self, saving: asyncio.Task[None]) -> None:
        self._saving = None
        if self._limits.has_unsaved and not self._failed:
            self._limits.spent()

    async def _save(self) -> None:
        day, spent, before = self._limits.take_unsaved()
        if not spent:
            return
        try:
            used = await asyncio.to_thread(_add, self._root, day, spent, before)
        except (OSError, ConfigError) as error:
            self._limits.keep_unsaved(day, spent)
            if not self._failed:
                log.error("the tokens used today cannot be written, a restart forgets them: %s", error)
            self._failed = True
        else:
            self._failed = False
            self._limits.know_used(day, used)


def _read(root: Path, day: int) -> dict[str, int]:
    """What was used on that day, by the id of the caller."""
    path = root / FOLDER / FILE
    try:
        return _used(read_private(path), path, day)
    except FileNotFoundError:
        return {}


def _add(root: Path, day: int, spent: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """Add what was spent on that day; all that is used then. ``before`` is what is known of callers without the file,
    which may have been damaged."""
    path = made_state_folder(root, FOLDER) / FILE
    used: dict[str, int] = {}

    def add(data: bytes) -> bytes:
        used.clear()
        used.update(_used(data, path, day) if data else {})
        for caller_id, tokens in spent.items():
            used[caller_id] = max(used.get(caller_id, 0), before[caller_id]) + tokens
        return msgspec.json.encode(_Kept(day, used))

    change_private(path, add)
    return used


def _used(data: bytes, path: Path, day: int) -> dict[str, int]:
    """What the file says of that day. One that is damaged is moved aside."""
    try:
        kept = msgspec.json.decode(data, type=_Kept)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        log.error("the tokens used today count from 0 again: %s is damaged (%s) and is %s now", path, error, aside)
        return {}
    return kept.used if kept.day == day else {}
