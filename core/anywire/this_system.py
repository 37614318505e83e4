"""What differs between systems: users with numbers, locks of files, flags of `os.open`, processes that can be forked.

Every module can be imported on every system. What a system lacks is said when it is used, by a `ConfigError`.
"""

from __future__ import annotations

import os
from typing import IO, Any

from anywire.errors import ConfigError

IS_POSIX = hasattr(os, "fork")
"""Whether this is Linux, macOS or another system of that kind: one whose processes can be forked and grouped."""
HAS_USERS = hasattr(os, "getuid")
"""Whether files tell by numbers whose they are, and by modes who may read them."""

O_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
O_NONBLOCK: int = getattr(os, "O_NONBLOCK", 0)
O_CLOEXEC: int = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Flags of `os.open` where there are such. A file is always read and written as bytes."""


def user_id() -> int:
    """The number of this process's user; 0 on systems whose users have none, as their files tell 0 too."""
    return os.getuid() if HAS_USERS else 0


def effective_user_id() -> int:
    """The number of the user by whose rights this process reads files; 0 on systems whose users have none."""
    return os.geteuid() if HAS_USERS else 0


def lock_file(file: int | IO[Any], *, shared: bool = False, wait: bool = False) -> None:
    """Take the lock of an open file, which ends when the file is closed or the process ends. Programs agree by it on
    who uses the file; it keeps nobody from reading.

    Raises `BlockingIOError` when another one has it, unless this is to ``wait`` for it, and `ConfigError` on a system
    without such locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        raise ConfigError(
            f"programs cannot take turns at a file on this system, which has no flock: {ELSEWHERE}"
        ) from None
    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))


def needs_posix(what: str) -> None:
    """Raise `ConfigError` on a system that ``what`` cannot work on, such as ``"the transport dds"``."""
    if not IS_POSIX:
        raise ConfigError(f"{what} needs Linux or macOS: {ELSEWHERE}")


ELSEWHERE = "on Windows, run it in WSL 2 or in a container"
