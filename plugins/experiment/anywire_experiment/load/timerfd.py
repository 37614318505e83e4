"""The kernel's timers as file descriptors (Linux), which wake at a time given in nanoseconds."""

from __future__ import annotations

import ctypes
import os
import struct
from functools import cache

_CLOCK_MONOTONIC, _TFD_TIMER_ABSTIME = 1, 1


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def create() -> int:
    """A timer that can be read once its time has come. Raises OSError where the kernel has none."""
    descriptor = int(_libc().timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    return descriptor


def arm(descriptor: int, at_ns: int) -> None:
    """Let it wake at ``at_ns`` of CLOCK_MONOTONIC, at once when that has passed. Raises OSError."""
    spec = struct.pack("4l", 0, 0, *divmod(max(at_ns, 1), 1_000_000_000))
    if _libc().timerfd_settime(descriptor, _TFD_TIMER_ABSTIME, spec, None) != 0:
        raise OSError(ctypes.get_errno(), "timerfd_settime")
