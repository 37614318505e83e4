"""A SQLite file in which a service keeps what must survive a restart: of this user alone, for one process at a time.

A service writes a class of its own below `DatabaseFile`, with a `DatabaseForm` and methods that read and write its
tables::

    FORMS = (("CREATE TABLE notes (text TEXT NOT NULL)",),)

    class Notes(DatabaseFile):
        form = DatabaseForm("notes.sqlite3", FORMS, "notes", "services.notes.folder")

        def add(self, text: str) -> None:
            self._run("INSERT INTO notes VALUES (?)", text)

All of it waits for the disk: an event loop uses it through an `anywire.files.database_thread.DatabaseThread`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from anywire.errors import ConfigError
from anywire.files.private_files import check_private
from anywire.this_system import O_CLOEXEC, O_NOFOLLOW, lock_file

log = logging.getLogger(__name__)

LOCK = "lock"
"""File of the folder that the process which has the folder holds a lock on."""
JOURNAL_BYTES = 64 * 1024 * 1024
"""Bytes that the write-ahead log keeps on the disk between two uses."""


class DatabaseForm(NamedTuple):
    """What a file is, beside its rows.

    ``file`` is its name in the folder. ``migrations`` are, by form of the file from 1, the statements that make it of
    the form before; never change one that was released. ``kept`` are the things in it, in the plural, for sentences
    (``background tasks``), and ``setting`` is the option that names the folder. ``synchronous`` is SQLite's: with
    ``FULL`` what was written outlasts a loss of power, with ``NORMAL`` only the end of the process, by whatever means.
    """

    file: str
    migrations: tuple[tuple[str, ...], ...]
    kept: str
    setting: str
    synchronous: Literal["FULL", "NORMAL"] = "FULL"


class DatabaseFile:
    """The file of the class's ``form`` in ``folder``.

    One ``reader`` may be opened while the other one writes. One thread uses each at a time. What is not in a
    transaction of its own is one statement, and on the disk when the method returns. All methods raise `sqlite3.Error`
    when the disk does not do what it should (it is full, say); nothing has changed then, and the next call may work.
    """

    form: ClassVar[DatabaseForm]

    def __init__(self, folder: Path, *, reader: bool = False) -> None:
        self.folder, self._reader = folder, reader
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None

    def open(self) -> bool:
        """Take the folder, which is made if need be, and bring the file to the newest form.

        Returns False while another process has the folder; call it again later. A damaged file is moved aside, as
        ``FILE.damaged``, and a new one is begun. Raises `ConfigError` when the folder cannot be used: others can read
        it, it cannot be written, or a later version wrote the file. A reader takes nothing and needs the file.
        """
        path = self.folder / self.form.file
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
                aside = _set_aside(path)
                log.error("%s are lost: %s was damaged (%s) and is %s now", self.form.kept, path, error, aside)
                self._connect(path)
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise ConfigError(f"{self.form.kept} cannot be kept in {self.folder}: {error}") from error
        except BaseException:
            self.close()
            raise
        return True

    def close(self) -> None:
        """Release the folder. Safe to call twice, and without `open`."""
        self._disconnect()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def together(self, writes: Sequence[Callable[[], Any]]) -> list[Any]:
        """Do all of ``writes`` in one transaction, which is on the disk when this returns: what each has returned, or
        the exception that it has raised, in which case it has changed nothing. Raises `sqlite3.OperationalError` when
        the disk has taken none of them."""
        try:
            with self._transaction():
                return [write() for write in writes]
        except sqlite3.OperationalError:
            raise
        except Exception as error:
            if len(writes) == 1:
                return [error]
        # One of them is at fault: that one harms no other.
        return [self._alone(write) for write in writes]

    @contextmanager
    def at_one_time(self) -> Iterator[None]:
        """What is read within it is as it was at one time. For a reader."""
        self._run("BEGIN")
        try:
            yield
        finally:
            self._end("COMMIT")

    # For the classes below

    def _forget(self) -> None:
        """A transaction was undone: what is remembered of the tables may be wrong."""

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """What is written within it is written whole, or not at all."""
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            self._forget()
            self._end("ROLLBACK")
            raise

    def _run(self, statement: str, *values: Any) -> None:
        self._opened.execute(statement, values).close()

    def _run_many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        self._opened.executemany(statement, rows).close()

    def _rows(self, statement: str, *values: Any) -> Sequence[Any]:
        return self._opened.execute(statement, values).fetchall()

    # Inside

    def _alone(self, write: Callable[[], Any]) -> Any:
        try:
            return self.together([write])[0]
        except sqlite3.OperationalError as error:
            return error  # those before it are on the disk

    @property
    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError(f"the file of {self.form.kept} is not open")
        return self._connection

    def _end(self, how: str) -> None:
        """SQLite itself has undone a transaction that the disk had no room for."""
        if self._connection is not None and self._connection.in_transaction:
            self._run(how)

    def _connect(self, path: Path) -> None:
        form = self.form
        if path.exists():
            check_private(path, path.stat())
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | O_CLOEXEC, 0o600))
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        ((number,),) = self._rows("PRAGMA user_version")
        if not 0 <= number <= len(form.migrations):
            raise ConfigError(
                f"{path} was written by a later version of this service (form {number}): install that one, set "
                f"{form.setting}, or move the file away"
            )
        ((found,),) = self._rows("PRAGMA quick_check(1)")
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        self._run("PRAGMA journal_mode = WAL")
        self._run(f"PRAGMA synchronous = {form.synchronous}")
        self._run(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")
        for further, statements in enumerate(form.migrations[number:], number + 1):
            with self._transaction():
                for statement in statements:
                    self._run(statement)
                self._run(f"PRAGMA user_version = {further}")

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _take_lock(self) -> bool:
        """Whether this process has the folder now, which is made if need be."""
        if self._lock is None:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            check_private(self.folder, self.folder.stat())
            self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o600)
        try:
            lock_file(self._lock)
        except BlockingIOError:
            return False
        return True


def _set_aside(path: Path) -> Path:
    """The damaged file under another name, with its journal: another program may save something of them. It takes the
    place of an earlier one."""
    aside = path.with_name(f"{path.name}.damaged")
    for suffix in ("-wal", "-shm"):
        aside.with_name(aside.name + suffix).unlink(missing_ok=True)
        if (journal := path.with_name(path.name + suffix)).exists():
            journal.rename(aside.with_name(aside.name + suffix))
    path.replace(aside)
    return aside
