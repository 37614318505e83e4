"""The items of conversations and responses, in order, each with its side."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from anywire.caller import Caller
from anywire.conversation_items import MAX_ITEMS, Item
from anywire.conversations import Items, Page, not_kept
from anywire.errors import PayloadTooLarge
from anywire_service_conversations.records import read
from anywire_service_conversations.room import RoomKeeper

ITEM_TABLES = (
    # ``side`` is 0 for what was given, 1 for what was answered.
    """CREATE TABLE items (
        owner TEXT NOT NULL,
        number INTEGER NOT NULL,
        id TEXT NOT NULL,
        side INTEGER NOT NULL,
        item BLOB NOT NULL,
        PRIMARY KEY (owner, number)
    ) WITHOUT ROWID""",
    "CREATE INDEX items_by_id ON items (id)",
)
GIVEN, MADE = 0, 1


class ItemKeeper(RoomKeeper):
    """Items, each with its ``owner``, a row of ``kept``. A history has at most ``max_history_bytes``."""

    def __init__(self, folder: Path, max_kept: int, max_bytes: int, max_history_bytes: int) -> None:
        super().__init__(folder, max_kept, max_bytes)
        self._max_history_bytes = max_history_bytes

    def item(self, owner: str, item_id: str) -> Item | None:
        rows = self._rows("SELECT item FROM items WHERE owner = ? AND id = ?", owner, item_id)
        return read(rows[0][0]) if rows else None

    def remove_item(self, owner: str, item_id: str) -> bool:
        """Whether there was one."""
        with self._transaction():
            rows = self._rows(
                "SELECT number, length(id) + length(item) FROM items WHERE owner = ? AND id = ?", owner, item_id
            )
            for number, size in rows:
                self._run("DELETE FROM items WHERE owner = ? AND number = ?", owner, number)
                self._run("UPDATE kept SET size = size - ?, used = ? WHERE id = ?", size, time.time(), owner)
        return bool(rows)

    def page(self, owner: str, page: Page, side: int | None = None) -> Items:
        """A part of the items of a conversation or a response, of one ``side`` of it. Raises `InvalidRequest` when
        there is no item ``page.after``."""
        number, sign, sides = -1, ">", "" if side is None else f"AND side = {int(side)}"
        if page.order == "desc":
            number, sign = 2**62, "<"
        if page.after:
            rows = self._rows(f"SELECT number FROM items WHERE owner = ? AND id = ? {sides}", owner, page.after)
            if not rows:
                raise not_kept("item", page.after, "after")
            number = rows[0][0]
        found = self._rows(
            f"SELECT item FROM items WHERE owner = ? AND number {sign} ? {sides} ORDER BY number {page.order} LIMIT ?",
            owner,
            number,
            page.limit + 1,
        )
        return Items([read(item) for (item,) in found[: page.limit]], len(found) > page.limit)

    def items(self, ids: Iterable[str], caller: Caller) -> dict[str, Item]:
        """Those of these that are kept and that ``caller`` may see. Raises `PayloadTooLarge` for more bytes than a
        history may have."""
        found: dict[str, Item] = {}
        total = 0
        for name in dict.fromkeys(ids):
            # A response and its conversation have the same items, and may be of two callers.
            rows = self._rows(
                "SELECT tenant, caller, owner, number, length(item) FROM items JOIN kept ON kept.id = owner "
                "WHERE items.id = ?",
                name,
            )
            for tenant, owner_id, owner, number, size in rows:
                if caller.may_end(Caller(owner_id, tenant)):
                    total += size
                    if total > self._max_history_bytes:
                        raise PayloadTooLarge(
                            f"the items that are named have more than {self._max_history_bytes} bytes "
                            "(services.conversations.max_history_bytes)"
                        )
                    ((item,),) = self._rows("SELECT item FROM items WHERE owner = ? AND number = ?", owner, number)
                    found[name] = read(item)
                    break
        return found

    # Inside

    def _add_items(self, owner: str, items: Sequence[tuple[str, bytes]], side: int) -> None:
        ((last,),) = self._rows("SELECT COALESCE(MAX(number), -1) FROM items WHERE owner = ?", owner)
        rows = [(owner, last + 1 + at, name, side, item) for at, (name, item) in enumerate(items)]
        self._run_many("INSERT INTO items VALUES (?, ?, ?, ?, ?)", rows)

    def _totals(self, owners: Sequence[str]) -> tuple[int, int]:
        """How many items they have, and of how many bytes."""
        count = total = 0
        for owner in owners:
            ((some, size),) = self._rows(
                "SELECT COUNT(*), COALESCE(SUM(length(id) + length(item)), 0) FROM items WHERE owner = ?", owner
            )
            count, total = count + some, total + size
        return count, total

    def _check_history(self, owner: str, count: int, size: int) -> None:
        if count > MAX_ITEMS or size > self._max_history_bytes:
            raise PayloadTooLarge(
                f"the history of {owner} would have {count} items of {size} bytes, at most {MAX_ITEMS} of "
                f"{self._max_history_bytes} are possible (services.conversations.max_history_bytes): begin a new one"
            )

    def _items_of(self, owners: Sequence[str]) -> list[Item]:
        found: list[Any] = []
        for owner in owners:
            found += self._rows("SELECT item FROM items WHERE owner = ? ORDER BY number", owner)
        return [read(item) for (item,) in found]
