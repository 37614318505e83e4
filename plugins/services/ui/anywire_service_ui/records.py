"""Records of experiments in the folders that the settings name: found, and read as what strangers wrote.

A record is a folder with a ``plan.json``. Nothing outside of the named folders is read: symbolic links are not
followed, and a record is asked for by an id that this process gave to what it has found.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

PLAN, RESULTS, REPORT, MANIFEST = "plan.json", "results.json", "report.html", "manifest.json"
MAX_RECORDS = 500
"""Records that are listed, the newest first."""
MAX_FOLDERS = 5_000
"""Folders that are looked into."""
MAX_DEPTH = 3
"""Levels below a named folder at which records are found."""
MAX_RESULTS_BYTES, MAX_REPORT_BYTES = 16 * 1024 * 1024, 32 * 1024 * 1024
MAX_TEXT_CHARS = 2_000
MAX_CAUTIONS = 20


class RecordView(msgspec.Struct, frozen=True, kw_only=True):
    """A record as the page lists it. All texts are those of the record's writer. ``folder`` is its path below the named
    folder, ``changed`` when its plan, report or manifest was written last (Unix time). ``fault`` says why there are no
    results."""

    id: str
    object: str = "record"
    folder: str
    name: str = ""
    question: str = ""
    headline: str = ""
    cautions: tuple[str, ...] = ()
    arms: int = 0
    blocks: int = 0
    sealed: bool = False
    has_report: bool = False
    changed: float = 0.0
    fault: str = ""


class FoundRecord(NamedTuple):
    """``root`` is the folder of the settings in which it lies."""

    id: str
    root: Path
    path: Path
    changed: float


class _Results(msgspec.Struct):
    """Of ``results.json``, what a list shows."""

    name: str = ""
    question: str = ""
    headline: str = ""
    cautions: list[str] = []
    arms: list[str] = []
    blocks: int = 0
    arm_count: int = 0


_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters but for tabs and line ends, and those that turn the direction of a text."""

_decode = msgspec.json.Decoder(_Results).decode
_Stamp = tuple[str, int, int]


class Records:
    """The records below ``folders``. All methods block: one thread calls them."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)
        self._found: dict[str, FoundRecord] = {}
        self._read: dict[_Stamp, _Results] = {}

    def list(self) -> list[RecordView]:
        """Those that are there now, the newest first. A folder that cannot be read has none."""
        found = sorted(self._find(), key=lambda each: each.changed, reverse=True)[:MAX_RECORDS]
        self._found = {each.id: each for each in found}
        before, self._read = self._read, {}
        return [self._view(each, before) for each in found]

    def has_report(self, record_id: str) -> bool:
        """Whether there is a record with this id, and a report in it."""
        found = self._record(record_id)
        return found is not None and _is_file(found.path / REPORT)

    def report(self, record_id: str) -> bytes:
        """The report of a record. Raises OSError, and ValueError for what is no report of a sensible size."""
        found = self._record(record_id)
        if found is None:
            raise ValueError("its record is gone")
        return _read_within(found.root, found.path / REPORT, MAX_REPORT_BYTES)

    def _record(self, record_id: str) -> FoundRecord | None:
        if record_id not in self._found:
            self.list()
        return self._found.get(record_id)

    def _find(self) -> Iterator[FoundRecord]:
        left = MAX_FOLDERS
        for number, root in enumerate(self._folders):
            waiting = [(root, 0)]
            while waiting and left > 0:
                folder, depth = waiting.pop()
                left -= 1
                if _is_file(folder / PLAN):
                    yield _found(number, root, folder)
                elif depth < MAX_DEPTH:
                    waiting += [(each, depth + 1) for each in _folders_in(folder)]

    def _view(self, found: FoundRecord, before: dict[_Stamp, _Results]) -> RecordView:
        relative = found.path.relative_to(found.root)
        folder = str(relative) if relative.parts else found.root.name
        results, fault = _Results(), ""
        try:
            results = self._results(found, before)
        except FileNotFoundError:
            fault = "It has no results yet."
        except (OSError, ValueError) as error:
            fault = f"Its results cannot be read: {error.strerror if isinstance(error, OSError) else error}."
        return RecordView(
            id=found.id,
            folder=_shown(folder),
            name=results.name or _shown(found.path.name),
            question=results.question,
            headline=results.headline,
            cautions=tuple(results.cautions),
            arms=results.arm_count,
            blocks=results.blocks,
            sealed=_is_file(found.path / MANIFEST),
            has_report=_is_file(found.path / REPORT),
            changed=found.changed,
            fault=_shown(fault),
        )

    def _results(self, found: FoundRecord, before: dict[_Stamp, _Results]) -> _Results:
        """Read anew only where the file has changed: it has every figure."""
        path = found.path / RESULTS
        status = path.lstat()
        stamp = (str(path), status.st_mtime_ns, status.st_size)
        known = before.get(stamp)
        if known is None:
            data = _read_within(found.root, path, MAX_RESULTS_BYTES)
            try:
                known = _kept(_decode(data))
            except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                raise ValueError(f"they are no results ({error})") from error
        self._read[stamp] = known
        return known


def _kept(results: _Results) -> _Results:
    """What is kept of results: as much as is shown. Their writer may have filled megabytes with any of it."""
    return _Results(
        name=_shown(results.name),
        question=_shown(results.question),
        headline=_shown(results.headline),
        cautions=[_shown(each) for each in results.cautions[:MAX_CAUTIONS]],
        blocks=results.blocks,
        arm_count=len(results.arms),
    )


def _found(number: int, root: Path, path: Path) -> FoundRecord:
    changed = 0.0
    for name in (PLAN, RESULTS, REPORT, MANIFEST):
        try:
            changed = max(changed, (path / name).lstat().st_mtime)
        except OSError:
            continue
    place = f"{number}/{path.relative_to(root)}".encode(errors="surrogateescape")
    return FoundRecord(hashlib.sha256(place).hexdigest()[:20], root, path, changed)


def _folders_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            found = [
                entry.name
                for _, entry in zip(range(MAX_FOLDERS), entries, strict=False)
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return []
    return [folder / name for name in sorted(found)]


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def _read_within(root: Path, path: Path, limit: int) -> bytes:
    """The content of a file below ``root`` that no symbolic link leads out of. Raises OSError and ValueError."""
    inner = path.parent.resolve(strict=True)
    if not inner.is_relative_to(root.resolve(strict=True)):
        raise ValueError("it lies outside of the folder")
    descriptor = os.open(inner / path.name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it has more than {limit} bytes")
    return data


def _shown(text: str) -> str:
    """A text of bounded length, without what is no character, and without what would turn the text around it."""
    return _HIDDEN.sub("\N{REPLACEMENT CHARACTER}", text[:MAX_TEXT_CHARS].encode(errors="replace").decode())
