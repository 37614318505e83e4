"""When requests are meant to be sent: the arrival processes of open loops."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anywire.errors import ConfigError
from anywire_experiment.workload import LONGEST_DEADLINE, TENANT, Bursts, Poisson, Trace

_ARRIVAL = ("arrival_s", "TIMESTAMP", "timestamp")
_INPUT = ("input_tokens", "ContextTokens", "input_length")
_OUTPUT = ("output_tokens", "GeneratedTokens", "output_length")
_TENANT = re.compile(TENANT)


class Arrival(NamedTuple):
    """One request of an open loop: seconds after the start, and what a trace gives besides: its lengths in tokens,
    the number of its beginning from 1, its priority, deadline in seconds and tenant. 0, None and the empty tenant: the
    workload says it."""

    at: float
    input_tokens: int = 0
    output_tokens: int = 0
    prefix: int = 0
    priority: int | None = None
    deadline_s: float = 0.0
    tenant: str = ""


def arrivals(process: Poisson | Bursts | Trace, rng: np.random.Generator, folder: Path) -> Iterator[Arrival]:
    """In order of time; endless but for a trace. Raises `ConfigError` for a trace that cannot be read."""
    match process:
        case Poisson():
            return _poisson(process.rate, rng)
        case Bursts():
            times = (burst * process.every for burst in itertools.count())
            return (Arrival(at) for at in times for _ in range(process.size))
        case Trace():
            return iter(read_trace(folder / process.file, process.speed))


def _poisson(rate: float, rng: np.random.Generator) -> Iterator[Arrival]:
    at = 0.0
    while True:
        for gap in rng.exponential(1 / rate, 256):
            at += gap
            yield Arrival(at)


def read_trace(path: Path, speed: float = 1.0) -> list[Arrival]:
    """The requests of a trace file, the first at 0; see `Trace` for the form. Raises `ConfigError` naming the line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            names = rows.fieldnames or []
            columns = [next((name for name in known if name in names), "") for known in (_ARRIVAL, _INPUT, _OUTPUT)]
            if not all(columns):
                wanted = " and ".join(f"one of {', '.join(known)}" for known in (_ARRIVAL, _INPUT, _OUTPUT))
                raise ConfigError(
                    f"trace {path}: the header must name {wanted}; it has {', '.join(names) or 'nothing'}"
                )
            times, given, made = columns
            found = []
            for row in rows:
                try:
                    found.append(Arrival(_seconds(row[times]), _count(row[given]), _count(row[made]), *_more(row)))
                except (ValueError, TypeError) as error:
                    raise ConfigError(f"trace {path}, line {rows.line_num}: {error}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"trace {path} cannot be read: {error}") from error
    if not found:
        raise ConfigError(f"trace {path} has a header and no requests")
    found.sort(key=lambda each: each.at)
    first = found[0].at
    return [each._replace(at=(each.at - first) / speed) for each in found]


def _more(row: dict[str, str]) -> tuple[int, int | None, float, str]:
    prefix, priority, deadline, tenant = (
        row.get(name) or "" for name in ("prefix", "priority", "deadline_s", "tenant")
    )
    seconds = float(deadline or 0)
    if not 0 <= seconds <= LONGEST_DEADLINE:
        raise ValueError(f"a deadline is from 0 to {LONGEST_DEADLINE} seconds, not {deadline}")
    if tenant and not _TENANT.match(tenant):
        raise ValueError(f"a tenant has 1 to 64 letters, digits or signs, not {tenant!r}")
    return _count(prefix or "0"), int(priority) if priority else None, seconds, tenant


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        # Traces that give date and time have up to seven digits of a second; the library reads six.
        head, dot, fraction = text.partition(".")
        return datetime.fromisoformat(head).timestamp() + float(f"0{dot}{fraction}" if dot else 0)


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(f"a length cannot be negative: {value}")
    return value
