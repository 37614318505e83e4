"""Commands to an agent's models.

| command | arguments | results |
|---|---|---|
| ``models.list`` | | pieces of ``models``, each with ``memory``, ``devices`` and ``registry`` |
| ``models.status`` | ``model`` | one status |
| ``models.start`` | ``model`` | the status at each change, last that of the running model |
| ``models.stop``, ``models.unload`` | ``model`` | one status; ``unload`` takes nothing from anybody |
| ``models.logs`` | ``model``, ``lines`` (100), ``follow``, ``after`` | see `log_results.log_result` |
| ``models.pin`` | ``model``, ``pinned`` (true) | one status; ``kept``: whether the registry has it too |
| ``models.add`` | members of a registry's entry | one status |
| ``models.import`` | ``kind`` (``gguf``, ``ollama``, ``llama-swap``), ``path`` | pieces of lists, see below |

An import tells what is ``added``, what was ``present`` before, what is ``skipped`` and why, and ``notes``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

import msgspec

from anywire.errors import AnywireError, InvalidRequest, UnknownCommand
from anywire_engine_models.catalogue import Catalogue
from anywire_engine_models.config import ModelsConfig
from anywire_engine_models.host.actor import ModelHost
from anywire_engine_models.host.status import ModelChanged, ModelStatus
from anywire_engine_models.hosted_models import known_model
from anywire_engine_models.log_results import MAX_ID_CHARS, log_result
from anywire_engine_models.model_files.file_names import name_parts
from anywire_engine_models.offers import told
from anywire_engine_models.registry.entry import Entry, EntrySettings
from anywire_engine_models.registry.entry_json import read_entry
from anywire_engine_models.registry.importers import import_models

PIECE_BYTES = 56 * 1024
"""Bytes of the models in one result, which may have 64 KiB."""
LAST_LINES = 8 * 1024
"""Bytes of a crashed model's last lines in a status."""
MAX_UNREAD = 64
"""Changes of a starting model that wait to be told; of those within a state the newest counts."""

A = TypeVar("A", bound=msgspec.Struct)
_encode = msgspec.json.Encoder().encode


class _Model(msgspec.Struct, forbid_unknown_fields=True):
    model: str


class _Logs(_Model, forbid_unknown_fields=True):
    lines: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 100
    follow: bool = False
    after: Annotated[str, msgspec.Meta(max_length=MAX_ID_CHARS)] = ""


class _Pin(_Model, forbid_unknown_fields=True):
    pinned: bool = True


class _Import(msgspec.Struct, forbid_unknown_fields=True):
    kind: Literal["gguf", "ollama", "llama-swap"]
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class Listed(Protocol):
    """The machine's devices, as `anywire_engine_models.devices.machine.MachineDevices` has them."""

    def list(self) -> Sequence[Any]: ...


Carry = Callable[[Mapping[str, Any]], AsyncIterator[Any]]


