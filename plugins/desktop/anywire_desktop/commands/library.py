"""The app's library of models: its file, the folder of the models, and downloads into it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from anywire.errors import ConfigError, InvalidRequest
from anywire_desktop.app_files import MAX_BYTES, AppFiles
from anywire_desktop.call import Command, Events, commands_of
from anywire_desktop.downloads import DEFAULT_REGISTRY, Downloads, Progress, Reference
from anywire_engine_models.local_models import LocalModels
from anywire_engine_models.registry.document import read_document, written_document
from anywire_engine_models.registry.entry import Entry
from anywire_engine_models.registry.entry_json import written_entry
from anywire_engine_models.registry.importers.gguf_folder import import_gguf_folder
from anywire_engine_models.registry.importers.imported import Imported, Remark
from anywire_engine_models.registry.importers.ollama_store import entry_of_manifest, import_ollama_store
from anywire_engine_models.registry.replaced_file import change_file

PROGRESS = "download:progress"


class LibraryCommands:
    def __init__(self, models: LocalModels, files: AppFiles, downloads: Downloads, events: Events) -> None:
        self._models, self._files, self._downloads, self._events = models, files, downloads, events

    def all(self) -> Iterable[Command]:
        return commands_of(
            self.load_model_library,
            self.save_model_library,
            self.parse_model_manifest,
            self.scan_models_directory,
            self.download_model_from_registry,
        )

    async def load_model_library(self) -> dict[str, Any]:
        """The library: ``models``, and ``fault`` with what of the file cannot be used."""
        entries, fault = self._models.entries, self._models.fault
        folder = self._files.library.parent
        told: dict[str, Any] = {"models": [written_entry(each, folder) for each in entries]}
        return {**told, "fault": fault} if fault else told

    async def save_model_library(self, library: dict[str, Any]) -> None:
        """Write the library, ``{"models": […]}``. Members that we do not know are kept, models that run go on."""
        await self._files.work(self._save, library)
        await self._models.reread()

    async def parse_model_manifest(self, model_path: str, models_root: str = "") -> dict[str, Any]:
        """The library entry of a manifest. ``model_path`` is its path, also one below ``models_root/manifests``;
        ``models_root`` is the app's ``modelsDirectory`` where it is not said."""
        root = await self._root(models_root)

        def parse() -> dict[str, Any]:
            path = Path(model_path).expanduser()
            if not path.is_absolute():
                path = root / "manifests" / path
            try:
                entry = entry_of_manifest(path, root)
            except ValueError as error:
                raise InvalidRequest(f"{model_path}: {error}", param="model_path") from error
            except OSError as error:
                raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
            return written_entry(entry, root)

        return await asyncio.to_thread(parse)

    async def scan_models_directory(self, models_root: str = "") -> dict[str, Any]:
        """The models in a folder: of a store as Ollama's, and GGUF files. ``skipped`` says what is left out, and
        why. Nothing is written: give what you want of it to `save_model_library`."""
        root = await self._root(models_root)
        return await asyncio.to_thread(_scan, root)

    async def download_model_from_registry(
        self,
        name: str,
        version: str = "",
        library: str = "library",
        registry: str = DEFAULT_REGISTRY,
        models_root: str = "",
    ) -> dict[str, Any]:
        """Download a model (``smollm2``, ``smollm2:135m``, ``library/smollm2:135m``) and add it to the library; returns
        its entry. The event ``download:progress`` tells ``digest``, ``filename``, ``downloaded`` and ``total`` (0: not
        known) in bytes. A download that broke off goes on from where it was."""
        root = await self._root(models_root)
        reference = Reference.read(registry, library, name, version)

        async def told(progress: Progress) -> None:
            await self._events.emit(PROGRESS, progress)

        manifest = await self._downloads.download(reference, root, told)
        entry = await asyncio.to_thread(entry_of_manifest, manifest, root)
        same = next((each for each in self._models.entries if each.full_identifier == entry.full_identifier), None)
        if same is not None and same.library != entry.library:  # two libraries may have a model of one name
            entry = msgspec.structs.replace(
                entry, full_identifier=f"{entry.provider}:{entry.library}/{entry.name}:{entry.version}"
            )
        elif same is not None:
            entry = msgspec.structs.replace(entry, settings=same.settings)
        await self._models.add(entry, replace=True)
        return written_entry(entry, self._files.library.parent)

    async def _root(self, told: str) -> Path:
        return await self._files.work(self._files.models_folder, told)

    def _save(self, library: dict[str, Any]) -> None:
        folder = self._files.library.parent
        try:
            document = read_document(msgspec.json.encode(library), folder) if "models" in library else None
        except ValueError as error:
            raise InvalidRequest(f"the library is not written: {error}", param="library") from error
        if document is None or document.faults:
            said = "; ".join(document.faults) if document is not None else 'it must be {"models": […]}'
            raise InvalidRequest(f"the library is not written: {said}", param="library")
        try:
            data = written_document(document.entries, document.members, folder)
            change_file(self._files.library, lambda before: data, MAX_BYTES)
        except ValueError as error:
            raise InvalidRequest(f"the library is not written: {error}", param="library") from error
        except OSError as error:
            raise ConfigError(f"{self._files.library} cannot be written: {error.strerror}") from error


def _scan(root: Path) -> dict[str, Any]:
    found = [Imported()]
    if (root / "manifests").is_dir():
        found.append(import_ollama_store(root))
    if root.is_dir():
        with contextlib.suppress(InvalidRequest):  # there is no such file
            found.append(import_gguf_folder(root))
    else:
        raise InvalidRequest(f"{root} is no folder", param="models_root")
    entries: dict[str, Entry] = {}
    skipped: list[Remark] = []
    for each in found:
        for entry in each.entries:
            if entries.setdefault(entry.full_identifier, entry) is not entry:
                skipped.append(
                    Remark(entry.model_file_path, f"its identifier {entry.full_identifier} is there already")
                )
        skipped += each.skipped
    return {
        "models": [written_entry(each, root) for each in entries.values()],
        "skipped": [msgspec.to_builtins(each) for each in skipped],
    }
