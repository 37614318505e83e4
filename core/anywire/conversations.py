"""Kept conversations and responses: what a service named ``conversations`` offers to gateways
(`anywire.context.Services.get`).

A conversation is a list of items (`anywire.conversation_items`). A response has the items that it was asked with and
those that it was answered with; it goes on from an earlier response, from a conversation, or from nothing. Whoever
answers reads the history, gives it to a model, and keeps the answer before the client is told that it is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from anywire.caller import Caller
from anywire.conversation_items import Item
from anywire.errors import InvalidRequest

SERVICE = "conversations"
MAX_PAGE = 100
"""Items of one page of a list."""
LOCKED_RETRY_S = 1.0


class KeptResponse(msgspec.Struct, frozen=True):
    """One response. ``response`` is the object that clients get, with ``output``, the items of the answer; ``input``
    are the items that it was asked with. ``previous`` is the id of the response that it goes on from, ``conversation``
    that of its conversation; both are empty for none. ``ended`` is False for one that runs in the background."""

    response_id: str
    caller: Caller
    response: dict[str, Any]
    input: tuple[Item, ...] = ()
    previous: str = ""
    conversation: str = ""
    ended: bool = True


class History(NamedTuple):
    """``items`` in order; ``root`` names what all of it belongs to: the conversation, or the first response."""

    items: list[Item]
    root: str


class Page(NamedTuple):
    """A part of a list of items. ``after`` is the id of the item before it, in the order of the list."""

    after: str = ""
    limit: int = 20
    order: Literal["asc", "desc"] = "desc"


class Items(NamedTuple):
    items: list[Item]
    has_more: bool


class Conversations(Protocol):
    """All calls are made on the event loop. All raise `PluginFailed` when the disk does not do what it should, and
    `ShuttingDown` while an earlier process still has the file. Who may see and change a conversation or a response is
    decided by `anywire.caller.Caller.may_end`; for others it is not there."""

    async def history(self, caller: Caller, *, previous: str = "", conversation: str = "") -> History:
        """All items before a new response, the oldest first; what they belong to counts as used. Raises
        `InvalidRequest` (404) when there is no such response or conversation, also when an earlier part of the history
        is not kept any more, and for a response that has not ended, has no answer, or belongs to a conversation."""
        ...

    async def items(self, ids: Sequence[str], caller: Caller) -> Mapping[str, Item]:
        """Those of these items that are kept, by id. Raises `PayloadTooLarge` when they have more bytes than a history
        may have."""
        ...

    async def check_conversation(self, conversation: str, caller: Caller) -> None:
        """Raises `InvalidRequest` (404) when there is no such conversation. Call it before `occupy`."""
        ...

    def occupy(self, conversation: str) -> Callable[[], None]:
        """Let no other response and no change of its items into a conversation until what is returned is called.
        Raises `InvalidRequest` (409) when it is occupied."""
        ...

    async def begin(self, response: KeptResponse, *, key: str = "", digest: bytes = b"") -> None:
        """Keep a response that runs in the background. ``key`` and ``digest`` as in `end`. Raises `QueueFull` when
        there is no room."""
        ...

    async def end(self, response: KeptResponse, *, store: bool = True, key: str = "", digest: bytes = b"") -> bool:
        """Keep how a response has ended, and, if it was answered, add its items to its conversation: both or nothing,
        and on the disk when this returns. The input of one that was begun is kept already, and so is its key, which is
        free again when it has failed. False when it has ended already, or was removed while it ran in the
        background: nothing is changed then. Without ``store`` only the conversation gets its items. ``key`` is that of
        a request that may be sent again, ``digest`` tells what it asked for. Raises `QueueFull` when there is no room,
        `PayloadTooLarge` for a conversation that would be too long, and `InvalidRequest` (404) for one that is not
        kept any more."""
        ...

    async def by_key(self, key: str) -> tuple[KeptResponse, bytes] | None:
        """The response to the request with this key, and the digest of what that asked for."""
        ...

    async def get(self, response_id: str, caller: Caller) -> KeptResponse | None:
        """Without its input."""
        ...

    async def input_items(self, response_id: str, caller: Caller, page: Page) -> Items | None:
        """What a response was asked with, without its history. Raises `InvalidRequest` when ``page.after`` is none of
        them."""
        ...

    async def remove(self, response_id: str, caller: Caller) -> bool:
        """Keep nothing of a response any more, and nothing that goes on from it can be asked. The items that it has
        given to a conversation stay. False when there is no such response."""
        ...

    async def running(self) -> list[KeptResponse]:
        """Those that have not ended, without their input, as soon as the file is open."""
        ...


def locked(conversation: str) -> InvalidRequest:
    """The error for a second response, or a change, while a conversation is being answered."""
    return InvalidRequest(
        f"the conversation {conversation[:128]!r} is being answered: send the next turn when that has ended",
        param="conversation",
        status=409,
        detail_code="conversation_locked",
        retry_after=LOCKED_RETRY_S,
    )


def not_kept(what: str, name: str, param: str = "") -> InvalidRequest:
    """The error for a response, a conversation or an item (``what``) that is not kept, or is another tenant's."""
    return InvalidRequest(
        f"there is no {what} {name[:128]!r} (any more)", param=param, status=404, detail_code=f"{what}_not_found"
    )


def read_page(query: Mapping[str, str]) -> Page:
    """The part of a list that ``?after=…&limit=…&order=…`` ask for. Raises `InvalidRequest`."""
    text, order = query.get("limit", "20"), query.get("order", "desc")
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidRequest(f"limit must be a number from 1 to {MAX_PAGE}, got {text[:64]!r}", param="limit")
    if order not in ("asc", "desc"):
        raise InvalidRequest(f"order must be asc or desc, got {order[:64]!r}", param="order")
    return Page(query.get("after", ""), limit, "asc" if order == "asc" else "desc")


def listed(page: Items) -> dict[str, Any]:
    """A page in OpenAI's form."""
    ids = [each["id"] for each in page.items]
    return {
        "object": "list",
        "data": page.items,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": page.has_more,
    }
