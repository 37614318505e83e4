"""What an import has found."""

from __future__ import annotations

from pathlib import Path

import msgspec

from anywire.printable import printable
from anywire_engine_models.registry.entry import Entry
from anywire_engine_models.registry.entry_json import read_entry, written_entry

MAX_REMARKS = 1000
_MAX_TEXT = 1000


class Remark(msgspec.Struct, frozen=True):
    """``about`` is a path or a name in what was imported, ``text`` a sentence for a person."""

    about: str
    text: str


class Imported(msgspec.Struct, frozen=True):
    """``entries`` are new models. ``skipped`` says of what else was found why it is none. ``notes`` say what of an
    entry's origin is not carried over."""

    entries: tuple[Entry, ...] = ()
    skipped: tuple[Remark, ...] = ()
    notes: tuple[Remark, ...] = ()


class Report:
    """Collects an `Imported`: entries that a registry can hold, each identifier once, and at most `MAX_REMARKS` remarks
    of each sort."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._skipped: list[Remark] = []
        self._notes: list[Remark] = []

    def add(self, entry: Entry, about: str) -> bool:
        """Whether it is taken; if not, it is skipped with the reason."""
        try:
            read_entry(written_entry(entry, Path("/")), Path("/"))
        except ValueError as error:
            self.skip(about, str(error))
            return False
        if not entry.model_file_path.isprintable():
            self.skip(about, "its path is not printable: rename it")
            return False
        other = self._entries.setdefault(entry.full_identifier, entry)
        if other is not entry:
            where = other.model_file_path or "another one"
            self.skip(about, f"its identifier {entry.full_identifier} is that of {where}")
        return other is entry

    def skip(self, about: str, text: str) -> None:
        _append(self._skipped, about, text)

    def note(self, about: str, text: str) -> None:
        _append(self._notes, about, text)

    def imported(self) -> Imported:
        return Imported(tuple(self._entries.values()), tuple(self._skipped), tuple(self._notes))


def _append(remarks: list[Remark], about: str, text: str) -> None:
    if len(remarks) < MAX_REMARKS:
        remarks.append(Remark(printable(about, _MAX_TEXT), printable(text, _MAX_TEXT)))
    elif len(remarks) == MAX_REMARKS:
        remarks.append(Remark("", "and more"))
