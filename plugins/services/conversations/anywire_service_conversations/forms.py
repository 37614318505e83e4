"""What the service's routes take and give, for the description of the API."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from anywire.conversations import MAX_PAGE

Object = dict[str, Any]


class NewConversation(msgspec.Struct):
    items: list[Object] | None = None
    metadata: Object | None = None


class NewMetadata(msgspec.Struct):
    metadata: Object | None


class NewItems(msgspec.Struct):
    items: list[Object]


class ConversationView(msgspec.Struct):
    """A conversation. ``created_at`` is its Unix time in seconds."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]


class ConversationDeleted(msgspec.Struct):
    id: str
    object: Literal["conversation.deleted"]
    deleted: bool


class ItemList(msgspec.Struct):
    """Items of a conversation. ``after`` of the next page is ``last_id``."""

    object: Literal["list"]
    data: list[Object]
    first_id: str | None
    last_id: str | None
    has_more: bool


PAGE = {
    "after": "The id of the item before the first.",
    "limit": f"Items of a page, 1 to {MAX_PAGE}; 20 without it.",
    "order": "`desc`, the newest first, or `asc`.",
}
