"""Shared memory between processes of one host, where the Cyclone DDS installed here can load its plugin for it."""

from __future__ import annotations

import ctypes
import sys

from anywire.errors import TransportUnavailable
from anywire_dds.config import DdsConfig

LIBRARY = "psmx_iox"
"""Cyclone's plugin for iceoryx, by the name under which it looks for it."""

_REMEDY = (
    "The wheel of cyclonedds has no such plugin: build Cyclone DDS with it (ENABLE_ICEORYX) and the Python package "
    "against that (CYCLONEDDS_HOME), start iox-roudi, and see that the loader finds the library; or set "
    "`shared_memory: off`"
)


def why_not() -> str:
    """Why Cyclone could not load its plugin; empty when it can."""
    file = {"win32": f"{LIBRARY}.dll", "darwin": f"lib{LIBRARY}.dylib"}.get(sys.platform, f"lib{LIBRARY}.so")
    try:
        ctypes.CDLL(file)
    except OSError as error:
        return str(error)
    return ""


def used(config: DdsConfig) -> bool:
    """Whether messages go through shared memory. Raises `TransportUnavailable` when they must and cannot."""
    if config.shared_memory == "off":
        return False
    reason = why_not()
    if reason and config.shared_memory == "on":
        raise TransportUnavailable(f"shared memory is not available, because {reason}. {_REMEDY}")
    return not reason


def in_force(config: DdsConfig) -> str:
    """For the record: what is in force, and why."""
    if config.shared_memory == "off":
        return "off"
    reason = why_not()
    return f"not available: {reason}" if reason else "iceoryx"
