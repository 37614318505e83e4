"""The file of counted answers: a SQLite database of this user alone. One thread uses it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from anywire.collected_answers import CollectedAnswer, CollectedTask
from anywire.files.database_file import DatabaseFile, DatabaseForm
from anywire_service_nats.collector.counting import counted, timed
from anywire_service_nats.collector.heard import Heard, shortened

log = logging.getLogger(__name__)

MAX_TASK_BYTES = 2 * 1024 * 1024
"""Bytes of one task, all of which are read and written with each answer: of what comes then the beginning is kept."""
FILE = "collected.sqlite3"
_TABLES = (
    """CREATE TABLE tasks (
        id TEXT PRIMARY KEY,
        began REAL NOT NULL,
        deadline REAL NOT NULL,
        ended REAL NOT NULL,
        told INTEGER NOT NULL,
        size INTEGER NOT NULL,
        state BLOB NOT NULL
    )""",
    "CREATE INDEX by_deadline ON tasks (ended, deadline)",
    "CREATE INDEX by_told ON tasks (told, ended)",
)
FORM = DatabaseForm(FILE, (_TABLES,), "answers of other agents", "services.nats.folder")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(CollectedTask).decode
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


class Outcome(NamedTuple):
    """What came of one answer: whether it is kept (there was room), whether it has changed its task, and whether its
    task had ended before."""

    kept: bool
    new: bool = False
    late: bool = False


class Database(DatabaseFile):
    """At most ``max_tasks`` with ``max_bytes`` are kept; where there is no room, tasks go that have ended and been
    told, the oldest first.

    Each method is one transaction, and on the disk when it returns. All raise `sqlite3.Error` when the disk does not do
    what it should; nothing has changed then."""

    form = FORM

    def __init__(self, folder: Path, max_tasks: int, max_bytes: int) -> None:
        super().__init__(folder)
        self._max_tasks, self._max_bytes = max_tasks, max_bytes
        self._total: tuple[int, int] | None = None
        """Tasks that are kept, and their bytes; None where it must be counted."""

    def count(self, heard: Sequence[Heard], seconds: float) -> list[Outcome]:
        """Count these in their order; a task that begins has ``seconds`` to end."""
        with self._transaction():
            return [self._count(each, seconds) for each in heard]

    def end_late(self, now: float) -> None:
        """End the tasks whose time is over."""
        with self._transaction():
            for (state,) in self._rows("SELECT state FROM tasks WHERE ended = 0 AND deadline <= ?", now):
                task = timed(_decode(state), now)
                self._write(task, _encode(task))

    def next_deadline(self) -> float:
        """Of the tasks that have not ended; 0 when there is none."""
        ((first,),) = self._rows("SELECT min(deadline) FROM tasks WHERE ended = 0")
        return first or 0.0

    def untold(self, most: int) -> list[CollectedTask]:
        """Tasks that have ended and that nobody was told of, the first that ended first."""
        rows = self._rows("SELECT state FROM tasks WHERE told = 0 AND ended > 0 ORDER BY ended LIMIT ?", most)
        return [_decode(state) for (state,) in rows]

    def told(self, task_ids: Iterable[str]) -> None:
        with self._transaction():
            self._run_many("UPDATE tasks SET told = 1 WHERE id = ?", [(each,) for each in task_ids])

    def get(self, task_id: str) -> CollectedTask | None:
        for (state,) in self._rows("SELECT state FROM tasks WHERE id = ?", task_id):
            try:
                return _decode(state)
            except _UNREADABLE as error:
                log.error("what was collected for a task is lost: it cannot be read: %s", error)
                self._total = None
                self._run("DELETE FROM tasks WHERE id = ?", task_id)
        return None

    def list(self, limit: int) -> list[CollectedTask]:
        """The newest first, without what their agents proposed."""
        rows = self._rows("SELECT state FROM tasks ORDER BY began DESC LIMIT ?", limit)
        return [_without_texts(_decode(state)) for (state,) in rows]

    def counts(self) -> tuple[int, int]:
        """How many tasks have not ended, and how many are kept."""
        ((running, kept),) = self._rows("SELECT count(*) FILTER (WHERE ended = 0), count(*) FROM tasks")
        return running, kept

    def remove_expired(self, ended_before: float) -> None:
        self._total = None
        self._run("DELETE FROM tasks WHERE told = 1 AND ended > 0 AND ended < ?", ended_before)

    # Inside

    def _forget(self) -> None:
        self._total = None

    def _count(self, heard: Heard, seconds: float) -> Outcome:
        before = self.get(heard.task_id)
        after = counted(before, heard, seconds)
        if after is before:
            return Outcome(kept=True, late=before.is_final)
        state = _encode(after)
        if len(state) > MAX_TASK_BYTES:
            after = counted(before, shortened(heard), seconds)
            state = _encode(after)
        ((tasks, size),) = self._rows("SELECT 1 - count(*), total(size) FROM tasks WHERE id = ?", heard.task_id)
        size = len(state) - int(size)
        if not self._make_room(tasks, size):
            return Outcome(kept=False)
        self._write(after, state)
        self._total = (self._counted[0] + tasks, self._counted[1] + size)
        return Outcome(kept=True, new=True)

    def _write(self, task: CollectedTask, state: bytes) -> None:
        self._run(
            "INSERT INTO tasks VALUES (?, ?, ?, ?, 0, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "ended = excluded.ended, size = excluded.size, state = excluded.state",
            task.task_id,
            task.began,
            task.deadline,
            task.ended,
            len(state),
            state,
        )

    @property
    def _counted(self) -> tuple[int, int]:
        if self._total is None:
            ((count, size),) = self._rows("SELECT count(*), coalesce(sum(size), 0) FROM tasks")
            self._total = count, size
        return self._total

    def _make_room(self, tasks: int, size: int) -> bool:
        """Whether there is room for as many more tasks, and bytes, once what may go has gone."""
        while self._counted[0] + tasks > self._max_tasks or self._counted[1] + size > self._max_bytes:
            oldest = self._rows("SELECT id, size FROM tasks WHERE told = 1 AND ended > 0 ORDER BY ended LIMIT 1")
            if not oldest:
                return False
            task_id, freed = oldest[0]
            self._total = self._counted[0] - 1, self._counted[1] - freed
            self._run("DELETE FROM tasks WHERE id = ?", task_id)
        return True


def _without_texts(task: CollectedTask) -> CollectedTask:
    answers: tuple[CollectedAnswer, ...] = tuple(msgspec.structs.replace(each, proposal=None) for each in task.answers)
    return msgspec.structs.replace(task, answers=answers)
