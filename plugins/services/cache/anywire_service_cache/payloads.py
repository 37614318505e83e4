"""Where the bytes of kept answers are: in memory, or in a SQLite file that a thread of its own waits for."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from anywire.files.database_file import DatabaseFile, DatabaseForm
from anywire.files.database_thread import DatabaseThread, DiskFaults
from anywire_service_cache.entries import Entry

log = logging.getLogger(__name__)

FORM = DatabaseForm(
    "cache.sqlite3",
    (
        (
            """CREATE TABLE answers (
                key BLOB PRIMARY KEY,
                scope TEXT NOT NULL,
                model TEXT NOT NULL,
                digest TEXT NOT NULL,
                created REAL NOT NULL,
                grouped BLOB NOT NULL,
                vector BLOB NOT NULL,
                answer BLOB NOT NULL
            )""",
            "CREATE INDEX answers_by_age ON answers (created)",
        ),
    ),
    "kept answers",
    "services.cache.folder",
    "NORMAL",
)


class Payloads(Protocol):
    """What is done with them is done in the order of the calls. All raise `PluginFailed` when the disk does not do what
    it should."""

    async def open(self) -> bool:
        """False while another process has the file."""
        ...

    async def entries(self) -> Sequence[Entry]:
        """What is kept from before, the oldest first."""
        ...

    async def get(self, key: bytes) -> bytes | None: ...
    async def put(self, entry: Entry, answer: bytes) -> None: ...
    async def remove(self, keys: Iterable[bytes]) -> None: ...
    async def close(self) -> None:
        """Safe to call twice, and without `open`."""
        ...


class InMemory:
    def __init__(self) -> None:
        self._answers: dict[bytes, bytes] = {}

    async def open(self) -> bool:
        return True

    async def entries(self) -> Sequence[Entry]:
        return ()

    async def get(self, key: bytes) -> bytes | None:
        return self._answers.get(key)

    async def put(self, entry: Entry, answer: bytes) -> None:
        self._answers[entry.key] = answer

    async def remove(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._answers.pop(key, None)

    async def close(self) -> None:
        self._answers.clear()


class AnswerFile(DatabaseFile):
    """The file; one thread uses it."""

    form = FORM

    def entries(self) -> list[Entry]:
        columns = "key, scope, model, digest, created, grouped, vector, length(answer)"
        return [
            Entry(bytes(key), scope, model, digest, created, size, bytes(grouped), array("f", bytes(vector)))
            for key, scope, model, digest, created, grouped, vector, size in self._rows(
                f"SELECT {columns} FROM answers ORDER BY created"
            )
        ]

    def get(self, key: bytes) -> bytes | None:
        for (answer,) in self._rows("SELECT answer FROM answers WHERE key = ?", key):
            return bytes(answer)
        return None

    def put(self, entry: Entry, answer: bytes) -> None:
        self._run(
            "INSERT OR REPLACE INTO answers (key, scope, model, digest, created, grouped, vector, answer) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            entry.key,
            entry.scope,
            entry.model,
            entry.digest,
            entry.created,
            entry.group,
            entry.vector.tobytes(),
            answer,
        )

    def remove(self, keys: Sequence[bytes]) -> None:
        with self._transaction():
            self._run_many("DELETE FROM answers WHERE key = ?", [(key,) for key in keys])


class OnDisk:
    def __init__(self, folder: Path) -> None:
        self._file = AnswerFile(folder)
        self._thread = DatabaseThread("cache", DiskFaults(FORM.kept))
        self._closed = False

    async def open(self) -> bool:
        return await self._thread.do(self._file.open)

    async def entries(self) -> Sequence[Entry]:
        return await self._thread.do(self._file.entries)

    async def get(self, key: bytes) -> bytes | None:
        return await self._thread.do(lambda: self._file.get(key))

    async def put(self, entry: Entry, answer: bytes) -> None:
        await self._thread.do(lambda: self._file.put(entry, answer))

    async def remove(self, keys: Iterable[bytes]) -> None:
        gone = list(keys)
        await self._thread.do(lambda: self._file.remove(gone))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._thread.do(self._file.close)
            self._thread.end()
