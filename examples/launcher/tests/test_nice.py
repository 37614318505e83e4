"""The conformance kit, and what this launcher is for."""

import os
from typing import Any, ClassVar

import pytest

from anywire.errors import ConfigError
from anywire.plugins import Plugins
from anywire.testing.launcher_kit import LauncherConformance, config
from anywire.testing.patience import START_PATIENCE, expect


class TestNice(LauncherConformance):
    launcher = "nice"
    options: ClassVar[dict[str, Any]] = {"niceness": 7}

    async def test_its_processes_are_nice(self) -> None:
        async with self.launching() as launcher:
            process = await launcher.start("agent", config(), "polite")
            await expect(process.ready(), "it is ready", START_PATIENCE)
            assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 7)


def test_a_niceness_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"launcher\.niceness"):
        Plugins().create("launchers", "nice", {"niceness": 20})


def test_without_the_command_nice_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    launcher = Plugins().create("launchers", "nice", {})
    with pytest.raises(ConfigError, match="nice, which is not on the PATH"):
        launcher.command("agent", "a")