class ModelCommands:
    """Carries commands out. ``add_commands``: whether an entry that is added may say what this machine runs."""

    def __init__(self, host: ModelHost, catalogue: Catalogue, devices: Listed, *, add_commands: bool) -> None:
        self._host, self._catalogue, self._devices = host, catalogue, devices
        self._add_commands = add_commands
        self._carriers: dict[str, Carry] = {
            "models.list": self._list,
            "models.status": self._status,
            "models.start": self._start,
            "models.stop": self._stop,
            "models.unload": self._unload,
            "models.logs": self._logs,
            "models.pin": self._pin,
            "models.add": self._add,
            "models.import": self._import,
        }

    def carry_out(self, name: str, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        """The results of a command. Raises `UnknownCommand` at once."""
        carry = self._carriers.get(name)
        if carry is None:
            raise UnknownCommand(
                f"an agent of the engine models has no command {name!r}; it has {', '.join(self._carriers)}"
            )
        return carry(arguments)

    def told(self, status: ModelStatus) -> dict[str, Any]:
        """A status as results have it."""
        return bounded(told(status, self._catalogue.as_it_is(status)))

    async def _list(self, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        registry = self._catalogue.registry
        about = {
            "memory": msgspec.to_builtins(self._host.memory()),
            "devices": [msgspec.to_builtins(each) for each in self._devices.list()],
            "registry": {"path": str(registry.path), "fault": self._catalogue.fault},
        }
        room = PIECE_BYTES - len(_encode(about))
        for models in pieces([self.told(status) for status in self._host.statuses()], room):
            yield {"models": models, **about}

    async def _status(self, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        yield self.told(self._host.status(read(arguments, _Model).model))

    async def _start(self, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        name = read(arguments, _Model).model
        self._host.status(name)
        last: ModelStatus | None = None
        async with aclosing(self._changes_while(name, self._host.start(name))) as changes:
            async for status in changes:
                if status != last:
                    last = status
                    yield self.told(status)

    async def _stop(self, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        yield self.told(await self._host.stop(read(arguments, _Model).model))

    async def _unload(self, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        yield self.told(await self._host.unload(read(arguments, _Model).model))

    async def _logs(self, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        asked = read(arguments, _Logs)
        logged = self._host.logs(asked.model, lines=asked.lines, follow=asked.follow, after=asked.after)
        async with aclosing(logged):
            async for each in logged:
                yield log_result(each)

    async def _pin(self, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        asked = read(arguments, _Pin)
        status = await self._host.pin(asked.model, asked.pinned)
        kept: dict[str, Any] = {"kept": True}
        try:
            await self._catalogue.registry.update(asked.model, EntrySettings(pinned=asked.pinned))
        except AnywireError as error:  # it holds until the agent ends
            kept = {"kept": False, "why": str(error)}
        yield self.told(status) | kept

    async def _add(self, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        registry = self._catalogue.registry
        entry = read_new(arguments, registry.path.parent)
        self._check_commands((entry,))
        if self._catalogue.config.model:
            raise InvalidRequest(f"this agent offers {self._catalogue.config.model} alone (engine.model)")
        await asyncio.to_thread(check_new, entry, self._catalogue.config)
        await registry.add(entry)
        await self._catalogue.settled()
        yield self.told(self._host.status(entry.full_identifier))

    async def _import(self, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        asked = read(arguments, _Import)
        found = await asyncio.to_thread(import_models, asked.kind, Path(asked.path))
        self._check_commands(found.entries)
        new = await self._catalogue.registry.add_new(found.entries)
        await self._catalogue.settled()
        added = [each.full_identifier for each in new]
        for name, told_of in (
            ("added", added),
            ("present", [each.full_identifier for each in found.entries if each.full_identifier not in added]),
            ("skipped", [msgspec.to_builtins(each) for each in found.skipped]),
            ("notes", [msgspec.to_builtins(each) for each in found.notes]),
        ):
            for piece in pieces(told_of, PIECE_BYTES):
                yield {name: piece}

    def _check_commands(self, entries: Sequence[Entry]) -> None:
        """Raises `InvalidRequest` where an entry says what is to be run, and that is for this machine's user to say."""
        for entry in entries:
            if not self._add_commands and (entry.settings.command or entry.settings.environment):
                raise InvalidRequest(
                    f"{entry.full_identifier} has a command or an environment of its own, and this agent takes none "
                    "by commands: write it into the registry file on its machine, or set engine.add_commands there",
                    param="settings",
                )

    async def _changes_while(self, name: str, doing: Awaitable[ModelStatus]) -> AsyncGenerator[ModelStatus, None]:
        """The changes of a model until ``doing`` has ended, and what that gives. Raises what it raises."""
        news, unread = asyncio.Event(), deque[ModelStatus](maxlen=MAX_UNREAD)

        def changed(change: ModelChanged) -> None:
            if change.status.model != name:
                return
            if unread and unread[-1].state == change.status.state:
                unread.pop()
            unread.append(change.status)
            news.set()

        done = asyncio.ensure_future(doing)
        done.add_done_callback(lambda _: news.set())
        unlisten = self._host.listen(changed)
        try:
            while not done.done() or unread:
                while unread:
                    yield unread.popleft()
                news.clear()
                if not done.done():
                    await news.wait()
            yield done.result()
        finally:
            unlisten()
            if not done.done():
                done.cancel()
                await asyncio.wait({done})


def read(arguments: Mapping[str, Any], form: type[A]) -> A:
    """The arguments in their form. Raises `InvalidRequest` with what is wrong."""
    try:
        return msgspec.convert(dict(arguments), form)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the arguments are not as they must be: {error}", param="arguments") from error


def read_new(members: Mapping[str, Any], folder: Path) -> Entry:
    """The entry that ``models.add`` adds to a registry in ``folder``. Raises `InvalidRequest`."""
    try:
        return read_entry(with_defaults(members), folder)
    except ValueError as error:
        raise InvalidRequest(f"this is no model: {error}") from error


def check_new(entry: Entry, config: ModelsConfig) -> None:
    """Raise `InvalidRequest` for an entry whose file is not whole, or whose settings cannot work. Blocks."""
    try:
        known = known_model(entry, config)
    except ValueError as error:
        raise InvalidRequest(f"this is no model: {error}", param="settings") from error
    if known.fault:
        raise InvalidRequest(known.fault, param="model_file_path")


def with_defaults(members: Mapping[str, Any]) -> dict[str, Any]:
    """An entry's members with those that it may lack: a file is enough, whose name says the rest as for an import."""
    path = members.get("model_file_path")
    given = {name: value for name, value in members.items() if value is not None}
    named = {"provider": "local", "library": "library", "version": "latest"} | given
    if isinstance(path, str) and path:
        parts = name_parts(Path(path).name)
        named = {"name": parts.name} | named
        if parts.quantization and "version" not in given:
            named["version"] = parts.quantization
    if {"name", "provider", "version"} <= named.keys():
        named.setdefault("full_identifier", f"{named['provider']}:{named['name']}:{named['version']}")
    return named


def pieces(whole: Sequence[Any], room: int) -> Iterator[list[Any]]:
    """Lists whose JSON has at most ``room`` bytes each, at least one; a single member may have more."""
    piece: list[Any] = []
    size = 0
    for each in whole:
        bytes_ = len(_encode(each)) + 1
        if piece and size + bytes_ > room:
            yield piece
            piece, size = [], 0
        piece.append(each)
        size += bytes_
    yield piece


def bounded(status: dict[str, Any]) -> dict[str, Any]:
    """A status whose last lines fit into a result: the oldest ones go first."""
    lines = status.get("exit", {}).get("lines")
    if not lines:
        return status
    kept, size = deque[str](), 0
    for line in reversed(lines):
        size += len(_encode(line))
        if size > LAST_LINES:
            break
        kept.appendleft(line)
    return status | {"exit": status["exit"] | {"lines": list(kept)}}
