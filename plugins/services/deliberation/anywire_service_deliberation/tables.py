"""The file of deliberations: tables in SQLite, used by one thread at a time."""

from __future__ import annotations

import builtins
import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from anywire.errors import ConfigError, PluginFailed
from anywire.files.private_files import check_private
from anywire_service_deliberation.offered import Council
from anywire_service_deliberation.question import Question, Rubric
from anywire_service_deliberation.record import Answer, Deliberation, Failure

log = logging.getLogger(__name__)

FILE, LOCK = "deliberations.sqlite3", "lock"
JOURNAL_BYTES = 64 * 1024 * 1024
"""Bytes that the write-ahead log keeps on the disk between two uses."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE deliberations (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            tenant TEXT NOT NULL,
            id TEXT NOT NULL,
            status TEXT NOT NULL,
            roles TEXT NOT NULL,
            submitted REAL NOT NULL,
            ended REAL NOT NULL,
            expires REAL NOT NULL,
            question BLOB NOT NULL,
            state BLOB NOT NULL,
            UNIQUE (tenant, id)
        )""",
        "CREATE INDEX by_end ON deliberations (ended)",
        "CREATE INDEX by_tenant ON deliberations (tenant, submitted)",
        """CREATE TABLE works (
            deliberation INTEGER NOT NULL,
            part TEXT NOT NULL,
            number INTEGER NOT NULL,
            work TEXT NOT NULL,
            data BLOB NOT NULL,
            PRIMARY KEY (deliberation, part, number)
        ) WITHOUT ROWID""",
        """CREATE TABLE councils (
            tenant TEXT NOT NULL,
            name TEXT NOT NULL,
            data BLOB NOT NULL,
            PRIMARY KEY (tenant, name)
        ) WITHOUT ROWID""",
    ),
)
"""By form of the file, from 1: the statements that make it of the form before. Never change one that was released."""

_PARTS: dict[str, type[Answer | Failure]] = {"answers": Answer, "failures": Failure, "late": Answer}
"""Members of a `Deliberation` that only grow: each of their entries is a row, written once."""
_NO_QUESTION = Question("", "", (), {}, Rubric("", ()))
_encode = msgspec.json.Encoder().encode
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
_COLUMNS = "number, id, question, state"


class _Known(NamedTuple):
    """The number of a deliberation, and how many entries of each part are kept."""

    number: int
    counts: dict[str, int]


