"""The registry's file as a whole: JSON text to entries and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from anywire.printable import printable
from anywire_engine_models.registry.entry import Entry
from anywire_engine_models.registry.entry_json import read_entry, written_entry

MAX_BYTES = 16 * 1024 * 1024
MAX_MODELS = 1000
"""As many as an agent may offer."""
_MAX_FAULTS = 5
_MODELS = "models"


class Document(msgspec.Struct, frozen=True):
    """What a registry holds. ``members`` are those of the file beside ``models``, written back as they are. ``faults``
    are sentences on what of it cannot be used and is left out: entries at fault, and the second of two with one
    identifier."""

    entries: tuple[Entry, ...] = ()
    members: dict[str, Any] = {}
    faults: tuple[str, ...] = ()


def read_document(data: bytes, folder: Path) -> Document:
    """The document in a file of ``folder``. Raises `ValueError` with a sentence when nothing of it can be used."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is longer than {MAX_BYTES // 2**20} MiB")
    if not data.strip():
        raise ValueError('it is empty; a registry without models is {"models": []}')
    try:
        members = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_members, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8 text (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(members, dict) or not isinstance(members.get(_MODELS), list):
        raise ValueError("it is no registry: it must be an object with the list `models`")
    models = members.pop(_MODELS)
    if len(models) > MAX_MODELS:
        raise ValueError(f"it has {len(models)} models; at most {MAX_MODELS} can be served")
    entries: dict[str, Entry] = {}
    faults = []
    for number, model in enumerate(models):
        try:
            entry = read_entry(model, folder)
        except ValueError as error:
            faults.append(f"models[{number}]: {error}")
            continue
        if entry.full_identifier in entries:
            faults.append(f"models[{number}]: {entry.full_identifier} is there twice")
        else:
            entries[entry.full_identifier] = entry
    if len(faults) > _MAX_FAULTS:
        faults[_MAX_FAULTS:] = [f"and {len(faults) - _MAX_FAULTS} more"]
    return Document(tuple(entries.values()), members, tuple(faults))


def written_document(entries: Sequence[Entry], members: dict[str, Any], folder: Path) -> bytes:
    """The file's text, for `read_document`. Raises `ValueError` when it would be too long."""
    models = [written_entry(entry, folder) for entry in entries]
    whole = {_MODELS: models, **members}
    try:
        data = json.dumps(whole, indent=2, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair in what is not ours
        data = json.dumps(whole, indent=2).encode()
    if len(models) > MAX_MODELS or len(data) >= MAX_BYTES:
        raise ValueError(f"a registry has at most {MAX_MODELS} models and {MAX_BYTES // 2**20} MiB")
    return data + b"\n"


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the member {printable(twice, 100)!r} is twice in one object")
    return members


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")
