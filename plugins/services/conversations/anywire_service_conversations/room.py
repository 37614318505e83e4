"""How many conversations and responses are kept, of how many bytes: whose go where there is no room."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anywire.errors import QueueFull
from anywire.files.database_file import DatabaseFile

ROOM_TABLES = (
    """CREATE TABLE kept (
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        tenant TEXT NOT NULL,
        caller TEXT NOT NULL,
        created REAL NOT NULL,
        used REAL NOT NULL,
        ended INTEGER NOT NULL,
        size INTEGER NOT NULL,
        previous TEXT NOT NULL DEFAULT '',
        conversation TEXT NOT NULL DEFAULT '',
        key TEXT UNIQUE,
        digest BLOB NOT NULL DEFAULT x'',
        data BLOB NOT NULL
    )""",
    "CREATE INDEX kept_by_use ON kept (ended, used)",
    "CREATE INDEX kept_by_tenant ON kept (tenant, ended, used, size)",
)
RETRY_S = 10.0


class RoomKeeper(DatabaseFile):
    """At most ``max_kept`` rows of ``kept`` with ``max_bytes``, their ``items`` included in the ``size`` of each."""

    def __init__(self, folder: Path, max_kept: int, max_bytes: int) -> None:
        super().__init__(folder)
        self._max_kept, self._max_bytes = max_kept, max_bytes

    def remove_expired(self, expired: float) -> None:
        """Keep nothing that has ended and was not used since ``expired``, a Unix time in seconds."""
        with self._transaction():
            self._remove_expired(expired)

    def _make_room(self, tenant: str, count: int, size: int, expired: float, *but: str) -> None:
        """Make room for ``count`` more with ``size`` bytes, of ``tenant``: what was not used since ``expired`` goes
        first, then what the tenant that has the most has not used for the longest time; ``but`` never goes. Where that
        tenant has nothing that may go, the next one gives way that has no less than ``tenant``. Within a transaction.
        Raises `QueueFull` when nothing may go."""
        self._remove_expired(expired)
        ((kept, total),) = self._rows("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM kept")
        if kept + count <= self._max_kept and total + size <= self._max_bytes:
            return
        used = {
            name: [some, taken]
            for name, some, taken in self._rows("SELECT tenant, COUNT(*), SUM(size) FROM kept GROUP BY tenant")
        }
        own = used.setdefault(tenant, [0, 0])
        own[0], own[1] = own[0] + count, own[1] + size
        kept, total = kept + count, total + size
        while kept > self._max_kept or total > self._max_bytes:
            which = 1 if total > self._max_bytes else 0
            giving = [name for name in used if used[name][which] >= own[which]]
            giving.sort(key=lambda name: used[name][which], reverse=True)
            found = next((each for name in giving if (each := self._longest_unused(name, but))), None)
            if found is None:
                raise QueueFull(
                    "there is no room for another response or conversation (services.conversations.max_kept, "
                    "max_bytes)",
                    retry_after=RETRY_S,
                )
            owner, name, freed = found
            self._remove(name)
            used[owner] = [used[owner][0] - 1, used[owner][1] - freed]
            own = used[tenant]
            kept, total = kept - 1, total - freed

    def _longest_unused(self, tenant: str, but: Sequence[str]) -> tuple[str, str, int] | None:
        """Whose it is, its id and its size."""
        rows = self._rows(
            "SELECT tenant, id, size FROM kept WHERE tenant = ? AND ended = 1 ORDER BY used LIMIT ?",
            tenant,
            len(but) + 1,
        )
        return next((each for each in rows if each[1] not in but), None)

    def _remove_expired(self, expired: float) -> None:
        for (name,) in self._rows("SELECT id FROM kept WHERE ended = 1 AND used < ?", expired):
            self._remove(name)

    def _remove(self, name: str) -> None:
        self._run("DELETE FROM items WHERE owner = ?", name)
        self._run("DELETE FROM kept WHERE id = ?", name)
