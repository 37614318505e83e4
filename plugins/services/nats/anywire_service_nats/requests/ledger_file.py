"""The file in which requests that came by message are remembered: a SQLite database of this user alone. One thread uses
it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from anywire.caller import Caller
from anywire.errors import QueueFull
from anywire.files.database_file import DatabaseFile, DatabaseForm
from anywire_service_nats.outgoing import Outgoing

log = logging.getLogger(__name__)

FILE = "requests.sqlite3"
_TABLES = (
    """CREATE TABLE requests (
        key TEXT PRIMARY KEY,
        received REAL NOT NULL,
        starts INTEGER NOT NULL,
        state INTEGER NOT NULL,
        ended REAL NOT NULL,
        place BLOB NOT NULL,
        answer BLOB NOT NULL,
        digest BLOB NOT NULL
    )""",
    "CREATE INDEX by_state ON requests (state, ended)",
)
FORM = DatabaseForm(FILE, (_TABLES,), "requests that came by message", "services.nats.folder")

BEGUN, ELSEWHERE, ANSWERED, TOLD = range(4)
"""Where a request is: begun here; kept by another service, which runs it; answered, and the answer is kept here; its
answer is given to the outbox."""
MAX_REMEMBERED = 100_000
"""Requests that are remembered after their end."""

_encode = msgspec.msgpack.Encoder().encode


class Place(msgspec.Struct, frozen=True):
    """Where a request is that another service runs: ``service`` is its name, ``id`` what the service calls the request.
    ``name`` is what its sender calls it, and ``reply`` the subject to which the sender wants the answer."""

    service: str
    id: str
    kind: str
    name: str
    caller: Caller
    reply: str = ""
    trace: str = ""
    priority: int = 0


class Known(NamedTuple):
    """What is remembered of a request: when it came first (Unix time in seconds), how often it was begun, ``state``,
    and the digest of what it asked for."""

    received: float
    starts: int
    state: int
    digest: bytes


class Answered(NamedTuple):
    key: str
    answer: Outgoing
    reply: str


class Open(NamedTuple):
    key: str
    received: float
    place: Place


_place = msgspec.msgpack.Decoder(Place).decode
_answer = msgspec.msgpack.Decoder(tuple[Outgoing, str]).decode


class LedgerFile(DatabaseFile):
    """Each method is one transaction, and on the disk when it returns. All raise `sqlite3.Error` when the disk does not
    do what it should; nothing has changed then."""

    form = FORM

    def begin(self, key: str, digest: bytes, now: float, most_open: int) -> Known:
        """Note that a request is begun, unless it was taken further before, or another one has its key; as it is then.
        Raises `QueueFull` for a new
        one where ``most_open`` are `ELSEWHERE`; 0 bounds nothing."""
        with self._transaction():
            self._run("INSERT OR IGNORE INTO requests VALUES (?, ?, 0, ?, 0, x'', x'', ?)", key, now, BEGUN, digest)
            self._run(
                "UPDATE requests SET starts = starts + 1 WHERE key = ? AND state = ? AND digest = ?", key, BEGUN, digest
            )
            ((received, starts, state, known),) = self._rows(
                "SELECT received, starts, state, digest FROM requests WHERE key = ?", key
            )
            if most_open and state == BEGUN and starts == 1:
                ((count,),) = self._rows("SELECT count(*) FROM requests WHERE state = ?", ELSEWHERE)
                if count >= most_open:
                    raise QueueFull("too many submissions have not ended", retry_after=5)
        return Known(received, starts, state, known)

    def forgive(self, key: str) -> None:
        """Take back one start: nobody was killed."""
        self._run("UPDATE requests SET starts = max(0, starts - 1) WHERE key = ? AND state = ?", key, BEGUN)

    def elsewhere(self, key: str, place: Place) -> None:
        """Another service keeps it from now on."""
        self._run(
            "UPDATE requests SET state = ?, place = ? WHERE key = ? AND state = ?",
            ELSEWHERE,
            _encode(place),
            key,
            BEGUN,
        )

    def answered(self, key: str, answer: Outgoing, reply: str) -> None:
        """Keep its answer, unless it has one."""
        self._run(
            "UPDATE requests SET state = ?, place = x'', answer = ? WHERE key = ? AND state < ?",
            ANSWERED,
            _encode((answer, reply)),
            key,
            ANSWERED,
        )

    def told(self, key: str, now: float) -> None:
        """The outbox has its answer. Only that it was answered is remembered."""
        with self._transaction():
            self._run("UPDATE requests SET state = ?, ended = ?, answer = x'' WHERE key = ?", TOLD, now, key)
            self._run(
                "DELETE FROM requests WHERE state = ? AND ended <= (SELECT ended FROM requests WHERE state = ? "
                "ORDER BY ended DESC LIMIT 1 OFFSET ?)",
                TOLD,
                TOLD,
                MAX_REMEMBERED,
            )

    def answer(self, key: str) -> Answered | None:
        """The answer that is kept here."""
        return next(
            iter(self._answers("SELECT key, answer FROM requests WHERE key = ? AND state = ?", key, ANSWERED)), None
        )

    def untold(self) -> Sequence[Answered]:
        return self._answers("SELECT key, answer FROM requests WHERE state = ? ORDER BY received", ANSWERED)

    def open_requests(self) -> Sequence[Open]:
        """Those that other services run, the oldest first."""
        rows = self._rows("SELECT key, received, place FROM requests WHERE state = ? ORDER BY received", ELSEWHERE)
        return [Open(key, received, _place(place)) for key, received, place in rows]

    def forget(self, before: float) -> None:
        """Remember nothing of what has ended before, and of what was begun before and never taken further."""
        self._run("DELETE FROM requests WHERE state = ? AND ended < ?", TOLD, before)
        self._run("DELETE FROM requests WHERE state = ? AND received < ?", BEGUN, before)

    # Inside

    def _answers(self, statement: str, *values: object) -> list[Answered]:
        return [Answered(key, *_answer(answer)) for key, answer in self._rows(statement, *values)]
