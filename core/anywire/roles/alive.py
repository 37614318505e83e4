"""A process tells whoever supervises it that its event loop runs: a file for probes, and systemd's watchdog."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from anywire.errors import ConfigError

INTERVAL = 5.0
"""Seconds between two tellings. A probe that finds the file older than four of these may end the process."""

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def telling_alive(file: Path | None, environment: Mapping[str, str] | None = None) -> AsyncIterator[None]:
    """Inside, set the time of ``file`` every `INTERVAL` seconds, and tell systemd's watchdog (``WatchdogSec=`` of the
    unit) twice in its time. Afterwards ``file`` is removed.

    ``environment`` is the process's own unless given. Raises `ConfigError` when the file cannot be made.
    """
    environment = os.environ if environment is None else environment
    telling: list[asyncio.Task[None]] = []
    if file is not None:
        if fault := _set_time(file):
            raise ConfigError(fault)
        telling.append(asyncio.create_task(_touch(file)))
    if (watchdog := _watchdog(environment)) is not None:
        telling.append(asyncio.create_task(_notify(*watchdog)))
    try:
        yield
    finally:
        for each in telling:
            each.cancel()
        await asyncio.gather(*telling, return_exceptions=True)
        if file is not None:
            _remove(file)


async def _touch(file: Path) -> None:
    told = ""
    while True:
        await asyncio.sleep(INTERVAL)
        fault = _set_time(file)
        if fault and fault != told:
            log.error("%s", fault)
        told = fault


def _set_time(file: Path) -> str:
    """What keeps it from being set to now; empty when it was."""
    try:
        file.touch()
    except OSError as error:
        return f"alive_file: {file} cannot be written: {error.strerror}"
    return ""


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()


def _watchdog(environment: Mapping[str, str]) -> tuple[str, float] | None:
    """The socket of systemd and the seconds in which it wants to be told; None where nobody watches this process."""
    address, time = environment.get("NOTIFY_SOCKET", ""), environment.get("WATCHDOG_USEC", "")
    if not address or not time.isdecimal() or int(time) == 0:
        return None
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return ("\0" + address[1:] if address.startswith("@") else address), int(time) / 1e6


async def _notify(address: str, seconds: float) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
        told.setblocking(False)
        while True:
            with contextlib.suppress(OSError):  # systemd ends a process that it does not hear
                told.sendto(b"WATCHDOG=1", address)
            await asyncio.sleep(seconds / 2)
