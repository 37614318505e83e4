"""What a process tells of itself to probes and to systemd's watchdog."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.patience import PATIENCE

from anywire.errors import ConfigError
from anywire.roles import alive


async def test_the_file_is_set_again_and_again_and_removed_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alive, "INTERVAL", 0.01)
    file = tmp_path / "alive"

    async def until(reached: Callable[[], bool]) -> None:
        while not reached():  # noqa: ASYNC110 - nothing tells of the time of a file
            await asyncio.sleep(0.01)

    async with alive.telling_alive(file, {}), asyncio.timeout(PATIENCE):
        os.utime(file, (0, 0))
        await until(lambda: file.stat().st_mtime > 0)
        file.unlink()
        await until(file.exists)
    assert not file.exists()


async def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"alive_file: .*missing/alive cannot be written"):
        async with alive.telling_alive(tmp_path / "missing" / "alive", {}):
            pytest.fail("it has begun")


async def test_what_ends_the_process_passes_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="as it is"):
        async with alive.telling_alive(tmp_path / "alive", {}):
            raise ConfigError("as it is")


@pytest.mark.parametrize("abstract", [False, True])
async def test_the_watchdog_is_told_in_its_time(tmp_path: Path, abstract: bool) -> None:
    address = f"@anywire-{os.urandom(4).hex()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + address[1:] if abstract else address)
        systemd.setblocking(False)
        asked = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())}
        async with alive.telling_alive(None, asked), asyncio.timeout(PATIENCE):
            for _ in range(3):
                assert await asyncio.get_running_loop().sock_recv(systemd, 100) == b"WATCHDOG=1"


@pytest.mark.parametrize("changed", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": ""}, {"NOTIFY_SOCKET": ""}])
async def test_another_process_and_none_are_not_told(tmp_path: Path, changed: dict[str, str]) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.setblocking(False)
        asked = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())} | changed
        async with alive.telling_alive(None, asked):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.get_running_loop().sock_recv(systemd, 100), 0.1)


async def test_systemd_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    asked = {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "20000"}
    async with alive.telling_alive(tmp_path / "alive", asked):
        await asyncio.sleep(0.05)
