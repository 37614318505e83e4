"""Traces of requests, read from their files: whole, or the part of one that a block replays."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from anywire.errors import ConfigError
from anywire_experiment.plan.trace_formats import FORMATS, Arrival, Format, Row
from anywire_experiment.plan.traffic import LONGEST_PAUSE
from anywire_experiment.plan.workload import Trace, Window

MOST_REQUESTS = 1_000_000
"""Of a trace that are replayed; of a longer one choose a part with ``window`` or ``first``."""


def read_trace(path: Path, of: Trace | None = None) -> list[Arrival]:
    """The requests of a trace in order of time, the first at 0; ``of`` says which part of it is wanted, and how fast.
    Raises `ConfigError` naming the line."""
    wanted = of or Trace(file=path)
    return _part(path, _read(path, wanted), wanted)


def check_traces(trace: Trace, blocks: int) -> None:
    """Raises `ConfigError` for a file of ``trace`` that cannot be read, and for the first of ``blocks`` that would have
    no requests."""
    read: dict[Path, list[Arrival]] = {}
    for block in range(1, blocks + 1):
        part = trace.of_block(block)
        if part.file not in read:
            read[part.file] = _read(part.file, part)
        elif part.window is None:
            break  # all files have had their turn, and nothing moves
        _part(part.file, read[part.file], part)


def _read(path: Path, wanted: Trace) -> list[Arrival]:
    """All of it, in order of time."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            name, rows = _rows(path, file, wanted.format)
            found = _arrivals(path, FORMATS[name], rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"trace {path} cannot be read: {error}") from error
    if not found:
        raise ConfigError(f"trace {path} has no requests")
    found.sort(key=lambda each: each.at)
    return _thinking(found) if name == "burstgpt" else found


def _part(path: Path, found: list[Arrival], wanted: Trace) -> list[Arrival]:
    """What is wanted of it, the first at 0."""
    if wanted.window is not None:
        found = _within(path, found, wanted.window)
    found = found[: wanted.first]
    if len(found) > MOST_REQUESTS:
        raise ConfigError(f"trace {path} has {len(found)} requests: choose a part of it with `window` or `first`")
    begin = found[0].at
    return [each._replace(at=(each.at - begin) / wanted.speed) for each in found]


def _rows(path: Path, file: Iterable[str], wanted: str) -> tuple[str, Iterator[tuple[int, Row]]]:
    """The name of the format, and the rows with their lines."""
    lines = iter(file)
    first = next(lines, "")
    if first.lstrip().startswith("{"):
        name, rows = "mooncake", _json_rows(path, first, lines)
    else:
        reader = csv.DictReader(_again(first, lines))
        names = reader.fieldnames or []
        name = next((each for each, form in FORMATS.items() if {*form.columns} <= {*names}), "")
        rows = ((reader.line_num, row) for row in reader)
        if not name or (wanted and name != wanted):
            known = [wanted] if wanted and wanted != "mooncake" else [each for each in FORMATS if each != "mooncake"]
            forms = "; ".join(f"{each}: {', '.join(FORMATS[each].columns)}" for each in known)
            raise ConfigError(
                f"trace {path}: the header must name the columns of its format ({forms}; mooncake is JSON lines); it "
                f"has {', '.join(names) or 'nothing'}"
            )
    if wanted and name != wanted:
        raise ConfigError(f"trace {path} has the format {name}, and the plan says {wanted}")
    return name, rows


def _again(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _json_rows(path: Path, first: str, lines: Iterator[str]) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(_again(first, lines), start=1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ConfigError(f"trace {path}, line {number}: {error}") from error
        if not isinstance(row, dict):
            raise ConfigError(f"trace {path}, line {number}: expected an object, found {line.strip()[:40]!r}")
        yield number, row


def _arrivals(path: Path, form: Format, rows: Iterator[tuple[int, Row]]) -> list[Arrival]:
    found = []
    for line, row in rows:
        try:
            made = form.read(row)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            said = f"there is no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
            raise ConfigError(f"trace {path}, line {line}: {said}") from error
        if made is not None:
            found.append(made)
    return found


def _within(path: Path, found: list[Arrival], window: Window) -> list[Arrival]:
    begin = found[0].at + window.start
    chosen = [each for each in found if begin <= each.at < begin + window.seconds]
    if not chosen:
        last = found[-1].at - found[0].at
        raise ConfigError(
            f"trace {path} has no requests in the window from {window.start:g} s for {window.seconds:g} s; its last "
            f"one comes after {last:g} s"
        )
    return chosen


def _thinking(found: list[Arrival]) -> list[Arrival]:
    """With the pauses that times and durations of a session's requests tell. ``think_s`` is the duration until then."""
    ended: dict[str, float] = {}
    made = []
    for each in found:
        before = ended.get(each.session) if each.session else None
        if each.session and each.think_s is not None:
            ended[each.session] = each.at + each.think_s
        made.append(each._replace(think_s=None if before is None else min(max(0.0, each.at - before), LONGEST_PAUSE)))
    return made
