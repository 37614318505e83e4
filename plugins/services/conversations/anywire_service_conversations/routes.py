"""What the service serves over HTTP: conversations and their items, in the form of OpenAI's API."""

from __future__ import annotations

from typing import Any

import msgspec

from anywire.conversation_items import Item, check_nesting, checked_items, checked_metadata
from anywire.conversations import Items, listed, not_kept, read_page
from anywire.errors import InvalidRequest
from anywire.large_body import LARGE_BYTES, read_large_body
from anywire.route import Request, Response, Route
from anywire_service_conversations.forms import (
    PAGE,
    ConversationDeleted,
    ConversationView,
    ItemList,
    NewConversation,
    NewItems,
    NewMetadata,
)
from anywire_service_conversations.kept import KeptConversations

MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_ADDED = 1000
"""Items that one request may add."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def conversation_routes(kept: KeptConversations) -> list[Route]:
    """All routes of the service, for `anywire.route.Routes.add`."""
    own = ConversationHandlers(kept)
    base, one = "/conversations", "/conversations/{id}"
    items, item = f"{one}/items", f"{one}/items/{{item}}"
    return [
        Route(
            "POST",
            base,
            own.create,
            body_limit=MAX_BODY_BYTES,
            summary="Begin a conversation, with items or none.",
            takes=NewConversation,
            gives=ConversationView,
        ),
        Route("GET", one, own.get, summary="Tell when a conversation began, and its metadata.", gives=ConversationView),
        Route(
            "POST",
            one,
            own.update,
            summary="Replace the metadata of a conversation.",
            takes=NewMetadata,
            gives=ConversationView,
        ),
        Route(
            "DELETE",
            one,
            own.delete,
            summary="Keep nothing of a conversation any more.",
            gives=ConversationDeleted,
        ),
        Route(
            "POST",
            items,
            own.add,
            body_limit=MAX_BODY_BYTES,
            summary="Add items at the end of a conversation.",
            takes=NewItems,
            gives=ItemList,
        ),
        Route(
            "GET",
            items,
            own.list,
            summary="List the items of a conversation, the newest first.",
            gives=ItemList,
            query=PAGE,
        ),
        Route("GET", item, own.item, summary="Tell one item of a conversation.", gives=Item),
        Route(
            "DELETE",
            item,
            own.remove,
            summary="Take one item out of a conversation.",
            gives=ConversationView,
        ),
    ]


class ConversationHandlers:
    def __init__(self, kept: KeptConversations) -> None:
        self._kept = kept

    async def create(self, request: Request) -> Response:
        body = await _body(request)
        items = _given(body.get("items"))
        metadata = checked_metadata(body.get("metadata"))
        return _answer((await self._kept.create(request.caller, items, metadata)).view())

    async def get(self, request: Request) -> Response:
        return _answer((await self._kept.conversation(_id(request), request.caller)).view())

    async def update(self, request: Request) -> Response:
        body = await _body(request)
        if "metadata" not in body:
            raise InvalidRequest("metadata is required", param="metadata")
        metadata = checked_metadata(body["metadata"])
        return _answer((await self._kept.set_metadata(_id(request), request.caller, metadata)).view())

    async def delete(self, request: Request) -> Response:
        name = _id(request)
        await self._kept.delete(name, request.caller)
        return _answer({"id": name, "object": "conversation.deleted", "deleted": True})

    async def add(self, request: Request) -> Response:
        body = await _body(request)
        if "items" not in body:
            raise InvalidRequest("items is required", param="items")
        items = _given(body["items"])
        await self._kept.append(_id(request), request.caller, items)
        return _answer(listed(Items(items, False)))

    async def list(self, request: Request) -> Response:
        page = read_page(request.query)
        return _answer(listed(await self._kept.page(_id(request), request.caller, page)))

    async def item(self, request: Request) -> Response:
        return _answer(await self._kept.item(_id(request), request.caller, request.names.get("item", "")))

    async def remove(self, request: Request) -> Response:
        found = await self._kept.remove_item(_id(request), request.caller, request.names.get("item", ""))
        return _answer(found.view())


def _id(request: Request) -> str:
    return request.names.get("id", "")


def _answer(value: object) -> Response:
    return Response(_encode(value))


async def _body(request: Request) -> dict[str, Any]:
    if not request.body:
        return {}
    text: bytes | str = request.body
    if len(text) > LARGE_BYTES:  # what would take long to decode is refused there
        text, _ = await read_large_body(text, MAX_BODY_BYTES)
    try:
        body = _decode(text)
        request.body.decode()
        check_nesting(body)  # half of a surrogate pair is no text that could be kept either
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"the body must be a JSON object: {error}") from error
    return body


def _given(items: object) -> list[Item]:
    if items is None:
        return []
    if isinstance(items, list):
        if len(items) > MAX_ADDED:
            raise InvalidRequest(
                f"items has {len(items)} members, at most {MAX_ADDED} are taken at once", param="items"
            )
        for at, each in enumerate(items):
            if isinstance(each, dict) and each.get("type") == "item_reference":
                raise not_kept("item", str(each.get("id", ""))[:128], f"items[{at}]")
    return checked_items(items, "items")
