"""The folder of a log: its files, who writes it, and that it is this user's alone."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from anywire.errors import ConfigError
from anywire.files.private_files import check_private, kept_private, read_private
from anywire.this_system import O_CLOEXEC, O_NOFOLLOW, lock_file

MAX_WRITERS = 64
"""Processes that may write below one folder at once."""
MIN_KEY_BYTES = 32

_NAME = re.compile(r"audit-([0-9]{6,12})\.jsonl")


def file_name(number: int) -> str:
    return f"audit-{number:06}.jsonl"


def log_files(folder: Path) -> list[tuple[int, Path]]:
    """The files of a log with their numbers, the oldest first. Raises `ConfigError` when the folder cannot be read."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise ConfigError(f"the folder {folder} cannot be read: {error.strerror}") from error
    found = [(int(match[1]), folder / name) for name in names if (match := _NAME.fullmatch(name))]
    return sorted(found)


def logs_below(folder: Path) -> Iterator[Path]:
    """``folder`` and the folders in it that further processes write, those that have a log."""
    for own in _places(folder):
        if own.is_dir() and log_files(own):
            yield own


def claim(folder: Path) -> tuple[Path, int]:
    """The folder that this process writes, and the descriptor of its lock: ``folder``, or while another process writes
    that, one in it. Raises `ConfigError` when a folder is open to others, `OSError` when it cannot be made."""
    for own in _places(folder):
        _private(own)
        lock = os.open(own / "lock", os.O_RDWR | os.O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o600)
        try:
            lock_file(lock)
        except BlockingIOError:
            os.close(lock)
        except BaseException:
            os.close(lock)
            raise
        else:
            return own, lock
    raise ConfigError(f"{MAX_WRITERS} processes write audit logs below {folder}: give this one another `folder`")


def is_written(folder: Path) -> bool:
    """Whether a process writes the log in this very folder now."""
    try:
        lock = os.open(folder / "lock", os.O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
    except OSError:
        return False
    try:
        lock_file(lock, shared=True)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def read_key(path: Path, *, make: bool = False) -> bytes:
    """The key in a file, with ``make`` a new one where there is none. Raises `ConfigError` when others can read it, or
    it holds too little."""
    try:
        data = (
            kept_private(path, lambda: secrets.token_hex(MIN_KEY_BYTES).encode() + b"\n")
            if make
            else read_private(path)
        )
    except FileNotFoundError as error:
        raise ConfigError(f"the key {path} cannot be read: {error.strerror}") from error
    key = data.strip()
    if len(key) < MIN_KEY_BYTES:
        raise ConfigError(f"the key {path} has {len(key)} bytes, at least {MIN_KEY_BYTES} are needed")
    return key


def _places(folder: Path) -> Iterator[Path]:
    yield folder
    for number in range(2, MAX_WRITERS + 1):
        yield folder / str(number)


def _private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{folder} is no folder")
    check_private(folder, status)
