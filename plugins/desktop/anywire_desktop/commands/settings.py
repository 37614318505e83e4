"""The settings of the app."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from anywire_desktop.app_files import AppFiles
from anywire_desktop.call import Command, commands_of


class SettingsCommands:
    def __init__(self, files: AppFiles) -> None:
        self._files = files

    def all(self) -> Iterable[Command]:
        return commands_of(self.load_config, self.save_config, self.reset_config, self.get_config_path_string)

    async def load_config(self) -> dict[str, Any]:
        """All settings, those too that were never saved, with their defaults."""
        return await self._files.work(self._files.read_settings)

    async def save_config(self, config: dict[str, Any]) -> dict[str, Any]:
        """Keep settings; those that ``config`` leaves out stay as they are."""
        return await self._files.work(self._files.write_settings, config)

    async def reset_config(self) -> dict[str, Any]:
        return await self._files.work(self._files.reset_settings)

    async def get_config_path_string(self) -> str:
        return str(self._files.settings)
