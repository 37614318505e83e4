"""The conformance kit for launchers: what `anywire.launcher` asks of every one, as tests.

    class TestMine(LauncherConformance):
        launcher = "mine"

The processes run agents with the engine ``synthetic`` over ``memory``, which the core has. Where processes have no pid
of this machine, what is asked of pids is left out.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from anywire.config import Config
from anywire.errors import LaunchFailed
from anywire.launcher import Launcher, RunningProcess
from anywire.plugins import Plugins
from anywire.testing.patience import START_PATIENCE, expect

SECRET = "a-secret-of-the-kit"


class LauncherSpec(msgspec.Struct, frozen=True):
    """What a process of the kit needs to make the launcher under test."""

    launcher: str
    options: dict[str, Any]
    plugins: list[str]

    def make(self) -> Launcher:
        plugins = Plugins()
        for source in self.plugins:
            plugins.add(source)
        made: Launcher = plugins.create("launchers", self.launcher, self.options)
        return made


class Changes:
    """Counts the calls of ``changed``, and waits for what they tell."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def __call__(self) -> None:
        self._changed.set()

    async def until(self, condition: Any, what: str) -> None:
        async def wait() -> None:
            while not condition():
                self._changed.clear()
                await self._changed.wait()

        await expect(wait(), what, START_PATIENCE)


@pytest.mark.asyncio
class LauncherConformance:
    """Subclass it and name the launcher: ``launcher = "mine"``."""

    launcher: str
    """Its name in a configuration: that of its entry point, or in the hook ``anywire_register``."""
    options: ClassVar[dict[str, Any]] = {}
    """Its options, as a configuration has them: ``options = {"size": 3}``."""
    plugins: tuple[str, ...] = ()
    """Modules, or paths of ``.py`` files, with the hook that names it, where it is not installed:
    ``plugins = ("my_module",)``."""

    @property
    def spec(self) -> LauncherSpec:
        return LauncherSpec(self.launcher, self.options, list(self.plugins))

    @asynccontextmanager
    async def launching(self) -> AsyncIterator[Launcher]:
        launcher = self.spec.make()
        try:
            yield launcher
        finally:
            await expect(launcher.close(), "close returns", START_PATIENCE)

    async def test_a_process_becomes_ready_and_stops(self) -> None:
        async with self.launching() as launcher:
            process = await launcher.start("agent", config(), "one")
            await expect(process.ready(), "it is ready", START_PATIENCE)
            assert process.name == "one"
            assert process.host
            assert process.restarts == 0
            pid = _pid_here(process)
            await expect(process.stop(), "stop returns", START_PATIENCE)
            assert await expect(process.ended(), "its end is told")
            assert process.pid == 0
            assert pid is None or is_gone(pid)
            await expect(process.stop(), "a second stop returns")

    async def test_one_that_was_prepared_becomes_ready(self) -> None:
        async with self.launching() as launcher:
            for name in ("early", "never"):
                await launcher.prepare("agent", name, ["json", "no_such_module"])
            process = await launcher.start("agent", config(), "early")
            await expect(process.ready(), "it is ready", START_PATIENCE)
            assert process.name == "early"
            assert process.restarts == 0
            pid = _pid_here(process)
        assert pid is None or is_gone(pid)

    async def test_one_that_cannot_start_says_why_and_is_not_started_again(self) -> None:
        async with self.launching() as launcher:
            wrong = config(engine={"name": "synthetic", "no_such_option": 1})
            process = await launcher.start("agent", wrong, "wrong")
            with pytest.raises(LaunchFailed, match="no_such_option"):
                await expect(process.ready(), "it ends", START_PATIENCE)
            assert await expect(process.ended(), "its end is told")
            assert process.restarts == 0
            assert any("no_such_option" in line for line in process.logs())

    async def test_one_that_dies_is_started_again(self) -> None:
        async with self.launching() as launcher:
            changes = Changes()
            process = await launcher.start("agent", config(), "mortal", changes)
            await expect(process.ready(), "it is ready", START_PATIENCE)
            first = _pid_here(process)
            if first is None:
                pytest.skip("its processes have no pid of this machine")
            os.kill(first, signal.SIGKILL)
            await changes.until(lambda: process.restarts == 1 and process.pid not in (0, first), "it runs again")

    async def test_its_log_is_kept_within_bounds(self) -> None:
        async with self.launching() as launcher:
            process = await launcher.start("agent", config(log_level="debug"), "talking")
            await expect(process.ready(), "it is ready", START_PATIENCE)
            await expect(process.stop(), "stop returns", START_PATIENCE)
            assert 0 < len(process.logs()) <= 100

    async def test_close_ends_everything(self) -> None:
        async with self.launching() as launcher:
            processes = [await launcher.start("agent", config(), f"p{number}") for number in range(2)]
            for process in processes:
                await expect(process.ready(), "it is ready", START_PATIENCE)
            pids = [_pid_here(process) for process in processes]
        for process, pid in zip(processes, pids, strict=True):
            assert await expect(process.ended(), "its end is told")
            assert pid is None or is_gone(pid)

    async def test_secrets_are_in_no_arguments_and_no_environment(self) -> None:
        async with self.launching() as launcher:
            process = await launcher.start("agent", config(agent={"specialization": SECRET}), "discreet")
            await expect(process.ready(), "it is ready", START_PATIENCE)
            shown = _shown(_pid_here(process))
            if not shown:
                pytest.skip("nothing of the process can be seen here")
            assert SECRET.encode() not in shown

    async def test_processes_end_when_their_launcher_is_killed(self) -> None:
        command = (sys.executable, "-m", "anywire.testing.launcher_process", msgspec.json.encode(self.spec).decode())
        owner = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        try:
            assert owner.stdout is not None
            pid = int(await expect(owner.stdout.readline(), "the launcher's process tells the pid", START_PATIENCE))
            if not pid or not hasattr(os, "pidfd_open"):
                pytest.skip("its processes cannot be watched from here")
            end = asyncio.Event()
            descriptor = os.pidfd_open(pid)
            asyncio.get_running_loop().add_reader(descriptor, end.set)
            try:
                owner.kill()
                await expect(end.wait(), "the process ends by itself")
            finally:
                asyncio.get_running_loop().remove_reader(descriptor)
                os.close(descriptor)
        finally:
            if owner.returncode is None:
                owner.kill()
            await owner.wait()


def config(**sections: Any) -> Config:
    """The configuration of an agent that needs nothing beside the core."""
    return Config.model_validate({"transports": "memory", "engine": "synthetic", "log_level": "info", **sections})


def is_gone(pid: int) -> bool:
    """Whether no process of that pid runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _shown(pid: int | None) -> bytes:
    """What others on this machine see of a process: its arguments and environment; empty where there is no /proc."""
    try:
        return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
    except OSError:
        return b""


def _pid_here(process: RunningProcess) -> int | None:
    """Its pid, where that names a process of this machine."""
    return process.pid if process.pid and process.host in ("localhost", socket.gethostname()) else None
