"""Whether a log is whole: every line of every file, from the oldest that is kept."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from anywire_service_audit.chain import BEGUN, CLOSED, GENESIS, Record, digest, split
from anywire_service_audit.folder import file_name, is_written, log_files, logs_below

_decode = msgspec.json.Decoder(Record).decode


class Fault(NamedTuple):
    """The first thing that is wrong with a log. ``line`` counts from 1, 0 for a file as a whole."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}{f' line {self.line}' if self.line else ''}: {self.what}"


class Verdict(NamedTuple):
    """What was found in a folder. ``head`` is the hash of the entry ``last_seq``. ``torn`` are the bytes of a last line
    that was cut off, as by a crash. ``is_written`` is whether a process writes it now, ``closed`` whether the last one
    has ended in good order. ``unkeyed`` names the last file whose hashes need no key, empty when all need it. ``has``
    are those of the hashes asked for that were found."""

    folder: Path
    files: int
    first_seq: int
    last_seq: int
    head: str
    torn: int
    closed: bool
    is_written: bool
    unkeyed: str
    has: frozenset[str]
    fault: Fault | None


class _Broken(Exception):
    """What is wrong with a line, or with a file."""


class _Verifier:
    """Follows one log from line to line."""

    def __init__(self, key: bytes, heads: Collection[str]) -> None:
        self._key, self._keyed, self._heads = key, False, heads
        self.first_seq = self.seq = self.removed_to = 0
        self.head, self.action, self.unkeyed = "", "", ""
        self.has: set[str] = set()

    def first_line(self, number: int, body: bytes, record: Record) -> None:
        """Check what joins a file to the one before it."""
        detail = record.detail
        previous, keyed = detail.get("previous"), detail.get("keyed")
        if record.action != BEGUN or detail.get("file") != number:
            raise _Broken(f"this is not the first line of {file_name(number)}")
        if not isinstance(previous, str) or not isinstance(keyed, bool):
            raise _Broken("the first line does not say what is before it")
        if self._keyed and not keyed:
            raise _Broken("its hashes need no key, those before it do")
        if keyed and not self._key:
            raise _Broken("its hashes need a key: name the file with --key")
        self._keyed = keyed
        if not keyed:
            self.unkeyed = file_name(number)
        if not self.head:  # the oldest one there is
            self.head, self.seq = previous, record.seq - 1
            self.first_seq = record.seq
            if number == 1 and (previous != GENESIS or record.seq != 1):
                raise _Broken("the first line of all does not begin the chain")
        elif previous != self.head:
            raise _Broken("it does not follow the end of the file before it")
        removed = detail.get("removed_to", 0)
        if isinstance(removed, int):
            self.removed_to = max(self.removed_to, removed)

    def line(self, number: int, line: int, raw: bytes) -> None:
        """Check the next line of the file ``number``."""
        parts = split(raw)
        if parts is None:
            raise _Broken("this is no line of a log, or it has no hash")
        body, claimed = parts
        try:
            record = _decode(body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise _Broken("this is no line of a log") from error
        if line == 1:
            self.first_line(number, body, record)
        elif record.action == BEGUN:
            raise _Broken("the first line of a file stands within it")
        if record.seq != self.seq + 1:
            raise _Broken(f"this is entry {record.seq}, entry {self.seq + 1} is due")
        if not self._is_hash(body, claimed):
            raise _Broken("its hash is another one: this line, or one before it, was changed, or the key is wrong")
        self.seq, self.head, self.action = record.seq, claimed, record.action
        if claimed in self._heads:
            self.has.add(claimed)

    def torn_line(self, raw: bytes) -> None:
        """Check that a last line without an end is what a crash leaves: the beginning of the next entry."""
        begins = b'{"seq":%d,"time":"' % (self.seq + 1)
        shared = min(len(begins), len(raw))
        parts = split(raw)
        if raw[:shared] != begins[:shared] or (parts is not None and not self._is_hash(*parts)):
            raise _Broken("this line has no end, and is no beginning of the next entry either")

    def _is_hash(self, body: bytes, claimed: str) -> bool:
        return hmac.compare_digest(digest(self._key if self._keyed else b"", self.head, body), claimed)

    def finish(self, first: int) -> None:
        """Check what only the whole log can tell."""
        if first - 1 > self.removed_to:
            raise _Broken(f"{file_name(first - 1)} is missing, and no entry says that it was removed")
        if self._key and not self._keyed:
            raise _Broken("its hashes need no key")


def _verify(folder: Path, key: bytes, heads: Collection[str]) -> Verdict:
    files = log_files(folder)
    found, torn, fault = _Verifier(key, heads), 0, None
    name, at = file_name(1), 0
    try:
        if not files:
            raise _Broken("there is no audit log")
        for index, (number, path) in enumerate(files):
            name, at = path.name, 0
            if index and number != files[index - 1][0] + 1:
                name = file_name(files[index - 1][0] + 1)
                raise _Broken("this file is missing")
            for raw in _lines(path):
                at += 1
                if not raw.endswith(b"\n"):
                    if index < len(files) - 1:
                        raise _Broken("this line is cut off, and the log goes on in another file")
                    found.torn_line(raw)
                    torn = len(raw)
                    break
                found.line(number, at, raw[:-1])
            if not at and index < len(files) - 1:
                raise _Broken("this file is empty")
        name, at = files[0][1].name, 0
        found.finish(files[0][0])
    except _Broken as error:
        fault = Fault(name, at, str(error))
    except OSError as error:
        fault = Fault(name, 0, f"cannot be read: {error.strerror}")
    return Verdict(
        folder,
        len(files),
        found.first_seq,
        found.seq,
        found.head,
        torn,
        found.action == CLOSED,
        is_written(folder),
        found.unkeyed if key else "",
        frozenset(found.has),
        fault,
    )


def verify_below(folder: Path, *, key: bytes = b"", heads: Collection[str] = ()) -> list[Verdict]:
    """Verify the log in a folder, and those that further processes write in it. ``key`` is the one of their hashes.
    ``heads`` are hashes that one of the logs must have, as the orchestrator's own log tells them: they find an end that
    was cut off. There is always one verdict. Raises `ConfigError` when a folder cannot be read."""
    found = [_verify(own, key, heads) for own in logs_below(folder)] or [_verify(folder, key, heads)]
    missing = [head for head in heads if not any(head in verdict.has for verdict in found)]
    if missing and found[0].fault is None:
        what = f"no entry has the hash {missing[0]}: the end was cut off, or it was removed with old files"
        found[0] = found[0]._replace(fault=Fault("the log", 0, what))
    return found


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file
