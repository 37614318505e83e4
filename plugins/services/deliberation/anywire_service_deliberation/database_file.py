"""The file of deliberations: a SQLite database of this user alone, for one process at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anywire.errors import ConfigError
from anywire.files.private_files import check_private

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


class DatabaseFile:
    """The file in ``folder``. One ``reader`` may be opened while the other one writes. One thread uses each."""

    def __init__(self, folder: Path, *, reader: bool = False) -> None:
        self.folder, self._reader = folder, reader
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None

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

    def _forget(self) -> None:
        """A transaction was undone: what is remembered of the tables may be wrong."""

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            self._forget()
            if self._connection is not None and self._connection.in_transaction:
                self._run("ROLLBACK")
            raise

    @contextmanager
    def at_one_time(self) -> Iterator[None]:
        """What is read within it is as it was at one time. For a reader."""
        self._run("BEGIN")
        try:
            yield
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


def _set_aside(path: Path) -> Path:
    """The damaged file under another name, with its journal: another program may save something of them."""
    aside = path.with_name(f"{FILE}.damaged")
    for suffix in ("-wal", "-shm"):
        aside.with_name(aside.name + suffix).unlink(missing_ok=True)
        if (journal := path.with_name(FILE + suffix)).exists():
            journal.rename(aside.with_name(aside.name + suffix))
    path.replace(aside)
    return aside
