"""Answers in a file: what was asked, and what an engine gave. The engine `recording` writes them, `recorded` gives them
again.

A file has a JSON object on each line. The first one says which form it has. The others are an answer each; see
`RecordedAnswer`. Files are text, meant to be read, compared, changed by hand and kept beside the tests that need them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from anywire.canonical_body import canonical_members, canonical_text
from anywire.errors import ConfigError
from anywire.secrecy import tree_without_secrets

FORM = 1
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
MAX_FILE_BYTES = 256 * 1024 * 1024
"""Bytes of the longest file that is read."""

_line = msgspec.json.Encoder(order="deterministic").encode


class RecordedDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """As `anywire.engine.Delta`; ``after_ms`` is how long after the beginning of the answer it came."""

    text: str = ""
    extra: str = ""
    finish_reason: str = ""
    usage: str = ""
    after_ms: float = 0.0


class RecordedAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """``request`` are the members of the request that its answer depends on, without known secrets; ``stream`` says
    whether it was streamed, which matters where it is more than text."""

    kind: str
    model: str
    request: dict[str, Any]
    deltas: tuple[RecordedDelta, ...]
    stream: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it is text alone, and so the same streamed and whole."""
        return not any(each.extra for each in self.deltas)

    @property
    def text(self) -> str:
        return "".join([each.text for each in self.deltas])


class _Head(msgspec.Struct):
    anywire_answers: int


HEAD = _line(_Head(FORM))
_decode_head = msgspec.json.Decoder(_Head).decode
_decode = msgspec.json.Decoder(RecordedAnswer).decode


def request_of(body: str) -> dict[str, Any] | None:
    """What of ``body`` is recorded and looked for; None for what is no JSON object, or too long."""
    members = canonical_members(body)
    if members is None:
        return None
    found: dict[str, Any] = tree_without_secrets(members)
    return found


def key_of(kind: str, model: str, request: dict[str, Any]) -> tuple[str, str, bytes]:
    """The same for requests that ask for the same."""
    return kind, model, canonical_text(request) or b""


def read_answers(path: Path) -> list[RecordedAnswer]:
    """The answers in a file, in its order. Raises `ConfigError` that names the line at fault."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path} has more than {MAX_FILE_BYTES} bytes")
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"the recorded answers cannot be read: {error}") from error
    return list(_answers(path, lines))


def _answers(path: Path, lines: list[bytes]) -> Iterator[RecordedAnswer]:
    number, begun = 0, False
    try:
        for line in lines:
            number += 1
            if not line.strip():
                continue
            if begun:
                if line != HEAD:  # two writers may both have begun the file
                    yield _decode(line)
                continue
            begun = True
            form = _decode_head(line).anywire_answers
            if form != FORM:
                raise ConfigError(f"{path} has the form {form}, this version reads {FORM}")
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ConfigError(f"{path}, line {number}: {error}; `anywire answers record` writes such files") from error
    if not begun:
        raise ConfigError(f"{path} is empty; `anywire answers record` writes such files")


class AnswerFile:
    """A file that answers are added to. It is made, for this user alone, with the first one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, answer: RecordedAnswer) -> None:
        """Raises OSError, and leaves nothing of the answer then. Lines of several writers are whole, also after a last
        line that somebody has left without its end."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _FLAGS, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            _write(descriptor, size, _before(descriptor, size) + _line(answer) + b"\n")
        finally:
            os.close(descriptor)


def _before(descriptor: int, size: int) -> bytes:
    """What a file of so many bytes needs before its next answer."""
    if not size:
        return HEAD + b"\n"
    os.lseek(descriptor, -1, os.SEEK_END)
    return b"" if os.read(descriptor, 1) == b"\n" else b"\n"


def _write(descriptor: int, size: int, data: bytes) -> None:
    """Add ``data`` to a file of so many bytes: all of it, or nothing where that fails. Raises OSError."""
    written = 0
    try:
        while written < len(data):
            written += os.write(descriptor, data[written:])
    except OSError:
        with contextlib.suppress(OSError):
            if written and os.fstat(descriptor).st_size == size + written:
                os.ftruncate(descriptor, size)
        raise
