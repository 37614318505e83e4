"""Entries and verdicts for people and programs."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from heapq import merge
from pathlib import Path
from typing import NamedTuple

import msgspec

from anywire.errors import ConfigError
from anywire.printable import escaped
from anywire_service_audit.chain import Record, read
from anywire_service_audit.folder import log_files, logs_below
from anywire_service_audit.verify import Verdict


class Filter(NamedTuple):
    """What an entry must be: patterns in which ``*`` stands for anything, and times in UTC as entries have them, empty
    for no bound."""

    action: str = "*"
    actor: str = "*"
    tenant: str = "*"
    target: str = "*"
    outcome: str = "*"
    since: str = ""
    until: str = ""

    def has(self, record: Record) -> bool:
        found = (record.action, record.actor.id, record.actor.tenant, record.target, record.outcome)
        if not all(pattern == "*" or fnmatchcase(value, pattern) for value, pattern in zip(found, self, strict=False)):
            return False
        return record.time >= self.since and (not self.until or record.time < self.until)


def time_of(value: str, option: str) -> str:
    """A time as entries have it; local time where it names no zone. Raises `ConfigError` for what is none."""
    if not value:
        return ""
    try:
        at = datetime.datetime.fromisoformat(value).astimezone(datetime.UTC)
    except ValueError as error:
        raise ConfigError(f"{option} must be a time such as 2026-01-31T12:00, not {value[:64]!r}") from error
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def entries(folder: Path, wanted: Filter, last: int = 0) -> Iterable[Record]:
    """The entries of all logs below a folder that a filter has, in the order of their times; with ``last`` only so many
    of the newest. Lines that are none are left out. Raises `ConfigError` when there is no log."""
    logs = list(logs_below(folder))
    if not logs:
        raise ConfigError(f"there is no audit log in {folder}: name its folder, or its fleet with --fleet")
    found = (record for record in merge(*map(_records, logs), key=lambda record: record.time) if wanted.has(record))
    return deque(found, last) if last else found


def record_json(record: Record) -> str:
    return msgspec.json.encode(record).decode()


def record_text(record: Record) -> str:
    """An entry in one line."""
    tenant = f"tenant {record.actor.tenant}" if record.actor.tenant else ""
    who = " ".join(filter(None, (record.actor.id, tenant, record.actor.role)))
    detail = " ".join(f"{name}={value}" for name, value in record.detail.items() if value not in ("", None))
    parts = (record.time, str(record.seq), record.action, record.target, record.outcome, who and f"by {who}", detail)
    return escaped("  ".join(filter(None, parts)))


def verdict_json(verdict: Verdict) -> str:
    told = verdict._asdict() | {
        "folder": str(verdict.folder),
        "has": sorted(verdict.has),
        "fault": verdict.fault._asdict() if verdict.fault is not None else None,
    }
    return msgspec.json.encode(told).decode()


def verdict_text(verdict: Verdict) -> str:
    """What was found, in one line, and a line for each thing that one should know."""
    if verdict.fault is not None:
        return f"{verdict.folder}: broken at {escaped(str(verdict.fault))}"
    lines = [
        f"{verdict.folder}: unbroken, entries {verdict.first_seq} to {verdict.last_seq} in {verdict.files} files, "
        f"hash {verdict.head}"
    ]
    if verdict.torn:
        lines.append(
            f"  the last line has no end ({verdict.torn} bytes): "
            + ("it is being written" if verdict.is_written else "the process was killed while it wrote")
        )
    elif not verdict.closed and not verdict.is_written:
        lines.append("  it has no orderly end: the process was killed, or the end was cut off (--head tells which)")
    if verdict.unkeyed:
        lines.append(f"  up to {verdict.unkeyed} the hashes need no key")
    return "\n".join(lines)


def _records(folder: Path) -> Iterator[Record]:
    for _, path in log_files(folder):
        with path.open("rb") as file:
            for line in file:
                found = read(line.removesuffix(b"\n"))
                if found is not None:
                    yield found[0]
