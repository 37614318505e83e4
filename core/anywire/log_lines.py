"""The lines of a log: their two forms, how many of the same kind there may be, and those of another process.

Nobody's text is written as it is. In a line of text whatever is not printable is escaped, line breaks too, so a record
is one line, and no text of a stranger can look like another record or control a terminal. A traceback follows its
record, indented. No line has a secret in it that `anywire.secrecy` knows.
"""

from __future__ import annotations

import datetime
import json
import logging
import time
from typing import TYPE_CHECKING, Any, Literal

from anywire.printable import escaped
from anywire.secrecy import tree_without_secrets, without_secrets

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

LogFormat = Literal["text", "json"]

LIMIT_LINES = 100
LIMIT_SECONDS = 10.0
"""Of the lines that one statement makes, so many are written in so many seconds; the others are counted."""
MAX_STATEMENTS = 1000
"""Statements whose lines are counted; the oldest are forgotten."""

LONGEST_LINE = 1024 * 1024
"""Bytes of a line of another process that are kept together."""

_COLOURS = {"WARNING": "33", "ERROR": "31", "CRITICAL": "31"}


class TextLines(logging.Formatter):
    """``2026-01-31 12:00:00.000 INFO agent ada joined …``, with the name of the logger where ``with_names``, and the
    level coloured where ``coloured``."""

    def __init__(self, *, with_names: bool = False, coloured: bool = False) -> None:
        super().__init__()
        self.with_names, self._coloured = with_names, coloured
        self._second, self._clock = -1, ""
        """The second of the newest line, since 1970 and as text: in many lines it is the same."""

    def format(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second:
            self._second, self._clock = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        level = record.levelname
        if self._coloured and level in _COLOURS:
            level = f"\x1b[{_COLOURS[level]}m{level}\x1b[0m"
        name = f" {escaped(record.name)}:" if self.with_names else ""
        message = escaped(without_secrets(record.getMessage()))
        line = f"{self._clock}.{int(record.msecs):03d} {level}{name} {message}{_left_out(record)}"
        traceback = _traceback(record)
        if traceback:
            line += "".join(f"\n    {escaped(each)}" for each in traceback.split("\n"))
        return line


class JsonLines(logging.Formatter):
    """An object per line: ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message``; ``exception`` where one is
    told, and the ``fields`` of the record, a mapping that ``extra`` may give."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        told: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_secrets(record.getMessage()) + _left_out(record),
        }
        if traceback := _traceback(record):
            told["exception"] = traceback
        told |= tree_without_secrets(getattr(record, "fields", {}))
        return json.dumps(told, default=str)  # what is not ASCII is escaped


class RepeatLimit(logging.Filter):
    """Lets `LIMIT_LINES` of the lines of one statement pass in `LIMIT_SECONDS`. The last of them, and the first one
    afterwards, tell that others are left out. A record with ``unlimited`` (by ``extra``) always passes."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "unlimited", False):
            return True
        key = (record.name, str(record.msg))
        began, count = self._counts.pop(key, (record.created, 0))
        if not 0 <= record.created - began < LIMIT_SECONDS:
            if count > LIMIT_LINES:
                record.left_out = f" ({count - LIMIT_LINES} lines like this were left out before)"
            began, count = record.created, 0
        count += 1
        self._counts[key] = began, count
        if len(self._counts) > MAX_STATEMENTS:
            del self._counts[next(iter(self._counts))]
        if count == LIMIT_LINES:
            record.left_out = f" (further lines like this are left out for up to {LIMIT_SECONDS:g} s)"
        return count <= LIMIT_LINES


def relay(name: str, line: str) -> None:
    """Log ``line`` that the process ``name`` wrote on standard error.

    A line of `JsonLines` keeps its level from warnings on; what is less is of interest to that process alone and
    becomes level debug. So does its last word (``error: …``), which whoever started it tells. Anything else, such as
    the output of a library, is logged as it is, as info.
    """
    level, logger, text = _read(line)
    if level is None:
        logging.getLogger(logger).log(
            logging.DEBUG if line.startswith("error: ") else logging.INFO, "%s: %s", name, line, extra=_UNLIMITED
        )
        return
    level = level if level >= logging.WARNING else logging.DEBUG
    # It has limited itself already.
    logging.getLogger(logger).log(level, "%s: %s", name, text, extra=_UNLIMITED)


def readable(line: str) -> str:
    """A line that a process logged, for a person: one of `JsonLines` as its level and message, another as it is."""
    level, _, text = _read(line)
    return line if level is None else f"{logging.getLevelName(level)} {text}"


_UNLIMITED = {"unlimited": True}
_OWN = __name__


def _read(line: str) -> tuple[int | None, str, str]:
    """Level, logger and message of a line of `JsonLines`; no level where it is none."""
    if not line.startswith('{"time": '):
        return None, _OWN, line
    try:
        told = json.loads(line)
        level = logging.getLevelNamesMapping()[told["level"].upper()]
        text = "; ".join(filter(None, (str(told["message"]), str(told.get("exception", "")))))
        return level, str(told["logger"]), text
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, _OWN, line


def _left_out(record: logging.LogRecord) -> str:
    return getattr(record, "left_out", "")


def _traceback(record: logging.LogRecord) -> str:
    if record.exc_info and not record.exc_text:
        record.exc_text = logging.Formatter().formatException(record.exc_info)
    return without_secrets("\n".join(filter(None, (record.exc_text, record.stack_info))))


async def lines_of(reader: asyncio.StreamReader, longest: int = LONGEST_LINE) -> AsyncIterator[str]:
    """The lines that another process writes, however broken their encoding. One of more than ``longest`` bytes comes in
    pieces."""
    rest = b""
    while block := await reader.read(65536):
        *whole, rest = (rest + block).split(b"\n")
        if len(rest) > longest:
            whole, rest = [*whole, rest], b""
        for line in whole:
            for begin in range(0, len(line) or 1, longest):
                yield line[begin : begin + longest].decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")
