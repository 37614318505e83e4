"""Whether this machine still has the address that DDS told others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable

log = logging.getLogger(__name__)

_GROUPS = 0x10 | 0x100
"""RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR: the kernel tells of every address that comes or goes."""


class AddressWatch:
    """Calls ``gone()`` once when this machine does not have ``address`` any more. Does nothing where the kernel does
    not tell (elsewhere than on Linux)."""

    def __init__(self, address: str, gone: Callable[[], None]) -> None:
        self._address, self._gone = address, gone
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError, AttributeError):
            made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            made.bind((0, _GROUPS))
            made.setblocking(False)
            self._socket = made
            self._loop.add_reader(made, self._changed)

    def close(self) -> None:
        """Call nothing any more; idempotent."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _changed(self) -> None:
        with contextlib.suppress(OSError):  # so many changes that some were left out: it is looked at all the same
            while self._socket is not None and self._socket.recv(65_536):
                pass
        if not _is_here(self._address):
            self.close()
            self._gone()


def _is_here(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
