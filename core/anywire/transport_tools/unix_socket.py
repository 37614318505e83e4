"""A Unix socket on which a server listens, and the life of its file."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path


class UnixSocket:
    """A socket of mode 0600 at ``path``, bound: whoever serves there lets it listen. The socket of a process that has
    ended is removed.

    Raises `FileExistsError` where a file is that is no socket, `OSError` with ``EADDRINUSE`` where another process
    listens, and as the system does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _remove_stale(path)
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.bind(str(path))
            path.chmod(0o600)  # nobody can connect before it listens
            self.socket.setblocking(False)
            self._file = _identity(path)
        except BaseException:
            self.socket.close()
            raise

    def remove(self) -> None:
        """Remove its file, unless another one has taken its place. Safe to call twice."""
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._file:
                self.path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file from another of that name."""
    status = path.lstat()
    return status.st_dev, status.st_ino


def _remove_stale(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "a file is there that is no socket")
        if _answers(path):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        path.unlink()


def _answers(path: Path) -> bool:
    """Whether a process listens there, be it that its backlog is full."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            return True
        return True