class Tables:
    """The tables in ``folder``. One ``reader`` may be opened while the other one writes.

    All raise `sqlite3.Error` when the disk does not do what it should; nothing has changed then."""

    def __init__(self, folder: Path, *, reader: bool = False) -> None:
        self.folder, self._reader = folder, reader
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._known: dict[tuple[str, str], _Known] = {}
        """Of deliberations under way, by tenant and id; what is missing is looked up. Each statement gives the
        interpreter away, and a busy event loop gives it back late."""

    def open(self) -> bool:
        """False while another process has the folder. A damaged file is moved aside. Raises `ConfigError` when the
        folder cannot be used: others can read it, or a later version wrote the file."""
        path = self.folder / FILE
        if self._reader:
            uri = f"{path.absolute().as_uri()}?mode=ro"
            self._connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
            return True
        try:
            if not self._take_lock():
                return False
            try:
                self._connect(path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._disconnect()
                log.error("deliberations are lost: %s was damaged (%s) and is %s now", path, error, _set_aside(path))
                self._connect(path)
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise ConfigError(f"deliberations cannot be kept in {self.folder}: {error}") from error
        except BaseException:
            self.close()
            raise
        return True

    def close(self) -> None:
        """Safe to call twice."""
        self._disconnect()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def together(self, writes: Sequence[Callable[[], Any]]) -> list[Any]:
        """Do all of ``writes`` in one transaction, which is on the disk when this returns: what each has returned, or
        the exception that it has raised, in which case it has changed nothing."""
        try:
            with self._transaction():
                return [write() for write in writes]
        except sqlite3.OperationalError:
            raise
        except Exception as error:
            if len(writes) == 1:
                return [error]
        # One of them is at fault: that one harms no other.
        return [done for write in writes for done in self.together([write])]

    # Deliberations

    def add(self, tenant: str, state: Deliberation) -> Deliberation:
        """Keep a new one; the one that is there when the tenant has that id."""
        added = self._rows(
            "INSERT INTO deliberations (tenant, id, status, roles, submitted, ended, expires, question, state) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING number",
            tenant,
            state.question.id,
            state.status,
            "".join(f"\n{name}\n" for name in dict.fromkeys(member.role for member in state.question.members)),
            state.submitted,
            state.ended,
            state.expires,
            _encode(state.question),
            _rest(state),
        )
        if not added:
            found = self.get(tenant, state.question.id)
            if found is None:
                raise PluginFailed(f"what is kept of the deliberation {state.question.id} is damaged: use another id")
            return found
        self._known[tenant, state.question.id] = _Known(added[0][0], dict.fromkeys(_PARTS, 0))
        return state

    def keep(self, tenant: str, state: Deliberation) -> None:
        """Keep this newer state: what has come is added, the rest replaced."""
        key = (tenant, state.question.id)
        known = self._known.get(key) or self._look_up(*key)
        if known is None:
            return
        rows = []
        for part in _PARTS:
            entries: dict[str, Answer | Failure] = getattr(state, part)
            new = islice(entries.items(), known.counts[part], None)
            rows += [
                (known.number, part, at, work, _encode(entry))
                for at, (work, entry) in enumerate(new, known.counts[part])
            ]
        if rows:
            self._run_many("INSERT INTO works VALUES (?, ?, ?, ?, ?)", rows)
        self._run(
            "UPDATE deliberations SET status = ?, ended = ?, expires = ?, state = ? WHERE number = ?",
            state.status,
            state.ended,
            state.expires,
            _rest(state),
            known.number,
        )
        if state.is_final:
            self._known.pop(key, None)
        else:
            self._known[key] = _Known(known.number, {part: len(getattr(state, part)) for part in _PARTS})

    def get(self, tenant: str | None, question_id: str) -> Deliberation | None:
        """Of any tenant, the newest, when ``tenant`` is None."""
        where, values = (
            ("id = ?", [question_id]) if tenant is None else ("id = ? AND tenant = ?", [question_id, tenant])
        )
        rows = self._rows(f"SELECT {_COLUMNS} FROM deliberations WHERE {where} ORDER BY number DESC LIMIT 1", *values)
        return next(self._read(rows), None)

    def list(self, tenant: str | None, status: str, role: str, limit: int) -> list[Deliberation]:
        """The newest first."""
        conditions: dict[str, Any] = {}
        if tenant is not None:
            conditions["tenant = ?"] = tenant
        if status:
            conditions["status = ?"] = status
        if role:
            conditions["instr(roles, ?) > 0"] = f"\n{role}\n"
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM deliberations {where} ORDER BY submitted DESC, number DESC LIMIT ?",
            *conditions.values(),
            limit,
        )
        return list(self._read(rows))

    def unfinished(self) -> builtins.list[Deliberation]:
        """The oldest first."""
        return list(self._read(self._rows(f"SELECT {_COLUMNS} FROM deliberations WHERE ended = 0 ORDER BY number")))

    def purge(self, now: float, most: int) -> int:
        """Remove those that have expired, and of those that have ended the oldest that are more than ``most``."""
        gone = self._rows(
            "SELECT number FROM deliberations WHERE ended > 0 AND expires <= ? UNION "
            "SELECT number FROM "
            "(SELECT number FROM deliberations WHERE ended > 0 ORDER BY ended DESC LIMIT -1 OFFSET ?)",
            now,
            most,
        )
        for row in gone:
            self._run("DELETE FROM works WHERE deliberation = ?", *row)
            self._run("DELETE FROM deliberations WHERE number = ?", *row)
        return len(gone)

    # Councils

    def councils(self) -> builtins.list[tuple[str, Council]]:
        """Each with its tenant. One that cannot be read is left out."""
        found = []
        for tenant, name, data in self._rows("SELECT tenant, name, data FROM councils ORDER BY tenant, name"):
            try:
                found.append((tenant, msgspec.json.decode(data, type=Council)))
            except _UNREADABLE as error:
                log.error("the council %s cannot be read: what is kept of it is damaged: %s", name, error)
        return found

    def put_council(self, tenant: str, council: Council) -> None:
        self._run("INSERT OR REPLACE INTO councils VALUES (?, ?, ?)", tenant, council.name, _encode(council))

    def delete_council(self, tenant: str, name: str) -> bool:
        found = bool(self._rows("SELECT 1 FROM councils WHERE tenant = ? AND name = ?", tenant, name))
        self._run("DELETE FROM councils WHERE tenant = ? AND name = ?", tenant, name)
        return found

    # Inside

    def _look_up(self, tenant: str, question_id: str) -> _Known | None:
        """What is kept of one."""
        for (number,) in self._rows(
            "SELECT number FROM deliberations WHERE tenant = ? AND id = ?", tenant, question_id
        ):
            counts = self._rows("SELECT part, COUNT(*) FROM works WHERE deliberation = ? GROUP BY part", number)
            return _Known(number, dict.fromkeys(_PARTS, 0) | dict(counts))
        return None

    def _read(self, rows: Iterable[Any]) -> Iterator[Deliberation]:
        """Those that can be read. One that cannot is left out, and is there until it is removed by hand."""
        for number, question_id, question, state in rows:
            parts: dict[str, dict[str, Answer | Failure]] = {part: {} for part in _PARTS}
            works = self._rows(
                "SELECT part, work, data FROM works WHERE deliberation = ? ORDER BY part, number", number
            )
            try:
                for part, work, data in works:
                    parts[part][work] = msgspec.json.decode(data, type=_PARTS[part])
                rest = msgspec.json.decode(state, type=Deliberation)
                asked = msgspec.json.decode(question, type=Question)
            except (*_UNREADABLE, KeyError) as error:
                log.error("the deliberation %s cannot be read: what is kept of it is damaged: %s", question_id, error)
                continue
            yield msgspec.structs.replace(rest, question=asked, **parts)

    def _connect(self, path: Path) -> None:
        if path.exists():
            check_private(path, path.stat())
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        ((form,),) = self._rows("PRAGMA user_version")
        if form > len(MIGRATIONS):
            raise ConfigError(
                f"{path} was written by a later version of this service (form {form}): install that one, set "
                "services.deliberation.folder, or move the file away"
            )
        ((found,),) = self._rows("PRAGMA quick_check(1)")
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        self._run("PRAGMA journal_mode = WAL")
        self._run("PRAGMA synchronous = FULL")
        self._run(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")
        for number, statements in enumerate(MIGRATIONS[form:], form + 1):
            with self._transaction():
                for statement in statements:
                    self._run(statement)
                self._run(f"PRAGMA user_version = {number}")

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            self._known.clear()
            if self._connection is not None and self._connection.in_transaction:
                self._run("ROLLBACK")
            raise

    @contextmanager
    def at_one_time(self) -> Iterator[Tables]:
        """What is read within it is as it was at one time. For a reader."""
        self._run("BEGIN")
        try:
            yield self
        finally:
            self._run("COMMIT")

    def _run(self, statement: str, *values: Any) -> None:
        assert self._connection is not None
        self._connection.execute(statement, values).close()

    def _run_many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        assert self._connection is not None
        self._connection.executemany(statement, rows).close()

    def _rows(self, statement: str, *values: Any) -> Sequence[Any]:
        assert self._connection is not None
        return self._connection.execute(statement, values).fetchall()

    def _take_lock(self) -> bool:
        """Whether this process has the folder now, which is made if need be."""
        if self._lock is None:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            check_private(self.folder, self.folder.stat())
            self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _rest(state: Deliberation) -> bytes:
    """What is written anew with each state."""
    return _encode(msgspec.structs.replace(state, question=_NO_QUESTION, answers={}, failures={}, late={}))


def _set_aside(path: Path) -> Path:
    """The damaged file under another name, with its journal: another program may save something of them."""
    aside = path.with_name(f"{FILE}.damaged")
    for suffix in ("-wal", "-shm"):
        aside.with_name(aside.name + suffix).unlink(missing_ok=True)
        if (journal := path.with_name(FILE + suffix)).exists():
            journal.rename(aside.with_name(aside.name + suffix))
    path.replace(aside)
    return aside
