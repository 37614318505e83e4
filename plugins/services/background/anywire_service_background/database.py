"""The file of background tasks and their answers: a SQLite database of this user alone. One thread uses it."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anywire.errors import ConfigError, PayloadTooLarge, QueueFull, to_wire
from anywire.files.private_files import check_private
from anywire_service_background.records import (
    UNREADABLE,
    Answer,
    Kept,
    Left,
    encoded_answer,
    read_answer,
    read_submission,
)

log = logging.getLogger(__name__)

FILE, LOCK = "tasks.sqlite3", "lock"
VERSION = 1
JOURNAL_BYTES = 64 * 1024 * 1024
"""Bytes that the write-ahead log keeps on the disk between two uses."""
# What is counted and sorted by stands before the texts, and in indexes: texts are read by id alone.
_TABLES = (
    """CREATE TABLE IF NOT EXISTS tasks (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        model TEXT NOT NULL,
        caller TEXT NOT NULL,
        key TEXT UNIQUE,
        digest BLOB NOT NULL,
        received REAL NOT NULL,
        due REAL NOT NULL,
        starts INTEGER NOT NULL,
        ended REAL NOT NULL,
        size INTEGER NOT NULL,
        submission BLOB NOT NULL,
        answer BLOB NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS by_end ON tasks (ended)",
    "CREATE INDEX IF NOT EXISTS by_tenant ON tasks (tenant, ended, size)",
)


