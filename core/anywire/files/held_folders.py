"""Folders of what a process runs now, such as its sockets: gone with it, or with the next process that makes one.

A process holds a lock on its folder for as long as it lives. A folder without that lock is of one that was killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from anywire.files.private_files import private_folder
from anywire.this_system import O_CLOEXEC, O_NOFOLLOW, lock_file

MOST_LEFT = 1000
"""Folders that are looked at when one is made."""


class HeldFolder:
    """The folder ``path``, for this user alone. Its name is ``KIND-`` and what no other process would take."""

    def __init__(self, path: Path) -> None:
        self.path, self._held = path, -1

    def make(self) -> None:
        """Make it and hold it, and remove those of the same kind that nobody holds. Raises `ConfigError`."""
        kind = self.path.name.rpartition("-")[0]
        for each in list(self.path.parent.glob(f"{kind}-*"))[:MOST_LEFT]:
            _remove_unheld(each)
        while self._held < 0:
            self._held = _held(private_folder(self.path))

    def remove(self) -> None:
        """Remove it with all that is in it; safe to call twice, and without `make`."""
        if self._held >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._held)
            self._held = -1


def _held(path: Path) -> int:
    """What holds a folder; -1 where another process has just removed it, since nobody held it yet."""
    try:
        descriptor = os.open(path, os.O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
    except FileNotFoundError:
        return -1
    with contextlib.ExitStack() as ending:
        ending.callback(os.close, descriptor)
        lock_file(descriptor, wait=True)
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_ino == os.fstat(descriptor).st_ino:
                ending.pop_all()
                return descriptor
    return -1


def _remove_unheld(path: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
        try:
            lock_file(descriptor)
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(descriptor)
