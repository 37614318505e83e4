"""This program's part of the machine's memory for models, agreed upon with the others of this user.

Each program tells its claim in a file of the user's runtime folder, on which it holds a lock
(`anywire.files.live_records`): with its end, by whatever means, the claim is gone. A program changes its claim while it
holds the folder's own lock, so that no two change theirs at once, and then changes the file that all of them watch. The
end of another one is seen by the end of its process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from anywire.clock import Clock, SystemClock, Timer
from anywire.errors import ConfigError
from anywire.files.live_records import RecordFile, live_records
from anywire.files.private_files import private_folder, runtime_folder
from anywire.files.watched_files import WatchedFiles
from anywire.sizes import shown_size
from anywire.this_system import O_CLOEXEC, O_NOFOLLOW, lock_file
from anywire_engine_models.config import ModelsConfig
from anywire_engine_models.devices.memory_limit import usable_memory
from anywire_engine_models.host.settings import MemoryBudget
from anywire_engine_models.host.status import Listener, MemoryUse, ModelChanged
from anywire_engine_models.machine_budget.claims import Claim, fair, grant

FOLDER = "models-memory"
LOCK, NEWS = "lock", "news"
BUSY = 0.05
"""Seconds after which the folder's lock is asked for again that another program has."""
UNSEEN = 1.0
"""Seconds after which claims are read again where the process of one was not found: it has ended just now, or is none
of this container."""

log = logging.getLogger(__name__)


class _Host(Protocol):
    """What it needs of an `anywire_engine_models.host.actor.ModelHost`."""

    def listen(self, listener: Listener) -> Callable[[], None]: ...

    def memory(self) -> MemoryUse: ...

    def set_budget(self, budget: MemoryBudget) -> None: ...


class MemoryShare:
    """Keeps the budget of ``host`` at this program's part. All of it is used on the event loop; nothing waits there for
    another program. Where the folder cannot be used that is logged, and the host keeps the budget of its settings.

    ``total`` are the bytes of memory of this machine, ``folder`` is that of the claims unless a test gives others.
    """

    def __init__(
        self,
        config: ModelsConfig,
        host: _Host,
        *,
        clock: Clock | None = None,
        folder: Path | None = None,
        total: int | None = None,
    ) -> None:
        self._host, self._clock, self._folder = host, clock or SystemClock(), folder
        self._total = usable_memory() if total is None else total
        self._claim = Claim(
            secrets.token_hex(8), os.getpid(), host.memory().budget_bytes, 0, isinstance(config.memory_budget, str)
        )
        self._file: RecordFile | None = None
        self._watched: WatchedFiles | None = None
        self._timer: Timer | None = None
        self._unlisten: Callable[[], None] = lambda: None
        self._ends: dict[int, int] = {}
        """By the number of another program's process, what tells its end."""
        self._unseen: set[int] = set()
        self._most = self._claim.wish
        self._is_told = False
        self._logged: tuple[int, int] | None = None

    def begin(self) -> None:
        """Take part, before the host begins. A host without a bound takes no part."""
        if not self._claim.wish:
            return
        try:
            folder = self._folder = private_folder(self._folder or runtime_folder() / FOLDER)
            self._watched = WatchedFiles([folder / NEWS], self._look)
            self._file = RecordFile(folder, self._claim.id)
        except (ConfigError, OSError) as error:
            self._without(error)
            return
        self._unlisten = self._host.listen(self._model_changed)
        self._look()
        self._watched.start()

    async def close(self) -> None:
        """Leave, once the host is closed. Safe to call twice, and without `begin`."""
        self._unlisten()
        file, self._file = self._file, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for pid in list(self._ends):
            self._unfollow(pid)
        if file is not None and self._folder is not None:
            with contextlib.suppress(OSError):
                file.remove()
                self._tell_news(self._folder)
        if self._watched is not None:
            await self._watched.close()

    # Inside

    def _look(self) -> None:
        """Read the claims of the others, and change the own one where it should be another."""
        if self._file is None or self._folder is None:
            return
        try:
            with _held(self._folder / LOCK) as is_held:
                if not is_held:
                    self._look_again(BUSY)
                    return
                claims = live_records(self._folder, Claim)
                self._settle(self._file, self._folder, [each for each in claims if each.id != self._claim.id])
        except OSError as error:
            self._without(error)

    def _settle(self, file: RecordFile, folder: Path, others: Collection[Claim]) -> None:
        before, self._most = self._claim.granted, fair(self._claim, others)
        # What the host takes cannot change here: both are on the event loop.
        granted = grant(self._claim, others, self._host.memory().used_bytes)
        if granted <= before:
            self._set_budget(granted, others)
        if granted != before or not self._is_told:
            claim = msgspec.structs.replace(self._claim, granted=granted)
            file.write(claim)
            self._claim, self._is_told = claim, True
            self._tell_news(folder)
        if granted > before:
            self._set_budget(granted, others)
        self._follow({each.pid for each in others} - {os.getpid()})
        self._log(others)

    def _set_budget(self, granted: int, others: Collection[Claim]) -> None:
        why = f"{_programs(len(others) + 1)} of this machine share {shown_size(self._claim.wish)}" if others else ""
        # 0 would be no bound.
        self._host.set_budget(MemoryBudget(max(1, granted), max(1, self._most), why if self._claim.is_share else ""))

    def _tell_news(self, folder: Path) -> None:
        (folder / NEWS).write_text(secrets.token_hex(8))

    def _model_changed(self, change: ModelChanged) -> None:
        """Memory that is another one's has become free here."""
        if self._claim.granted > self._most and change.status.state in ("stopped", "crashed"):
            self._look()

    def _look_again(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_later(seconds, self._look)

    def _without(self, error: Exception) -> None:
        log.warning("memory for models is not shared with other programs of this machine: %s", error)

    def _log(self, others: Collection[Claim]) -> None:
        if self._logged == (len(others), self._most):
            return
        is_first, self._logged = self._logged is None, (len(others), self._most)
        together = sum(each.wish for each in others if not each.is_share)
        together += self._claim.wish if not self._claim.is_share else self._most
        if together > self._total:
            log.warning(
                "models of %s on this machine may take %s together, and it has %s: set memory_budget of each lower",
                _programs(len(others) + 1),
                shown_size(together),
                shown_size(self._total),
            )
        if others:
            log.info(
                "models may take %s of this machine's memory: %s have models here (memory_budget)",
                shown_size(self._most),
                _programs(len(others) + 1),
            )
        elif not is_first:
            log.info("models may take %s: no other program has models here any more", shown_size(self._most))

    # The ends of other programs

    def _follow(self, pids: set[int]) -> None:
        for pid in self._ends.keys() - pids:
            self._unfollow(pid)
        self._unseen &= pids
        if not hasattr(os, "pidfd_open"):
            return
        for pid in pids - self._ends.keys() - self._unseen:
            try:
                ends = os.pidfd_open(pid)
            except OSError:
                self._unseen.add(pid)
                self._look_again(UNSEEN)
                continue
            self._ends[pid] = ends
            asyncio.get_running_loop().add_reader(ends, self._ended, pid)

    def _ended(self, pid: int) -> None:
        self._unfollow(pid)
        self._look()

    def _unfollow(self, pid: int) -> None:
        ends = self._ends.pop(pid)
        asyncio.get_running_loop().remove_reader(ends)
        os.close(ends)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[bool]:
    """The lock of the folder, if no other program has it now."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o600)
    try:
        try:
            lock_file(descriptor)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _programs(number: int) -> str:
    return f"{number} programs" if number > 1 else "1 program"
