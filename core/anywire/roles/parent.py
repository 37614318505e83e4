"""The other end of a launcher: what a process that was started by one gets from its parent, and how it ends with it.

The configuration is a line of standard input, which then stays open: its end means that the parent has ended,
in whatever way. On Linux the kernel sends SIGTERM then, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys

from anywire.config import Config
from anywire.errors import ConfigError
from anywire.launcher import IMPORTS
from anywire.roles.stop import Stop

_PR_SET_PDEATHSIG = 1
_IMPORTS_LINE = f'{{"{IMPORTS}":'.encode()


def inherited_config() -> Config:
    """The configuration that the parent has written, the first line of standard input as JSON. A line before it may
    name modules to import until it comes (`anywire.launcher.IMPORTS`). Raises `ConfigError` when there is none."""
    end_with_parent()
    line = sys.stdin.buffer.readline()
    if line.startswith(_IMPORTS_LINE) and line.endswith(b"\n"):
        for name in json.loads(line)[IMPORTS]:
            # Whoever needs it imports it again, and says what is wrong with it.
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        raise ConfigError("this is for processes that a launcher starts: the first line of standard input is missing")
    return Config.model_validate_json(line)


def end_with_parent() -> None:
    """Have the kernel send SIGTERM when the parent ends; elsewhere than on Linux only `stop_with_parent` tells it."""
    if sys.platform == "linux":
        # Not SIGKILL: an engine may have processes of its own to end.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def stop_with_parent(stop: Stop) -> None:
    """Ask to stop at the end of standard input."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()

    def readable() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            stop.request("the parent process ended")

    loop.add_reader(descriptor, readable)
