"""What is kept of conversations and responses, and how it is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from anywire.caller import Caller
from anywire.conversation_items import Item
from anywire.conversations import KeptResponse

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What `read` raises for what it cannot read."""


class Conversation(NamedTuple):
    """``created`` is its Unix time in seconds."""

    conversation_id: str
    caller: Caller
    created: float
    metadata: dict[str, str]

    def view(self) -> dict[str, Any]:
        """As clients get it."""
        return {
            "id": self.conversation_id,
            "object": "conversation",
            "created_at": int(self.created),
            "metadata": self.metadata,
        }


class Written(NamedTuple):
    """A response as it is written: ``head`` is its object without the output. ``size`` is the bytes of all of it."""

    response_id: str
    caller: Caller
    previous: str
    conversation: str
    ended: bool
    head: bytes
    given: Sequence[tuple[str, bytes]]
    """The items of its input, each with its id."""
    made: Sequence[tuple[str, bytes]]
    """Those of its output."""
    size: int
    in_background: bool


def written(response: KeptResponse) -> Written:
    """Raises `UnicodeEncodeError` for text that has half a character."""
    head = encoded({name: value for name, value in response.response.items() if name != "output"})
    given, made = encoded_items(response.input), encoded_items(response.response["output"])
    size = len(head) + size_of(given) + size_of(made)
    return Written(
        response.response_id,
        response.caller,
        response.previous,
        response.conversation,
        response.ended,
        head,
        given,
        made,
        size,
        response.response.get("background") is True,
    )


def encoded(value: object) -> bytes:
    return _encode(value)


def encoded_items(items: Sequence[Item]) -> list[tuple[str, bytes]]:
    """Each with its id. Raises as `written`."""
    return [(each["id"], _encode(each)) for each in items]


def size_of(items: Sequence[tuple[str, bytes]]) -> int:
    return sum(len(name) + len(data) for name, data in items)


def read(data: bytes) -> dict[str, Any]:
    return _decode(data)
