"""The file of what is to be published: a SQLite database of this user alone. One thread uses it.

``messages`` wait, each with a ``number`` that grows. One that was given to JetStream has the time of that in ``sent``,
its ``stream``, and in ``floor`` a number of that stream which was there before: if the stream has it, then after that.
One that another process may have published, after the time ``since``, has that time in ``sent`` and no ``stream`` while
that is not known. ``put`` is when it came here.
``published`` remembers ids, the newest ones, so that nothing is published again. ``begun`` has the deliberations whose
end was not put here yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from anywire.errors import QueueFull
from anywire.files.database_file import DatabaseFile, DatabaseForm

FORM = DatabaseForm(
    "outbox.sqlite3",
    (
        (
            """CREATE TABLE messages (
                number INTEGER PRIMARY KEY AUTOINCREMENT,
                id TEXT NOT NULL UNIQUE,
                subject TEXT NOT NULL,
                ordered TEXT NOT NULL,
                size INTEGER NOT NULL,
                put REAL NOT NULL,
                since REAL NOT NULL,
                sent REAL NOT NULL DEFAULT 0,
                stream TEXT NOT NULL DEFAULT '',
                floor INTEGER NOT NULL DEFAULT 0,
                content BLOB NOT NULL
            )""",
            "CREATE INDEX by_size ON messages (size)",
            "CREATE INDEX by_sent ON messages (sent) WHERE sent > 0",
            "CREATE TABLE published (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE)",
            "CREATE TABLE begun (tenant TEXT NOT NULL, id TEXT NOT NULL, caller BLOB NOT NULL, "
            "PRIMARY KEY (tenant, id))",
        ),
    ),
    "messages to be published",
    "services.nats.folder",
)

REMEMBERED = 200_000
"""Ids of published messages that are remembered."""


class Content(msgspec.Struct, frozen=True, array_like=True):
    """A message as it is published."""

    subject: str
    heads: dict[str, str]
    body: bytes

    @property
    def size(self) -> int:
        return len(self.body) + sum(len(name) + len(value) + 4 for name, value in self.heads.items()) + 16


class Put(msgspec.Struct, frozen=True):
    """A new message; ``instead`` is published where the server does not take it."""

    id: str
    ordered: str
    content: Content
    instead: Content | None = None


class Waiting(msgspec.Struct, frozen=True):
    """A message that waits."""

    number: int
    id: str
    subject: str
    ordered: str
    content: Content
    instead: Content | None = None


class Unsettled(msgspec.Struct, frozen=True):
    """A message that was sent, and of which nothing was heard. Without a ``stream``: one that another process may have
    sent after ``sent``."""

    number: int
    id: str
    subject: str
    stream: str
    floor: int
    sent: float


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Content, Content | None]).decode


class OutboxTables(DatabaseFile):
    """At most ``most_messages`` with ``most_bytes`` wait."""

    form = FORM

    def __init__(self, folder: Path, most_messages: int, most_bytes: int) -> None:
        super().__init__(folder)
        self._most_messages, self._most_bytes = most_messages, most_bytes
        self._counted: tuple[int, int] | None = None

    def waiting(self) -> tuple[int, int]:
        """How many messages wait, and their bytes."""
        if self._counted is None:
            ((count, size),) = self._rows("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM messages")
            self._counted = (count, size)
        return self._counted

    def put(
        self,
        messages: Sequence[Put],
        ended: Sequence[tuple[str, str]] = (),
        since: float = 0.0,
        *,
        uncertain: bool = False,
        now: float = 0.0,
    ) -> int | QueueFull:
        """Keep those that are new, and forget the deliberations (tenant, id) that have ``ended`` with them. With
        ``since`` another process may publish them too, after that time; with ``uncertain`` it may have. How many were
        new; `QueueFull`, and nothing is changed, where there is no room for all of them. Where nothing waits
        there is room for any number: otherwise too many at once would wait for ever. Within a transaction."""
        count, size = self.waiting()
        new = [(put, _encode((put.content, put.instead))) for put in messages if not self._is_known(put.id)]
        count += len(new)
        size += sum(len(content) for _, content in new)
        if count > len(new) > 0 and (count > self._most_messages or size > self._most_bytes):
            return QueueFull("the outbox of the service nats is full: its NATS server was away too long", retry_after=5)
        self._run_many(
            "INSERT OR IGNORE INTO messages (id, subject, ordered, size, put, since, sent, content) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (put.id, put.content.subject, put.ordered, len(content), now, since, since * uncertain, content)
                for put, content in new
            ],
        )
        self._run_many("DELETE FROM begun WHERE tenant = ? AND id = ?", list(ended))
        self._counted = (count, size) if len({put.id for put, _ in new}) == len(new) else None
        return len(new)

    def step(
        self, done: Sequence[Waiting | Unsettled], held: Iterable[str], most: int, most_bytes: int
    ) -> list[Waiting]:
        """Remove what is ``done``; the next ``most`` with ``most_bytes`` that wait, the oldest first, but those of the
        subjects that are ``held``, and those that are `unsettled`."""
        with self._transaction():
            self._remove(done)
        subjects = list(held)
        where = f"sent = 0 AND subject NOT IN ({', '.join('?' * len(subjects))})"
        rows = self._rows(f"SELECT number, size FROM messages WHERE {where} ORDER BY number LIMIT ?", *subjects, most)
        total, last = 0, None
        for number, size in rows:
            total += size
            if last is not None and total > most_bytes:
                break
            last = number
        if last is None:
            return []
        rows = self._rows(
            f"SELECT number, id, subject, ordered, content FROM messages WHERE {where} AND number <= ? ORDER BY number",
            *subjects,
            last,
        )
        return [
            Waiting(number, name, subject, ordered, *_decode(content))
            for number, name, subject, ordered, content in rows
        ]

    def mark(self, messages: Sequence[Waiting], streams: Mapping[str, tuple[str, int]], now: float) -> None:
        """Note that they are given to JetStream now. ``streams`` has by subject the stream and its newest number."""
        with self._transaction():
            self._run_many(
                "UPDATE messages SET sent = ?, stream = ?, floor = ? WHERE number = ?",
                [(now, *streams[each.subject], each.number) for each in messages],
            )

    def replace(self, message: Waiting) -> None:
        """Keep this in place of what has its number: it is to be published so from now on."""
        content = _encode((message.content, message.instead))
        with self._transaction():
            self._run(
                "UPDATE messages SET subject = ?, size = ?, content = ? WHERE number = ?",
                message.content.subject,
                len(content),
                content,
                message.number,
            )
            self._counted = None

    def unmark(self, numbers: Sequence[int]) -> None:
        """Note that no stream has them."""
        with self._transaction():
            self._run_many(
                "UPDATE messages SET sent = 0, stream = '', floor = 0 WHERE number = ?",
                [(number,) for number in numbers],
            )

    def doubt(self, before: float) -> None:
        """Of what was put before this time, and which another process may publish too, it is not known any more whether
        it has."""
        self._run("UPDATE messages SET sent = since WHERE sent = 0 AND since > 0 AND put < ?", before)

    def unsettled(self, most: int) -> list[Unsettled]:
        """What was, or may have been, sent, and is neither done nor known to be in no stream."""
        rows = self._rows(
            "SELECT number, id, subject, stream, floor, sent FROM messages WHERE sent > 0 ORDER BY number LIMIT ?", most
        )
        return [Unsettled(*row) for row in rows]

    def begin(self, tenant: str, question_id: str, caller: bytes) -> None:
        self._run("INSERT OR REPLACE INTO begun VALUES (?, ?, ?)", tenant, question_id, caller)

    def forget(self, tenant: str, question_id: str) -> None:
        self._run("DELETE FROM begun WHERE tenant = ? AND id = ?", tenant, question_id)

    def begun(self) -> Sequence[tuple[str, str, bytes]]:
        """Deliberations whose end was not put here: tenant, id, caller."""
        return self._rows("SELECT tenant, id, caller FROM begun")

    def lacks(self, ids: Sequence[str]) -> bool:
        """Whether any of these ids neither waits nor is known to be published."""
        return not all(map(self._is_known, ids))

    def _is_known(self, message_id: str) -> bool:
        return bool(
            self._rows("SELECT 1 FROM published WHERE id = ?", message_id)
            or self._rows("SELECT 1 FROM messages WHERE id = ?", message_id)
        )

    def _remove(self, done: Sequence[Waiting | Unsettled]) -> None:
        if not done:
            return
        self._run_many("INSERT OR IGNORE INTO published (id) VALUES (?)", [(each.id,) for each in done])
        self._run("DELETE FROM published WHERE number <= (SELECT MAX(number) FROM published) - ?", REMEMBERED)
        self._run_many("DELETE FROM messages WHERE number = ?", [(each.number,) for each in done])
        self._counted = None

    def _forget(self) -> None:
        self._counted = None
