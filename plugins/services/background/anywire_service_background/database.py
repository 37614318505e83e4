"""The file of background tasks and their answers: a SQLite database of this user alone. One thread uses it."""

from __future__ import annotations

import logging
from pathlib import Path

from anywire.errors import PayloadTooLarge, QueueFull, to_wire
from anywire.files.database_file import DatabaseFile, DatabaseForm
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

FILE = "tasks.sqlite3"
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
FORM = DatabaseForm(FILE, (_TABLES,), "background tasks and answers", "services.background.folder")


class Database(DatabaseFile):
    """The database in ``folder``. At most ``max_tasks`` with ``max_bytes`` are kept, of which those of one tenant that
    have not ended take ``tenant_share`` at most.

    Each method is one transaction, and on the disk when it returns. All raise `sqlite3.Error` when the disk does not do
    what it should; nothing has changed then."""

    form = FORM

    def __init__(self, folder: Path, max_tasks: int, max_bytes: int, tenant_share: float) -> None:
        super().__init__(folder)
        self._max_tasks, self._max_bytes, self._tenant_share = max_tasks, max_bytes, tenant_share

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


_TOO_LARGE = encoded_answer(
    Answer(error=to_wire(PayloadTooLarge("there is no room for the answer (services.background.max_bytes)")))
)
