"""The documents of a folder, and the passages that they are made of. All of it waits for the disk."""

from __future__ import annotations

import fnmatch
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

_PARAGRAPHS = re.compile(r"\n[ \t]*\n")
_SENTENCES = re.compile(r"(?<=[.!?])\s+")


class Passage(NamedTuple):
    """``source`` is the document's path in the folder, ``line`` the first line of the passage in it."""

    source: str
    line: int
    text: str


class Library(NamedTuple):
    """``left_out`` are documents that were not read: they would be too many, too long, or cannot be read."""

    documents: int
    passages: tuple[Passage, ...]
    left_out: int


def read_library(folder: Path, names: Sequence[str], max_files: int, max_bytes: int, passage_chars: int) -> Library:
    """Read the documents of ``folder``. Hidden files and folders, and links that lead out of it, are passed over.
    Raises OSError when the folder itself cannot be read."""
    passages: list[Passage] = []
    documents = left_out = size = 0
    for path in _files(folder, names):
        try:
            length = path.stat().st_size
            if documents >= max_files or size + length > max_bytes:
                left_out += 1
                continue
            with path.open("rb") as file:
                data = file.read(max_bytes - size)
        except OSError as error:
            log.warning("the document %s cannot be read: %s", path, error)
            left_out += 1
            continue
        size += len(data)
        documents += 1
        source = path.relative_to(folder).as_posix()
        passages += passages_of(source, data.decode(errors="replace"), passage_chars)
    return Library(documents, tuple(passages), left_out)


def passages_of(source: str, text: str, most: int) -> Iterator[Passage]:
    """Paragraphs, short ones together, long ones cut between sentences where that is possible: none has more than
    ``most`` characters, and together they are the text."""
    held: list[str] = []
    length, first = 0, 1
    for line, paragraph in _paragraphs(text.replace("\r\n", "\n")):
        for piece in _pieces(paragraph, most):
            if held and length + 2 + len(piece) > most:
                yield Passage(source, first, "\n\n".join(held))
                held, length = [], 0
            if not held:
                first = line
            length += len(piece) + (2 if held else 0)
            held.append(piece)
    if held:
        yield Passage(source, first, "\n\n".join(held))


def _files(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    root = folder.resolve(strict=True)
    os.scandir(root).close()
    for where, folders, files in os.walk(root):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for file in sorted(files):
            path = Path(where, file)
            if file.startswith(".") or not any(fnmatch.fnmatch(file, name) for name in names):
                continue
            if path.resolve().is_relative_to(root) and path.is_file():
                yield path


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Each with the number of its first line."""
    at, line = 0, 1
    for found in [*_PARAGRAPHS.finditer(text), None]:
        end = found.start() if found is not None else len(text)
        paragraph = text[at:end]
        if paragraph.strip():
            blank = len(paragraph) - len(paragraph.lstrip("\n"))
            yield line + blank, paragraph.strip("\n")
        after = found.end() if found is not None else len(text)
        line += text.count("\n", at, after)
        at = after


def _pieces(paragraph: str, most: int) -> Iterator[str]:
    if len(paragraph) <= most:
        yield paragraph
        return
    held = ""
    for sentence in _SENTENCES.split(paragraph):
        if held and len(held) + 1 + len(sentence) > most:
            yield held
            held = ""
        held = f"{held} {sentence}" if held else sentence
        if len(held) > most:
            last = (len(held) - 1) // most * most
            for at in range(0, last, most):
                yield held[at : at + most]
            held = held[last:]
    if held:
        yield held
