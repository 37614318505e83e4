"""Ports of 127.0.0.1: one that is free, and who listens on one."""

from __future__ import annotations

import contextlib
import errno
import socket

import psutil

HOST = "127.0.0.1"


def free_port() -> int:
    """A port on which nobody listens now. Raises `OSError` when there is none."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def is_taken(port: int) -> bool:
    """Whether a server that binds to it now would fail. Raises `OSError` when this user may not bind to it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            raise
    return False


def listener(port: int) -> str:
    """Who listens on it, `` (nginx, pid 12)``; empty when that cannot be seen. It reads much: call it on a thread."""
    with contextlib.suppress(psutil.Error, OSError):
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid:
                return f" ({psutil.Process(each.pid).name()}, pid {each.pid})"
    return ""


def listens_below(pid: int, port: int) -> bool:
    """Whether a descendant of the process ``pid`` is seen to listen on it. Call it on a thread."""
    with contextlib.suppress(psutil.Error, OSError):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError):
                for each in process.net_connections("tcp"):
                    if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port:
                        return True
    return False
