"""DDS domains and TCP ports of one's own: no other process that asks here gets the same, in this run or in another.

What is reserved is held by a bound socket, so that it is free again when its process ends, however it ends. The numbers
lie below those that the system gives away by itself (from 32768 on Linux), which is why domains end at 100: the ports
of domain 101 and above reach into them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle

_DOMAINS = range(10, 101)
_BLOCKS = range(10_000, 20_000, 100)
_HOST = "127.0.0.1"


@contextmanager
def dds_domain() -> Iterator[int]:
    """A DDS domain on whose ports nobody listens, held until the block ends.

    Raises `RuntimeError` when there is none.
    """
    for _ in _DOMAINS:
        domain = next(_next_domain)
        first = 7400 + 250 * domain
        with ExitStack() as stack:
            try:
                # The RTPS specification leaves this port of a domain unused; on the other two each of its processes
                # listens, or the first of them.
                held = stack.enter_context(_bound(first + 2, socket.SOCK_DGRAM))
                for port in (first, first + 10):
                    _bound(port, socket.SOCK_DGRAM, "").close()
            except OSError:
                continue
            assert held
            yield domain
            return
    raise RuntimeError(f"every DDS domain from {_DOMAINS[0]} to {_DOMAINS[-1]} is in use on this machine")


def free_ports(count: int) -> list[int]:
    """TCP ports of the loopback interface at which nobody listens, out of a block that this process holds.

    They are not bound: a server of the product binds them itself, and a test may start it late or twice. A port comes
    again only after the others of the block. Raises `RuntimeError` when there are not so many.
    """
    found: list[int] = []
    for _ in range(_BLOCKS.step):
        if len(found) == count:
            break
        port = _ports.next()
        try:
            _bound(port, socket.SOCK_STREAM).close()
        except OSError:
            continue
        found.append(port)
    if len(found) < count:
        raise RuntimeError(f"there are no {count} free ports in the block of this process")
    return found


def free_port() -> int:
    """One of `free_ports`."""
    (port,) = free_ports(1)
    return port


class _Ports:
    """The ports of the block that this process holds, one after the other. The block's first port holds it."""

    def __init__(self) -> None:
        self._held: socket.socket | None = None
        self._owner = 0

    def next(self) -> int:
        if self._owner != os.getpid():  # nothing yet, or this process was forked from one that has a block
            self._take_block()
        return next(self._cycle)

    def _take_block(self) -> None:
        start = os.getpid() % len(_BLOCKS)
        for number in range(len(_BLOCKS)):
            first = _BLOCKS[(start + number) % len(_BLOCKS)]
            try:
                self._held = _bound(first, socket.SOCK_STREAM)
            except OSError:
                continue
            self._held.listen()
            self._owner, self._cycle = os.getpid(), cycle(range(first + 1, first + _BLOCKS.step))
            return
        raise RuntimeError(f"every block of ports from {_BLOCKS[0]} to {_BLOCKS.stop} is in use on this machine")


def _bound(port: int, kind: socket.SocketKind, host: str = _HOST) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    try:
        if kind is socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection's leftover is nobody's
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made


_next_domain = cycle([*_DOMAINS[os.getpid() % len(_DOMAINS) :], *_DOMAINS[: os.getpid() % len(_DOMAINS)]])
_ports = _Ports()
