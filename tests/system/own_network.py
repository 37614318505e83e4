"""A network of the test's own, for programs that listen on all interfaces."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000


@contextmanager
def own_network() -> Iterator[bool]:
    """While it is open, this thread and the processes that it starts have a network with a loopback device alone.
    Gives whether that is so: without the rights for it they stay in the network of this machine."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(_CLONE_NEWNET):
            yield False
            return
        try:
            subprocess.run(("ip", "link", "set", "lo", "up"), check=True)
            yield True
        finally:
            libc.setns(before, _CLONE_NEWNET)
    finally:
        os.close(before)
