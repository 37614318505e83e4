"""Writing the log to its files: opened where the last life ended, rotated, never left with half a line.

Nothing here knows of an event loop; all calls come from one thread (`anywire_service_audit.writer`).
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from anywire.errors import ConfigError
from anywire.files.private_files import check_private
from anywire_service_audit.chain import BEGUN, CLOSED, FORMAT, OPENED, Chain, Entry, Record, read
from anywire_service_audit.folder import claim, file_name, log_files

log = logging.getLogger(__name__)

_READ_BYTES = 64 * 1024
_LONGEST_LINE = 1024 * 1024


class End(NamedTuple):
    """What the last file of a log has: its whole lines' ``size``, the bytes of a ``torn`` line after them, and the
    ``last`` line with its hash, None where there is none that can be read."""

    size: int
    torn: int
    last: tuple[Record, str] | None


class Journal:
    """The log in a folder. ``max_bytes`` and ``max_age`` (seconds) end a file, ``keep`` files are kept, ``key`` is for
    the hashes, ``now`` tells the time in seconds since 1970."""

    def __init__(
        self,
        folder: Path,
        *,
        key: bytes = b"",
        max_bytes: int = 2**24,
        max_age: float = 86400.0,
        keep: int = 100,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        """As given; once it is open the one that this process writes."""
        self._base, self._chain = folder, Chain(key)
        self._max_bytes, self._max_age, self._keep, self._now = max_bytes, max_age, keep, now
        self._lock = self._file = -1
        self._number = self._size = 0
        self._begun = 0.0
        self._is_half_written = False

    @property
    def is_open(self) -> bool:
        return self._file >= 0

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the newest line."""
        return self._chain.seq, self._chain.head

    def open(self) -> None:
        """Take the folder and go on with the log in it. Does nothing when it is open. Raises `ConfigError` for what a
        person must mend, `OSError` for the rest."""
        if self.is_open:
            return
        if self._lock < 0:
            self.folder, self._lock = claim(self._base)
        torn, clean = self._recover()
        detail = {"pid": os.getpid()} | ({"torn_bytes": torn} if torn else {})
        try:
            self._write([Entry(self._now(), OPENED, outcome="ok" if clean else "after a crash", detail=detail)])
        except OSError:
            os.close(self._file)
            self._file = -1
            raise
        log.info("the audit log in %s goes on with entry %d", self.folder, self._chain.seq)

    def append(self, entries: Sequence[Entry]) -> tuple[int, OSError | None]:
        """Write entries through to the disk: how many were written, and why not all were."""
        written = 0
        try:
            self.open()
            self._check_file()
            while written < len(entries):
                written += self._write(entries[written : written + 64])
        except OSError as error:
            return written, error
        except ConfigError as error:
            return written, OSError(str(error))
        return written, None

    def close(self) -> None:
        """End in good order: tell so in the log and where it ends in the process's own. Safe to call twice."""
        if self.is_open:
            try:
                self._write([Entry(self._now(), CLOSED)])
            except OSError as error:
                log.error("the end of the audit log cannot be written: %s", error)
            _tell_head(self.folder / file_name(self._number), *self.head)
            os.close(self._file)
            self._file = -1
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # Inside

    def _recover(self) -> tuple[int, bool]:
        """Open the last file, or begin the first. Returns the bytes of a line that was cut off, and whether the last
        life ended in good order."""
        files = log_files(self.folder)
        if not files:
            self._begin_file(1)
            return 0, True
        number, path = files[-1]
        end = read_end(path)
        # A crash may have left the newest one without its first line.
        last = read_end(files[-2][1]).last if not end.size and len(files) > 1 else end.last
        if last is not None:
            self._chain.seq, self._chain.head = last[0].seq, last[1]
        elif end.size:
            log.error("the end of the audit log in %s cannot be read: run `anywire audit verify`", self.folder)
        header = read_header(path) if end.size else None
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            check_private(path, os.fstat(file))
            os.ftruncate(file, end.size)
            if not end.size:
                path.unlink()
                self._begin_file(number)
            elif header is None or last is None or header.detail.get("keyed") is not bool(self._chain.key):
                self._begin_file(number + 1)
        except BaseException:
            os.close(file)
            raise
        if self.is_open:
            os.close(file)
        elif header is not None:
            began = datetime.datetime.fromisoformat(header.time).timestamp()
            self._file, self._number, self._size, self._begun = file, number, end.size, began
        return end.torn, last is not None and last[0].action == CLOSED

    def _write(self, entries: Sequence[Entry]) -> int:
        """Write entries to the current file, and to the next one when it is full; how many. What cannot be written
        leaves nothing behind."""
        if self._size >= self._max_bytes or self._now() - self._begun >= self._max_age:
            self._rotate()
        before = self._chain.seq, self._chain.head
        lines, count = bytearray(), 0
        for entry in entries:
            lines += self._chain.add(entry)
            count += 1
            if self._size + len(lines) >= self._max_bytes:
                break
        try:
            self._write_bytes(self._file, bytes(lines))
        except OSError:
            self._chain.seq, self._chain.head = before
            self._is_half_written = True
            raise
        self._size += len(lines)
        return count

    def _write_bytes(self, file: int, data: bytes) -> None:
        while data:
            data = data[os.write(file, data) :]
        os.fdatasync(file)

    def _check_file(self) -> None:
        """Cut off what a failed write has left, and begin another file when somebody else has changed this one."""
        if self._is_half_written:
            os.ftruncate(self._file, self._size)
            self._is_half_written = False
        status, path = os.fstat(self._file), self.folder / file_name(self._number)
        try:
            untouched = path.lstat().st_ino == status.st_ino and status.st_size == self._size
        except FileNotFoundError:
            untouched = False
        if not untouched:
            self._rotate()
            log.error("%s was changed or taken away by another: the audit log goes on in another file", path)

    def _rotate(self) -> None:
        old, (seq, head), path = self._file, self.head, self.folder / file_name(self._number)
        newest = max([self._number, *(number for number, _ in log_files(self.folder))])
        self._begin_file(newest + 1)
        os.close(old)
        _tell_head(path, seq, head)

    def _begin_file(self, number: int) -> None:
        """Begin a file with the line that joins it to the chain. When that fails, everything is as before."""
        path = self.folder / file_name(number)
        before = self._chain.seq, self._chain.head
        surplus = [each for each in log_files(self.folder) if each[0] <= number - self._keep]
        detail = {"file": number, "format": FORMAT, "previous": before[1], "keyed": bool(self._chain.key)}
        if surplus:
            detail["removed_to"] = surplus[-1][0]
        now = self._now()
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            line = self._chain.add(Entry(now, BEGUN, detail=detail))
            self._write_bytes(file, line)
            self._sync_folder()
        except BaseException:
            self._chain.seq, self._chain.head = before
            os.close(file)
            path.unlink(missing_ok=True)
            raise
        self._file, self._number, self._size, self._begun = file, number, len(line), now
        for _, old in surplus:
            with contextlib.suppress(OSError):
                old.unlink()

    def _sync_folder(self) -> None:
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _tell_head(path: Path, seq: int, head: str) -> None:
    """Tell where the log ends in another place: who cuts off its end has to change that place too."""
    log.info("the audit log %s ends with entry %d, hash %s", path, seq, head)


def read_end(path: Path) -> End:
    """The end of a file of the log, read from behind."""
    with path.open("rb") as file:
        length = at = file.seek(0, os.SEEK_END)
        tail = b""
        while at and tail.count(b"\n") < 2 and len(tail) < _LONGEST_LINE:
            at = max(0, at - _READ_BYTES)
            file.seek(at)
            tail = file.read(length - at)
    whole, _, rest = tail.rpartition(b"\n")
    size = length - len(rest)
    return End(size, len(rest), read(whole.rpartition(b"\n")[2]) if size else None)


def read_header(path: Path) -> Record | None:
    """The first line of a file, None when that is none."""
    with path.open("rb") as file:
        found = read(file.readline(_LONGEST_LINE).removesuffix(b"\n"))
    return found[0] if found is not None and found[0].action == BEGUN else None
