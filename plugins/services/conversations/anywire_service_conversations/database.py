"""The file of conversations and responses: a SQLite database of this user alone. One thread uses it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from anywire.caller import Caller
from anywire.conversation_items import MAX_ITEMS, Item
from anywire.conversations import KeptResponse, not_kept
from anywire.files.database_file import DatabaseForm
from anywire_service_conversations.items import GIVEN, ITEM_TABLES, MADE, ItemKeeper
from anywire_service_conversations.records import UNREADABLE, Conversation, Written, encoded, read, size_of
from anywire_service_conversations.room import ROOM_TABLES

log = logging.getLogger(__name__)

FILE = "conversations.sqlite3"
FORM = DatabaseForm(
    FILE, ((*ROOM_TABLES, *ITEM_TABLES),), "conversations and responses", "services.conversations.folder"
)
_RESPONSE, _CONVERSATION = "response", "conversation"


class Database(ItemKeeper):
    """The database in ``folder``, with the bounds of `RoomKeeper` and `ItemKeeper`.

    Each method is one transaction, and on the disk when it returns. All raise `sqlite3.Error` when the disk does not do
    what it should; nothing has changed then."""

    form = FORM

    # Conversations

    def add_conversation(self, conversation: Conversation, items: Sequence[tuple[str, bytes]], expired: float) -> None:
        """Keep a new one. Raises `QueueFull` and `PayloadTooLarge`."""
        metadata = encoded(conversation.metadata)
        with self._transaction():
            self._make_room(conversation.caller.tenant, 1, len(metadata), expired)
            self._run(
                "INSERT INTO kept (id, kind, tenant, caller, created, used, ended, size, data) "
                "VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?)",
                conversation.conversation_id,
                _CONVERSATION,
                conversation.caller.tenant,
                conversation.caller.id,
                conversation.created,
                conversation.created,
                len(metadata),
                metadata,
            )
            self._append(conversation.conversation_id, items, GIVEN, expired)

    def conversation(self, conversation_id: str) -> Conversation | None:
        for tenant, caller, created, data in self._kept(
            conversation_id, _CONVERSATION, "tenant, caller, created, data"
        ):
            return Conversation(conversation_id, Caller(caller, tenant), created, read(data))
        return None

    def set_metadata(self, conversation_id: str, metadata: bytes) -> None:
        self._run(
            "UPDATE kept SET size = size - length(data) + ?, data = ?, used = ? WHERE id = ?",
            len(metadata),
            metadata,
            time.time(),
            conversation_id,
        )

    def append(self, conversation_id: str, items: Sequence[tuple[str, bytes]], expired: float) -> None:
        """Add items that a client gives. Raises `QueueFull`, `PayloadTooLarge`, and `InvalidRequest` (404) when there
        is no such conversation."""
        with self._transaction():
            self._append(conversation_id, items, GIVEN, expired)
            self._run("UPDATE kept SET used = ? WHERE id = ?", time.time(), conversation_id)

    # Responses

    def begin(self, response: Written, key: str, digest: bytes, expired: float) -> None:
        """Keep one that has not ended. Raises `QueueFull`."""
        with self._transaction():
            self._make_room(response.caller.tenant, 1, response.size, expired)
            self._insert(response, key, digest)
            self._add_items(response.response_id, response.given, GIVEN)

    def end(self, response: Written, store: bool, key: str, digest: bytes, adds: bool, expired: float) -> bool:
        """Keep how a response has ended, and with ``adds`` give its items to its conversation. False when nothing was
        changed: it has ended already, or was removed after it had begun. Raises `QueueFull`, `PayloadTooLarge`, and
        `InvalidRequest` (404) when its conversation is not kept any more."""
        with self._transaction():
            begun = self._kept(response.response_id, _RESPONSE, "ended, key, digest")
            if (begun and begun[0][0]) or (not begun and response.in_background):
                return False
            given = response.given
            if begun:
                # Whoever ends it has not read what it was asked with.
                rows = "SELECT id, item FROM items WHERE owner = ? AND side = ? ORDER BY number"
                given = self._rows(rows, response.response_id, GIVEN)
                key, digest = (begun[0][1] or "", begun[0][2]) if adds else ("", b"")
                self._remove(response.response_id)
            if store:
                response = response._replace(size=size_of(given) + size_of(response.made) + len(response.head))
                self._make_room(response.caller.tenant, 1, response.size, expired, response.conversation)
                self._insert(response, key, digest)
                self._add_items(response.response_id, given, GIVEN)
                self._add_items(response.response_id, response.made, MADE)
            if adds and response.conversation:
                self._append(response.conversation, given, GIVEN, expired, response.response_id)
                self._append(response.conversation, response.made, MADE, expired, response.response_id)
                self._run("UPDATE kept SET used = ? WHERE id = ?", time.time(), response.conversation)
        return True

    def response(self, response_id: str) -> KeptResponse | None:
        """Without its input."""
        rows = self._kept(response_id, _RESPONSE, _RESPONSE_COLUMNS)
        return self._read_response(rows[0]) if rows else None

    def by_key(self, key: str, expired: float) -> tuple[KeptResponse, bytes] | None:
        """The response to the request with this key, and its digest."""
        rows = self._rows(f"SELECT {_RESPONSE_COLUMNS}, digest FROM kept WHERE key = ? AND used >= ?", key, expired)
        for row in rows:
            found = self._read_response(row[:-1])
            return (found, row[-1]) if found is not None else None
        return None

    def running(self) -> list[KeptResponse]:
        """Those that have not ended, without their input, the oldest first."""
        rows = self._rows(f"SELECT {_RESPONSE_COLUMNS} FROM kept WHERE ended = 0 ORDER BY created")
        return [each for row in rows if (each := self._read_response(row)) is not None]

    def remove(self, name: str) -> None:
        """Keep nothing of a response or a conversation."""
        with self._transaction():
            self._remove(name)

    # Histories

    def history(self, previous: str, conversation: str) -> tuple[list[Item], str]:
        """The items of a conversation, or of the response ``previous`` and all before it, and the id of what they
        belong to; all of that counts as used now. Raises `InvalidRequest` and `PayloadTooLarge`."""
        if conversation:
            self._check_history(conversation, *self._totals([conversation]))
            self._run("UPDATE kept SET used = ? WHERE id = ?", time.time(), conversation)
            return self._items_of([conversation]), conversation
        chain = self._rows(_CHAIN, previous, MAX_ITEMS)
        names = [name for name, _ in reversed(chain)]
        if not chain:
            raise not_kept("response", previous, "previous_response_id")
        if chain[-1][1]:
            raise not_kept("previous_response", chain[-1][1], "previous_response_id")
        self._check_history(previous, *self._totals(names))
        with self._transaction():
            now = time.time()
            self._run_many("UPDATE kept SET used = ? WHERE id = ?", [(now, name) for name in names])
        return self._items_of(names), names[0]

    # Inside

    def _kept(self, name: str, kind: str, columns: str) -> Sequence[Any]:
        return self._rows(f"SELECT {columns} FROM kept WHERE id = ? AND kind = ?", name, kind)

    def _insert(self, response: Written, key: str, digest: bytes) -> None:
        now = time.time()
        self._run(
            "INSERT INTO kept (id, kind, tenant, caller, created, used, ended, size, previous, conversation, key, "
            "digest, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            response.response_id,
            _RESPONSE,
            response.caller.tenant,
            response.caller.id,
            now,
            now,
            response.ended,
            response.size,
            response.previous,
            response.conversation,
            key or None,
            digest,
            response.head,
        )

    def _append(
        self, conversation: str, items: Sequence[tuple[str, bytes]], side: int, expired: float, *but: str
    ) -> None:
        """``but`` does not make room for it."""
        rows = self._kept(conversation, _CONVERSATION, "tenant")
        if not rows:
            raise not_kept("conversation", conversation, "conversation")
        size = size_of(items)
        count, total = self._totals([conversation])
        self._check_history(conversation, count + len(items), total + size)
        self._make_room(rows[0][0], 0, size, expired, conversation, *but)
        self._add_items(conversation, items, side)
        self._run("UPDATE kept SET size = size + ? WHERE id = ?", size, conversation)

    def _read_response(self, row: Sequence[Any]) -> KeptResponse | None:
        """One that cannot be read is removed, and None."""
        name, tenant, caller, ended, previous, conversation, head = row
        try:
            response = read(head)
            output = [
                read(item)
                for (item,) in self._rows(
                    "SELECT item FROM items WHERE owner = ? AND side = ? ORDER BY number", name, MADE
                )
            ]
        except UNREADABLE as error:
            log.error("the response %s is lost: what is kept of it is damaged: %s", name, error)
            self._remove(name)
            return None
        response["output"] = output
        return KeptResponse(name, Caller(caller, tenant), response, (), previous, conversation, bool(ended))


_RESPONSE_COLUMNS = "id, tenant, caller, ended, previous, conversation, data"
_CHAIN = """WITH RECURSIVE chain (id, previous, depth) AS (
    SELECT id, previous, 0 FROM kept WHERE id = ? AND kind = 'response'
    UNION ALL
    SELECT kept.id, kept.previous, depth + 1 FROM kept JOIN chain ON kept.id = chain.previous
    WHERE kept.kind = 'response' AND depth < ?
) SELECT id, previous FROM chain ORDER BY depth"""
"""A response and all before it, the newest first."""
