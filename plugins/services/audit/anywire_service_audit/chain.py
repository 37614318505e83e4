"""The lines of the log, and the chain of hashes that joins them.

A line is one JSON object that ends with its hash: SHA-256, or HMAC-SHA-256 with a key, over the hash of the line
before, a line feed, and the line without its hash, byte for byte. So every later hash is another one when a line is
changed, removed, swapped or added. The first line of a file (`BEGUN`) names the hash before it.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import re
from typing import Any

import msgspec

from anywire.caller import Caller
from anywire.printable import escaped

GENESIS = "0" * 64
"""The hash before the first line of all."""
FORMAT = 1
BEGUN, OPENED, CLOSED, LOST = "log.begun", "log.opened", "log.closed", "log.lost"
"""What the log says of itself: a new file, a start, an orderly end, entries that could not be written."""
MAX_TEXT = 256
"""Characters of a text in an entry: it may be a stranger's."""

_HASH = re.compile(rb',"hash":"([0-9a-f]{64})"\}\Z')


class Actor(msgspec.Struct, frozen=True):
    """As in `anywire.caller.Caller`; all empty for the orchestrator itself."""

    id: str = ""
    tenant: str = ""
    role: str = ""


class Entry(msgspec.Struct, frozen=True):
    """Something that happened; ``at`` is in seconds since 1970."""

    at: float
    action: str
    actor: Actor = Actor()
    target: str = ""
    outcome: str = "ok"
    detail: dict[str, Any] = {}


class Record(msgspec.Struct, frozen=True):
    """An entry as it is written, without its hash. ``time`` is UTC in ISO 8601."""

    seq: int
    time: str
    action: str
    actor: Actor
    target: str
    outcome: str
    detail: dict[str, Any]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


class Chain:
    """The end of a chain, to which lines are added. ``seq`` is the number of its newest line, ``head`` the hash."""

    def __init__(self, key: bytes = b"", seq: int = 0, head: str = GENESIS) -> None:
        self.key, self.seq, self.head = key, seq, head

    def add(self, entry: Entry) -> bytes:
        """The line of the next entry, with its line feed."""
        at = datetime.datetime.fromtimestamp(entry.at, datetime.UTC).isoformat(timespec="milliseconds")
        record = Record(
            self.seq + 1,
            at.replace("+00:00", "Z"),
            text(entry.action),
            Actor(text(entry.actor.id), text(entry.actor.tenant), text(entry.actor.role)),
            text(entry.target),
            text(entry.outcome),
            {name: text(value) if isinstance(value, str) else value for name, value in entry.detail.items()},
        )
        try:
            body = _encode(record)
        except (TypeError, ValueError, OverflowError):  # no entry may keep those behind it from being written
            body = _encode(msgspec.structs.replace(record, detail={"left_out": "it is no JSON"}))
        self.seq, self.head = record.seq, digest(self.key, self.head, body)
        return b'%s,"hash":"%s"}\n' % (body[:-1], self.head.encode())


def text(value: str) -> str:
    """A text as it stands in an entry: bounded, and with nothing in it that is not printable."""
    return escaped(value[:MAX_TEXT])


def actor(caller: Caller) -> Actor:
    return Actor(caller.id, caller.tenant, caller.role)


def digest(key: bytes, previous: str, body: bytes) -> str:
    """The hash of a line without its hash, after the hash ``previous``."""
    content = b"%s\n%s" % (previous.encode(), body)
    return hmac.digest(key, content, "sha256").hex() if key else hashlib.sha256(content).hexdigest()


def split(line: bytes) -> tuple[bytes, str] | None:
    """A line without its line feed as what is hashed and its hash; None when it has none."""
    found = _HASH.search(line)
    return (line[: found.start()] + b"}", found[1].decode()) if found is not None else None


def read(line: bytes) -> tuple[Record, str] | None:
    """The record and hash of a line without its line feed; None when it is no line of a log."""
    parts = split(line)
    if parts is None:
        return None
    try:
        return _decode(parts[0]), parts[1]
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
