"""Traces of requests, read: the project's own form and those in which public traces of LLM services are published.

| format | file | columns |
|---|---|---|
| ``anywire`` | CSV | ``arrival_s``, ``input_tokens``, ``output_tokens`` |
| ``azure`` | CSV | ``TIMESTAMP`` (seconds, or date and time), ``ContextTokens``, ``GeneratedTokens`` |
| ``burstgpt`` | CSV | ``Timestamp`` (s), ``Request tokens``, ``Response tokens``, and if there those of sessions (1) |
| ``mooncake`` | JSON lines | ``timestamp`` (ms), ``input_length``, ``output_length``, ``hash_ids`` |

(1) ``Session ID`` and ``Elapsed time`` (s).

A CSV may have further columns of ``anywire``, in which an empty field is as none: ``prefix`` (which of
``prompts.prefixes`` beginnings it has, from 1), ``priority``, ``deadline_s``, ``tenant``, ``model``, ``stream`` (true
or false), ``session`` and ``think_s`` (seconds from the end of the session's answer before it), ``blocks`` (numbers
with spaces between; equal ones stand for equal text, as Mooncake's hashes do), ``cancel_s`` and ``cancel_tokens`` (when
its client gave it up). Other columns are not looked at. In BurstGPT a request with no response tokens failed there, and
is left out, and so is the name of the model, which is another service's.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from anywire.errors import ConfigError
from anywire_experiment.plan.traffic import LONGEST_ANSWER, LONGEST_PAUSE, LONGEST_PROMPT
from anywire_experiment.plan.workload import LONGEST_DEADLINE, TENANT, Trace, Window

MOST_REQUESTS = 1_000_000
"""Of a trace that are replayed; of a longer one choose a part with ``window`` or ``first``."""
MOST_BLOCKS = 65_536
MAX_NAME_CHARS = 256
MOST_URGENT = 1_000_000

_TENANT = re.compile(TENANT)
Row = Mapping[str, Any]


class Arrival(NamedTuple):
    """One request: seconds after the start, and what a trace gives besides: its lengths in tokens, the number of its
    beginning from 1, its priority, deadline in seconds and tenant. 0, None and the empty text: the workload says it.

    ``think_s`` is the pause after the answer before it in its ``session``, None where that is not known. ``blocks``
    identify the text of its prompt. ``cancel_s`` and ``cancel_tokens`` say when its client gives it up, 0 for never."""

    at: float
    input_tokens: int = 0
    output_tokens: int = 0
    prefix: int = 0
    priority: int | None = None
    deadline_s: float = 0.0
    tenant: str = ""
    session: str = ""
    think_s: float | None = None
    blocks: tuple[int, ...] = ()
    model: str = ""
    stream: bool | None = None
    cancel_s: float = 0.0
    cancel_tokens: int = 0


class _Format(NamedTuple):
    columns: tuple[str, str, str]
    """Of the arrival and both lengths: what a file must have to be one of these."""
    read: Callable[[Row], Arrival | None]


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


def _arrivals(path: Path, form: _Format, rows: Iterator[tuple[int, Row]]) -> list[Arrival]:
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


# The formats


def _own(row: Row) -> Arrival:
    return _with_more(
        row, Arrival(_number(row["arrival_s"], "arrival_s"), *_lengths(row, "input_tokens", "output_tokens"))
    )


def _azure(row: Row) -> Arrival:
    return _with_more(row, Arrival(_time(row["TIMESTAMP"]), *_lengths(row, "ContextTokens", "GeneratedTokens")))


def _burstgpt(row: Row) -> Arrival | None:
    given, made = _lengths(row, "Request tokens", "Response tokens")
    if not made:
        return None
    took = row.get("Elapsed time") or ""
    return Arrival(
        _number(row["Timestamp"], "Timestamp"),
        given,
        made,
        session=_name(row.get("Session ID") or "", "Session ID"),
        think_s=_pause(took, "Elapsed time") if took else None,
    )


def _mooncake(row: Row) -> Arrival:
    ids = row.get("hash_ids", ())
    if not isinstance(ids, list | tuple) or not all(type(each) is int for each in ids):
        raise ValueError("hash_ids: expected a list of whole numbers")
    if len(ids) > MOST_BLOCKS:
        raise ValueError(f"hash_ids: {len(ids)} of them, the limit is {MOST_BLOCKS}")
    at = _number(row["timestamp"], "timestamp") / 1000
    return Arrival(at, *_lengths(row, "input_length", "output_length"), blocks=tuple(ids))


FORMATS: dict[str, _Format] = {
    "anywire": _Format(("arrival_s", "input_tokens", "output_tokens"), _own),
    "azure": _Format(("TIMESTAMP", "ContextTokens", "GeneratedTokens"), _azure),
    "burstgpt": _Format(("Timestamp", "Request tokens", "Response tokens"), _burstgpt),
    "mooncake": _Format(("timestamp", "input_length", "output_length"), _mooncake),
}
MORE = (
    *("prefix", "priority", "deadline_s", "tenant", "session", "think_s"),
    *("blocks", "model", "stream", "cancel_s", "cancel_tokens"),
)
"""Further columns that a CSV may have."""


def _with_more(row: Row, arrival: Arrival) -> Arrival:
    given = {name: text for name in MORE if (text := (row.get(name) or "").strip())}
    if not given:
        return arrival
    seconds = _number(given.get("deadline_s", "0"), "deadline_s")
    if not 0 <= seconds <= LONGEST_DEADLINE:
        raise ValueError(f"a deadline is from 0 to {LONGEST_DEADLINE} seconds, not {given['deadline_s']}")
    tenant = given.get("tenant", "")
    if tenant and not _TENANT.match(tenant):
        raise ValueError(f"a tenant has 1 to 64 letters, digits or signs, not {tenant!r}")
    blocks = given.get("blocks", "").split()
    if len(blocks) > MOST_BLOCKS:
        raise ValueError(f"blocks: {len(blocks)} of them, the limit is {MOST_BLOCKS}")
    return arrival._replace(
        prefix=_count(given.get("prefix", "0"), "prefix", LONGEST_PROMPT),
        priority=_priority(given["priority"]) if "priority" in given else None,
        deadline_s=seconds,
        tenant=tenant,
        session=_name(given.get("session", ""), "session"),
        think_s=_pause(given["think_s"], "think_s") if "think_s" in given else None,
        blocks=tuple(map(int, blocks)),
        model=_name(given.get("model", ""), "model"),
        stream=_truth(given["stream"]) if "stream" in given else None,
        cancel_s=_pause(given.get("cancel_s", "0"), "cancel_s"),
        cancel_tokens=_count(given.get("cancel_tokens", "0"), "cancel_tokens", LONGEST_ANSWER),
    )


def _lengths(row: Row, given: str, made: str) -> tuple[int, int]:
    return _count(row[given], given, LONGEST_PROMPT), _count(row[made], made, LONGEST_ANSWER)


def _count(value: Any, name: str, most: int) -> int:
    count = int(value)
    if not 0 <= count <= most:
        raise ValueError(f"{name} is from 0 to {most}, not {count}")
    return count


def _priority(text: str) -> int:
    priority = int(text)
    if abs(priority) > MOST_URGENT:
        raise ValueError(f"priority is from {-MOST_URGENT} to {MOST_URGENT}, not {text}")
    return priority


def _number(value: Any, name: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a number, not {value}")
    return number


def _pause(value: Any, name: str) -> float:
    number = _number(value, name)
    if not 0 <= number <= LONGEST_PAUSE:
        raise ValueError(f"{name} is from 0 to {LONGEST_PAUSE:g} seconds, not {value}")
    return number


def _name(text: str, name: str) -> str:
    if len(text) > MAX_NAME_CHARS or not text.isprintable():
        raise ValueError(f"{name} has at most {MAX_NAME_CHARS} printable characters")
    return text


def _truth(text: str) -> bool:
    found = {"true": True, "1": True, "false": False, "0": False}.get(text.lower())
    if found is None:
        raise ValueError(f"stream is true or false, not {text!r}")
    return found


def _time(text: str) -> float:
    try:
        return _number(text, "TIMESTAMP")
    except ValueError:
        # Traces that give date and time have up to seven digits of a second; the library reads six.
        head, dot, fraction = text.partition(".")
        digits = fraction[: len(fraction) - len(fraction.lstrip("0123456789"))] if dot else ""
        zone = fraction[len(digits) :]
        return datetime.fromisoformat(head + zone).timestamp() + float(f"0.{digits or 0}")
