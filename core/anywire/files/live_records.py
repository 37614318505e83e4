"""Files in which processes tell what they run now, so that other commands of the same user find it.

A file belongs to the process that writes it, which holds a lock on it for as long as it lives. A file without that
lock is of a process that has ended, whatever its number is used for now; whoever finds it removes it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from anywire.printable import printable
from anywire.this_system import O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK, lock_file

SUFFIX = ".json"
MAX_RECORDS = 1000
"""Files of one folder that are looked at."""

Record = TypeVar("Record", bound=msgspec.Struct)


class RecordFile:
    """The file in which this process tells of one thing; ``name`` is the file's, without its suffix. Mode 0600."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path, self._held = folder / f"{printable(name).replace('/', '_')}{SUFFIX}", -1

    def write(self, record: msgspec.Struct) -> None:
        """Tell of ``record`` from now on, in place of what was told before. Raises `OSError`, and `ConfigError` on a
        system without locks."""
        data = msgspec.json.encode(record)
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        try:
            lock_file(descriptor)
            os.write(descriptor, data)
            new.rename(self._path)
        except BaseException:
            os.close(descriptor)
            new.unlink(missing_ok=True)
            raise
        self._release()
        self._held = descriptor

    def remove(self) -> None:
        """Tell nothing any more; safe to call twice."""
        if self._held >= 0:
            self._path.unlink(missing_ok=True)
            self._release()

    def _release(self) -> None:
        if self._held >= 0:
            os.close(self._held)
            self._held = -1


def live_records(folder: Path, kind: type[Record]) -> list[Record]:
    """What processes tell in ``folder`` now, in no order. Files of those that have ended are removed; a file that is no
    ``kind`` is passed over."""
    found = []
    for path in list(folder.glob(f"*{SUFFIX}"))[:MAX_RECORDS]:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            record = _read(path, kind)
            if record is not None:
                found.append(record)
    return found


def _read(path: Path, kind: type[Record]) -> Record | None:
    with os.fdopen(os.open(path, os.O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), "rb") as file:
        try:
            lock_file(file, shared=True)
        except BlockingIOError:
            return msgspec.json.decode(file.read(), type=kind)
        if path.lstat().st_ino == os.fstat(file.fileno()).st_ino:  # not one that has taken its place meanwhile
            path.unlink(missing_ok=True)
        return None
