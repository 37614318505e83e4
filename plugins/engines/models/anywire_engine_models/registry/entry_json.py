"""A registry's entry as JSON: read with every member checked, written with what nobody here knows kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from anywire.near import nearest
from anywire.printable import printable
from anywire.sizes import read_size
from anywire_engine_models.registry.entry import MAX_NAME, Entry, EntrySettings, Manifest
from anywire_engine_models.registry.model_paths import absolute, in_store

_REQUIRED = ("full_identifier", "provider", "library", "name", "version")
_PATHS = ("model_file_path", "manifest_path")
_MAX_PATH = 4096
T = TypeVar("T")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_entry(members: object, folder: Path) -> Entry:
    """The entry of a JSON object. Paths in it are relative to ``folder``. Raises `ValueError` with a sentence that
    names the member at fault."""
    if not isinstance(members, dict):
        raise ValueError("it is no object")
    texts = {name: _text(members, name) for name in _REQUIRED}
    identifier = texts["full_identifier"]
    if not identifier or identifier != identifier.strip() or not identifier.isprintable():
        raise ValueError("`full_identifier` must be printable text without spaces at its ends")
    member = "manifest_data" if members.get("manifest_data") is not None else "manifest"
    manifest = _converted(members, member, Manifest)
    model_path, manifest_path = (absolute(_path(members, name), folder) for name in _PATHS)
    settings = _settings(members.get("settings"))
    return Entry(
        **texts,
        manifest=manifest,
        model_file_path=model_path or in_store(manifest, manifest_path),
        manifest_path=manifest_path,
        settings=settings,
        members=members,
    )


def written_entry(entry: Entry, folder: Path) -> dict[str, Any]:
    """The JSON object of an entry: its members as they were read, but for what is another value now."""
    members = dict(entry.members)
    try:
        before = read_entry(members, folder)
    except ValueError:
        before = None
        members.setdefault("tokenizer_metadata", None)
    for name in _REQUIRED:
        if before is None or getattr(before, name) != getattr(entry, name):
            members[name] = getattr(entry, name)
    for name in _PATHS:
        if before is None or getattr(before, name) != getattr(entry, name):
            members[name] = getattr(entry, name) or None
    if before is None or before.manifest != entry.manifest:
        members.pop("manifest", None)
        members["manifest_data"] = msgspec.to_builtins(entry.manifest)
    if (before.settings if before is not None else EntrySettings()) != entry.settings:
        members["settings"] = msgspec.to_builtins(entry.settings)
    return members


def changed_settings(before: EntrySettings, changes: EntrySettings) -> EntrySettings:
    """``before``, with everything that ``changes`` names."""
    named = {name: value for name in changes.__struct_fields__ if (value := getattr(changes, name)) is not None}
    return msgspec.structs.replace(before, **named)


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if value is None:
        raise ValueError(f"`{name}` is missing")
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise ValueError(f"`{name}` must be text of at most {MAX_NAME} characters")
    return value


def _path(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _MAX_PATH or "\0" in value:
        raise ValueError(f"`{name}` must be a path")
    return value


def _converted(members: Mapping[str, Any], name: str, form: type[T]) -> T | None:
    value = members.get(name)
    if value is None:
        return None
    try:
        return msgspec.convert(value, form)
    except msgspec.ValidationError as error:
        raise ValueError(f"`{name}`: {printable(str(error), 300)}") from error


def _settings(value: object) -> EntrySettings:
    if isinstance(value, dict):
        known = EntrySettings.__struct_fields__
        for name in value:
            if name not in known:
                near = nearest(str(name), known)
                hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"
                raise ValueError(f"`settings` has {printable(str(name), 100)!r}, which is none: {hint}")
        if isinstance(size := value.get("memory_bytes"), str):
            value = value | {"memory_bytes": _size(size)}
    settings = _converted({"settings": value}, "settings", EntrySettings) or EntrySettings()
    _check(settings)
    return settings


def _size(text: str) -> object:
    try:
        return read_size(text)
    except ValueError as error:
        raise ValueError(f"`settings`: `memory_bytes`: {error}") from None


def _check(settings: EntrySettings) -> None:
    for name, value in (settings.environment or {}).items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise ValueError(f"`settings`: {printable(name, 100)!r} is no environment variable")
    if settings.command is not None and (not settings.command[0] or any("\0" in each for each in settings.command)):
        raise ValueError("`settings`: `command` must begin with a program")
    for name in ("group", "served_name"):
        if not (getattr(settings, name) or "").isprintable():
            raise ValueError(f"`settings`: `{name}` must be printable")
