"""Folders of what a process runs now, such as its sockets: gone with it, or with the next process that makes one.

A process holds a lock on its folder for as long as it lives. A folder without that lock is of one that was killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
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
        with _opened(self.path.parent) as beside:
            lock_file(beside, wait=True)  # or another process would remove it before it is held
            for each in list(self.path.parent.glob(f"{kind}-*"))[:MOST_LEFT]:
                _remove_unheld(each)
            with _opened(private_folder(self.path)) as made:
                lock_file(made)
                self._held = os.dup(made)

    def remove(self) -> None:
        """Remove it with all that is in it; safe to call twice, and without `make`."""
        if self._held >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._held)
            self._held = -1


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_unheld(path: Path) -> None:
    with contextlib.suppress(OSError), _opened(path) as found:
        lock_file(found)
        shutil.rmtree(path, ignore_errors=True)
