"""The registry: which models there are, by a JSON file that is read again when it changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from anywire.errors import ConfigError, InvalidRequest, ModelNotFound
from anywire.files.watched_files import WatchedFiles
from anywire.printable import printable
from anywire_engine_models.registry.document import MAX_BYTES, Document, read_document, written_document
from anywire_engine_models.registry.entry import Entry, EntrySettings
from anywire_engine_models.registry.entry_json import changed_settings, read_entry, written_entry
from anywire_engine_models.registry.model_paths import expanded
from anywire_engine_models.registry.replaced_file import change_file, read_file

log = logging.getLogger(__name__)

DEFAULT = Path(__file__).with_name("default.json")
"""The registry that comes with Anywire."""

_MAX_FAULT = 2000
_MISSING = "it is not there"
_Edit = Callable[[tuple[Entry, ...]], tuple[Entry, ...]]


class Registry:
    """The models of the file ``path``.

    ``seed`` is another registry, never written: it counts while there is no file at ``path``, and the first change
    begins ``path`` with it. Relative paths in a registry are relative to its folder.

    A file that cannot be used any more changes nothing: the models that were read last count, and `fault` says what is
    wrong. When it is so from the beginning, what can be used of it counts.

    Use it on one event loop: `start`, then the properties and changes, then `close`. A program that only looks or
    changes once calls `read` in the place of `start`, and needs no `close`.
    """

    def __init__(self, path: Path, *, seed: Path | None = None) -> None:
        self.path = expanded(path).absolute()
        self._seed = seed
        self._document, self._fault = Document(), ""
        self._seen = False  # the file itself was read once
        self._begun = self._taken = 0  # numbers of readings: an older one never replaces a newer one
        self._changed: Callable[[], None] | None = None
        self._watched: WatchedFiles | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The models that count, in the file's order."""
        return self._document.entries

    @property
    def fault(self) -> str:
        """What is wrong with the file as it is now, in a sentence that says which models count; empty when all of it
        counts."""
        return self._fault

    def find(self, full_identifier: str) -> Entry:
        """The model of that identifier. Raises `ModelNotFound`."""
        return self._found(self.entries, full_identifier)

    async def start(self, changed: Callable[[], None]) -> None:
        """Read the file, and read it again whenever it changes. ``changed`` is called on the event loop after each
        reading that changed `entries` or `fault`, not after the first. Raises nothing: see `fault`."""
        self._watched = WatchedFiles([self.path], self._read_again)
        await self.read()
        self._changed = changed
        self._watched.start()

    async def read(self) -> None:
        """Read the file now. Raises nothing: see `fault`."""
        self._begun += 1
        number = self._begun
        found = await asyncio.to_thread(_read, self.path, None if self._seen else self._seed)
        if number > self._taken:
            self._taken = number
            self._take(found)

    async def close(self) -> None:
        """Read no more; ``changed`` is not called any more. Idempotent."""
        self._changed = None
        watched, self._watched = self._watched, None
        if watched is not None:
            await watched.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def add(self, entry: Entry, *, replace: bool = False) -> None:
        """Write a further model into the file. With ``replace`` it takes the place of the one with its identifier; else
        that raises `InvalidRequest`. Raises `ConfigError` when the file cannot be read or written; it is as before
        then."""

        def edit(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
            if all(each.full_identifier != entry.full_identifier for each in entries):
                return (*entries, entry)
            if not replace:
                raise InvalidRequest(f"{entry.full_identifier} is in the registry already", param="full_identifier")
            return tuple(entry if each.full_identifier == entry.full_identifier else each for each in entries)

        await self._change(edit)

    async def add_new(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """Write those of ``entries`` into the file whose identifiers are not there yet, in one change; return them.
        Raises as `add`."""
        new: tuple[Entry, ...] = ()

        def edit(there: tuple[Entry, ...]) -> tuple[Entry, ...]:
            nonlocal new
            known = {each.full_identifier for each in there}
            found = {each.full_identifier: each for each in reversed(entries) if each.full_identifier not in known}
            new = tuple(reversed(found.values()))
            return (*there, *new)

        await self._change(edit)
        return new

    async def update(self, full_identifier: str, settings: EntrySettings) -> Entry:
        """Change those settings of a model that are named (not None) in ``settings``; return the model. Raises
        `ModelNotFound`, else as `add`."""
        changed: list[Entry] = []

        def edit(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
            before = self._found(entries, full_identifier)
            after = msgspec.structs.replace(before, settings=changed_settings(before.settings, settings))
            changed[:] = [after]
            return tuple(after if each is before else each for each in entries)

        await self._change(edit)
        folder = self.path.parent
        return read_entry(written_entry(changed[0], folder), folder)

    async def remove(self, full_identifier: str) -> None:
        """Take a model out of the file; its weights stay. Raises `ModelNotFound`, else as `add`."""

        def edit(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
            removed = self._found(entries, full_identifier)
            return tuple(each for each in entries if each is not removed)

        await self._change(edit)

    def _found(self, entries: tuple[Entry, ...], full_identifier: str) -> Entry:
        for entry in entries:
            if entry.full_identifier == full_identifier:
                return entry
        raise ModelNotFound(f"{printable(full_identifier, 256)!r} is not in the registry {self.path}")

    async def _change(self, edit: _Edit) -> None:
        await asyncio.to_thread(_write, self.path, self._seed, edit)
        await self.read()

    def _read_again(self) -> None:
        task = asyncio.ensure_future(self.read())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self, found: _Found) -> None:
        """Let what was read count, if it is right or nothing was read before."""
        document, kept = self._document, bool(self._document.entries)
        if found.document is not None and not (found.fault and kept):
            document, kept = found.document, False
        self._seen = self._seen or found.of_file
        fault = ""
        if found.fault:
            counts = "the models that were read last count" if kept else f"{len(document.entries) or 'no'} models count"
            if found.fault == _MISSING and not kept:
                counts += "; `anywire models add` begins it"
            fault = printable(f"the registry {self.path}: {found.fault}; {counts}", _MAX_FAULT)
        if (document, fault) == (self._document, self._fault):
            return
        if not fault:
            log.info("the registry %s has %d models", self.path, len(document.entries))
        elif fault != self._fault:
            log.warning("%s", fault)
        self._document, self._fault = document, fault
        if self._changed is not None:
            try:
                self._changed()
            except Exception:
                log.exception("a change of the registry %s is not heeded", self.path)


class _Found(msgspec.Struct, frozen=True):
    """What a reading has found: a document, a fault, or both when a part of it cannot be used. ``of_file``: and not of
    the seed."""

    document: Document | None = None
    fault: str = ""
    of_file: bool = True


def _read(path: Path, seed: Path | None) -> _Found:
    """What is at ``path``, or while there is nothing at ``seed``."""
    try:
        document = read_document(read_file(path, MAX_BYTES), path.parent)
        return _Found(document, "; ".join(document.faults))
    except FileNotFoundError:
        if seed is None:
            return _Found(fault=_MISSING, of_file=False)
    except OSError as error:
        return _Found(fault=f"it cannot be read: {error.strerror}", of_file=False)
    except ValueError as error:
        return _Found(fault=str(error))
    try:
        return _Found(_seeded(seed), of_file=False)
    except ValueError as error:
        return _Found(fault=str(error), of_file=False)


def _write(path: Path, seed: Path | None, edit: _Edit) -> None:
    """Change the file at ``path``, or begin it with what ``seed`` holds."""

    def change(data: bytes | None) -> bytes:
        try:
            if data is not None:
                before = read_document(data, path.parent)
            else:
                before = Document() if seed is None else _seeded(seed)
            if before.faults:
                raise ValueError("; ".join(before.faults))
            entries = edit(before.entries)
            if data is not None and entries == before.entries:
                return data
            after = written_document(entries, before.members, path.parent)
            if faults := read_document(after, path.parent).faults:
                raise ValueError("; ".join(faults))
        except ValueError as error:
            raise ConfigError(f"the registry {path} is not changed: {printable(str(error), _MAX_FAULT)}") from error
        return after

    try:
        change_file(path, change, MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"the registry {path} cannot be written: {error.strerror}") from error


def _seeded(seed: Path) -> Document:
    """What a registry that comes with something else holds. Raises `ValueError`."""
    try:
        document = read_document(read_file(seed, MAX_BYTES), seed.absolute().parent)
    except OSError as error:
        raise ValueError(f"{seed} cannot be read: {error.strerror}") from error
    if document.faults:
        raise ValueError(f"{seed}: {'; '.join(document.faults)}")
    return document
