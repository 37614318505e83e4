"""A registry file without an agent: what can be done of ``anywire models`` when nothing runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from anywire.errors import UnknownCommand
from anywire_engine_models.cli.places import Models, path_here
from anywire_engine_models.commands import check_new, read_new
from anywire_engine_models.config import ModelsConfig
from anywire_engine_models.registry.entry import Entry, EntrySettings
from anywire_engine_models.registry.file import DEFAULT, Registry
from anywire_engine_models.registry.importers import import_models

Answer = TypeVar("Answer")


class RegistryAlone:
    """``seeded``: while there is no such file, the registry that comes with Anywire counts."""

    def __init__(self, path: Path, *, seeded: bool = False) -> None:
        self._registry = Registry(path, seed=DEFAULT if seeded else None)

    def ask(self, work: Callable[[Models], Awaitable[Answer]]) -> Answer:
        # What is wrong with the file is an error of the command, or told with the list.
        logging.getLogger("anywire_engine_models.registry").setLevel(logging.ERROR)

        async def ask() -> Answer:
            await self._registry.read()
            return await work(self)

        return asyncio.run(ask())

    def path_of(self, text: str) -> str:
        return path_here(text)

    def command(self, name: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """As the engine's, for those that need no process. Raises `UnknownCommand`."""
        match name:
            case "models.list":
                return self._list()
            case "models.add":
                return self._add(arguments)
            case "models.import":
                return self._import(arguments["kind"], Path(arguments["path"]))
            case "models.pin":
                return self._pin(arguments["model"], arguments["pinned"])
        raise UnknownCommand(f"{name} needs an agent")

    async def _list(self) -> AsyncGenerator[Any, None]:
        registry = self._registry
        models = [_status(each) for each in registry.entries]
        yield {"models": models, "registry": {"path": str(registry.path), "fault": registry.fault}}

    async def _add(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        entry = read_new(arguments, self._registry.path.parent)
        await asyncio.to_thread(check_new, entry, ModelsConfig())
        await self._registry.add(entry)
        yield _status(entry)

    async def _import(self, kind: str, path: Path) -> AsyncGenerator[Any, None]:
        found = await asyncio.to_thread(import_models, kind, path)
        new = await self._registry.add_new(found.entries)
        added = [each.full_identifier for each in new]
        yield {
            "added": added,
            "present": [each.full_identifier for each in found.entries if each.full_identifier not in added],
            "skipped": [msgspec.to_builtins(each) for each in found.skipped],
            "notes": [msgspec.to_builtins(each) for each in found.notes],
        }

    async def _pin(self, model: str, pinned: bool) -> AsyncGenerator[Any, None]:
        yield _status(await self._registry.update(model, EntrySettings(pinned=pinned)))


def _status(entry: Entry) -> dict[str, Any]:
    """What the file says of a model, in the form of a status."""
    settings = entry.settings
    return {
        "model": entry.full_identifier,
        "state": "stopped",
        "pinned": settings.pinned is True,
        "on_demand": settings.on_demand is True,
        "group": settings.group or "",
        "memory_bytes": settings.memory_bytes or 0,
        "file": entry.model_file_path,
    }