class Database:
    """The database in ``folder``. At most ``max_tasks`` with ``max_bytes`` are kept, of which those of one tenant that
    have not ended take ``tenant_share`` at most.

    Each method is one transaction, and on the disk when it returns. All raise `sqlite3.Error` when the disk does not do
    what it should; nothing has changed then."""

    def __init__(self, folder: Path, max_tasks: int, max_bytes: int, tenant_share: float) -> None:
        self.folder = folder
        self._max_tasks, self._max_bytes, self._tenant_share = max_tasks, max_bytes, tenant_share
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None

    def open(self) -> bool:
        """False while another process has the folder. A damaged file is moved aside. Raises `ConfigError` when the
        folder cannot be used: others can read it, or a later version wrote the file."""
        path = self.folder / FILE
        try:
            if not self._take_lock():
                return False
            try:
                self._connect(path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._disconnect()
                aside = _moved_aside(path)
                log.error("background tasks are lost: %s was damaged (%s) and is %s now", path, error, aside)
                self._connect(path)
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise ConfigError(f"background tasks cannot be kept in {self.folder}: {error}") from error
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

    def add(self, task: Left, tenant: str, key: str, digest: bytes, submission: bytes, expired: float) -> None:
        """Keep a new task. Where there is no room, answers go that ended before ``expired``, then the oldest ones of
        the tenant that has most. Raises `QueueFull` when that is this tenant and it has no answers, when nobody has,
        and when its tasks that have not ended take their share; `sqlite3.IntegrityError` for a key that is kept."""
        size = len(submission)
        with self._transaction():
            self._run("DELETE FROM tasks WHERE ended > 0 AND ended < ?", expired)
            self._check_share(tenant, size)
            while over := self._over(1, size):
                if not self._remove_oldest(over, (tenant, 1, size), but=""):
                    raise QueueFull("there is no room for another background task", retry_after=10)
            self._run(
                "INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, 0, ?, ?, x'')",
                task.task_id,
                tenant,
                task.model,
                task.caller_id,
                key or None,
                digest,
                task.received,
                task.due,
                size,
                submission,
            )

    def by_key(self, key: str, expired: float) -> tuple[str, bytes] | None:
        """The id and the digest of the task with this key that has not ended before ``expired``."""
        rows = self._rows("SELECT id, digest, ended FROM tasks WHERE key = ?", key)
        return next(((task_id, digest) for task_id, digest, ended in rows if not 0 < ended < expired), None)

    def get(self, task_id: str) -> Kept | None:
        """One that cannot be read is removed, and None."""
        rows = self._rows("SELECT received, starts, ended, submission, answer FROM tasks WHERE id = ?", task_id)
        for received, starts, ended, submission, answer in rows:
            try:
                read = read_answer(answer) if ended else None
                return Kept(task_id, read_submission(submission), received, starts, ended, read)
            except UNREADABLE as error:
                log.error("the background task %s is lost: what is kept of it is damaged: %s", task_id, error)
                self.remove(task_id)
        return None

    def not_ended(self) -> list[Left]:
        """Oldest first."""
        rows = self._rows("SELECT id, model, caller, received, due FROM tasks WHERE ended = 0 ORDER BY received")
        return [Left(*row) for row in rows]

    def started(self, task_id: str) -> None:
        """Note that a task was given to the pipeline once more."""
        self._run("UPDATE tasks SET starts = starts + 1 WHERE id = ?", task_id)

    def forgive_starts(self) -> None:
        """Of no task that has not ended its starts count: the orchestrator ends in good order."""
        self._run("UPDATE tasks SET starts = 0 WHERE ended = 0")

    def end(self, task_id: str, answer: bytes, ended: float, failed: bool) -> None:
        """Keep how a task has ended, unless that is kept. Where there is no room, the oldest answers of the tenant that
        has most go; at last there is an error in place of this one. The key of one that ``failed`` is free again."""
        with self._transaction():
            for tenant, done in self._rows("SELECT tenant, ended FROM tasks WHERE id = ?", task_id):
                if done:
                    return
                while over := self._over(0, len(answer)):
                    if not self._remove_oldest(over, (tenant, 0, 0), but=task_id):
                        answer, failed = _TOO_LARGE, True
                        break
                self._run(
                    "UPDATE tasks SET ended = ?, answer = ?, size = size + ?, key = CASE WHEN ? THEN NULL ELSE key END "
                    "WHERE id = ?",
                    ended,
                    answer,
                    len(answer),
                    failed,
                    task_id,
                )

    def remove(self, task_id: str) -> None:
        self._run("DELETE FROM tasks WHERE id = ?", task_id)

    def remove_expired(self, expired: float) -> None:
        """Keep nothing of what ended before ``expired``."""
        self._run("DELETE FROM tasks WHERE ended > 0 AND ended < ?", expired)

    # Room

    def _check_share(self, tenant: str, size: int) -> None:
        ((tasks, total),) = self._rows(
            "SELECT COUNT(*), COALESCE(SUM(size), 0) FROM tasks WHERE tenant = ? AND ended = 0", tenant
        )
        share = self._tenant_share
        if tasks + 1 > max(1, share * self._max_tasks) or (tasks and total + size > share * self._max_bytes):
            raise QueueFull(
                f"{tasks} background tasks of this tenant have not ended, with {total} bytes: no more are kept "
                "(services.background.tenant_share)",
                retry_after=10,
            )

    def _over(self, tasks: int, size: int) -> str:
        """What there is too much of with so many tasks and bytes more: ``tasks``, ``bytes``, or nothing."""
        ((count, total),) = self._rows("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM tasks")
        if total + size > self._max_bytes:
            return "bytes"
        return "tasks" if count + tasks > self._max_tasks else ""

    def _remove_oldest(self, over: str, new: tuple[str, int, int], but: str) -> bool:
        """Remove the oldest answer of the tenant that has most of what there is too much of, with what ``new`` (tenant,
        tasks, bytes) adds; not that of ``but``. Whether there was one that could go."""
        used = {
            tenant: [tasks, size, done]
            for tenant, tasks, size, done in self._rows(
                "SELECT tenant, COUNT(*), SUM(size), SUM(ended > 0) FROM tasks GROUP BY tenant"
            )
        }
        own = used.setdefault(new[0], [0, 0, 0])
        own[0] += new[1]
        own[1] += new[2]
        which = 1 if over == "bytes" else 0
        with_answers = [tenant for tenant, each in used.items() if each[2]]
        if not with_answers:
            return False
        most = max(with_answers, key=lambda tenant: used[tenant][which])
        if new[1] and most != new[0] and used[new[0]][which] > used[most][which]:
            return False
        rows = self._rows(
            "SELECT id FROM tasks WHERE tenant = ? AND ended > 0 AND id != ? ORDER BY ended LIMIT 1", most, but
        )
        for row in rows:
            self.remove(row[0])
        return bool(rows)

    # SQLite

    def _connect(self, path: Path) -> None:
        _make_private(path)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        ((version,),) = self._rows("PRAGMA user_version")
        if version not in (0, VERSION):
            raise ConfigError(
                f"{path} was written by another version of this service (form {version}): set "
                "services.background.folder, or move it away"
            )
        ((found,),) = self._rows("PRAGMA quick_check(1)")
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            f"PRAGMA journal_size_limit = {JOURNAL_BYTES}",
            *_TABLES,
            f"PRAGMA user_version = {VERSION}",
        ):
            self._run(statement)

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
            if self._connection is not None and self._connection.in_transaction:
                self._run("ROLLBACK")
            raise

    def _run(self, statement: str, *values: Any) -> None:
        assert self._connection is not None
        self._connection.execute(statement, values).close()

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


_TOO_LARGE = encoded_answer(
    Answer(error=to_wire(PayloadTooLarge("there is no room for the answer (services.background.max_bytes)")))
)


def _make_private(path: Path) -> None:
    """Raises `ConfigError` for a file that others can read."""
    if path.exists():
        check_private(path, path.stat())
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def _moved_aside(path: Path) -> Path:
    """The damaged file under another name, as its journal: another program may save something of them."""
    aside = path.with_name(f"{FILE}.damaged")
    for suffix in ("-wal", "-shm"):
        aside.with_name(aside.name + suffix).unlink(missing_ok=True)
        if (journal := path.with_name(FILE + suffix)).exists():
            journal.rename(aside.with_name(aside.name + suffix))
    path.replace(aside)
    return aside
