"""Changing a file that other programs read and write too: whole, one after the other, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from anywire.this_system import O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK, effective_user_id, lock_file

LOCK_TIMEOUT = 10.0
"""Seconds that other programs may hold the file's lock, or change it again and again."""
_Mark = tuple[int, int, int]


def read_file(path: Path, limit: int) -> bytes:
    """The content of a file, at most ``limit`` + 1 bytes. Raises `OSError`, also for what is no file: a pipe is not
    waited for."""
    with _opened(path) as file:
        return file.read(limit + 1)


def change_file(path: Path, change: Callable[[bytes | None], bytes], limit: int) -> None:
    """Replace the content of a file by what ``change`` makes of it, which gets None when there is no file.

    A reader sees the content before or after, never a part of it. Mode and owner stay, a new file has mode 0600; behind
    a symbolic link the file that it leads to is changed. What is the same already is not written. Programs that take
    the file's lock (flock) change it one after the other; what one without has written meanwhile is not overwritten:
    ``change`` is called again. Blocks; call it on a thread. Raises `OSError`, and what ``change`` raises; the file is
    as before then.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_TIMEOUT
    while not (_replaced(target, change, limit, deadline) or _created(target, change)):
        if time.monotonic() > deadline:
            raise OSError(0, "another program changes it all the time")


def _replaced(path: Path, change: Callable[[bytes | None], bytes], limit: int, deadline: float) -> bool:
    """Whether the file was there and is replaced."""
    try:
        file = _opened(path)
    except FileNotFoundError:
        return False
    with file:
        _lock(file.fileno(), deadline)
        status = os.fstat(file.fileno())
        if not _is_there(path, status):  # replaced while this waited for the lock
            return False
        data = file.read(limit + 1)
        changed = change(data)
        if changed == data:
            return True
        new = _written(path, changed, status)
        with _removed_on_failure(new):
            if not _is_there(path, status):
                new.unlink()
                return False
            new.rename(path)
        _sync(path.parent)
    return True


def _created(path: Path, change: Callable[[bytes | None], bytes]) -> bool:
    """Whether there was no file and now is one. It appears with its whole content."""
    if path.exists():
        return False
    new = _written(path, change(None), None)
    try:
        os.link(new, path)
    except FileExistsError:
        return False
    finally:
        new.unlink()
    _sync(path.parent)
    return True


def _opened(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_RDONLY | O_NONBLOCK | O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no file")
    return os.fdopen(descriptor, "rb")


def _lock(descriptor: int, deadline: float) -> None:
    """Take the file's lock. Another program that holds it for long makes this fail and not hang."""
    pause = 0.01
    while True:
        try:
            lock_file(descriptor)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise OSError(0, "another program holds its lock") from None
            time.sleep(pause)
            pause = min(pause * 2, 0.05)


def _is_there(path: Path, status: os.stat_result) -> bool:
    try:
        return _mark(path.stat()) == _mark(status)
    except FileNotFoundError:
        return False


def _mark(status: os.stat_result) -> _Mark:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _written(path: Path, data: bytes, like: os.stat_result | None) -> Path:
    """A new file beside ``path`` with this content, that survives a crash from then on."""
    new = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
    with _removed_on_failure(new), os.fdopen(descriptor, "wb") as file:
        if like is not None:
            if (like.st_uid, like.st_gid) != (effective_user_id(), os.getegid()):
                with contextlib.suppress(PermissionError):  # of another owner in a folder of this user: it becomes ours
                    os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    return new


@contextlib.contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _sync(folder: Path) -> None:
    """Keep a change through a crash of the machine, where the file system can: it is made already."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
