"""An example of a launcher: agents that leave the processor to others."""

from __future__ import annotations

import shutil
from typing import ClassVar

import pydantic

from anywire.builtin.local import LocalLauncher
from anywire.errors import ConfigError
from anywire.launcher import LauncherConfig, RoleName


class NiceConfig(LauncherConfig):
    niceness: int = pydantic.Field(default=10, ge=0, le=19, description="Niceness of the processes, 19 is the lowest.")


class NiceLauncher(LocalLauncher):
    name: ClassVar[str] = "nice"
    Config = NiceConfig
    config: NiceConfig

    def command(self, role: RoleName, name: str) -> list[str]:
        nice = shutil.which("nice")
        if nice is None:
            raise ConfigError("the launcher nice needs the command nice, which is not on the PATH (package coreutils)")
        return [nice, "-n", str(self.config.niceness), *super().command(role, name)]
