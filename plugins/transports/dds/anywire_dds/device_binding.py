"""Keep Cyclone's receiving sockets to the loopback interface.

Cyclone binds the sockets that it receives with to every address of the machine, whatever interface it is told to use.
What it advertises and sends is of that interface alone, but a datagram of another machine would still reach it. Linux
lets a socket be bound to a device; then the kernel delivers nothing to it that came by another one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")
_LOOPBACK_DEVICE = b"lo"

log = logging.getLogger(__name__)


def open_sockets() -> set[tuple[int, int]]:
    """The sockets of this process, each by descriptor and inode; empty elsewhere than on Linux."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in list(_DESCRIPTORS.iterdir()):
            with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
                status = os.fstat(int(entry.name))
                if stat.S_ISSOCK(status.st_mode):
                    found.add((int(entry.name), status.st_ino))
    return found


def keep_to_loopback(before: set[tuple[int, int]]) -> None:
    """Bind the UDP sockets that have been opened since ``before``, and receive from every address, to the loopback
    device. Where the system does not allow that, a line of the log says so."""
    for each in _receiving(open_sockets() - before):
        try:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _LOOPBACK_DEVICE)
        except (OSError, AttributeError) as error:
            log.info("the UDP port %d of DDS takes datagrams of other machines too: %s", each.getsockname()[1], error)


def _receiving(sockets: set[tuple[int, int]]) -> Iterator[socket.socket]:
    for descriptor, _ in sockets:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as one:
            if one.family == socket.AF_INET and one.type == socket.SOCK_DGRAM and one.getsockname()[0] == "0.0.0.0":
                yield one
