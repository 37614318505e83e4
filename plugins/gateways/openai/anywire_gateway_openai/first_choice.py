"""What the first choice of a chat's answer says, for APIs whose answers have one choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from anywire.errors import StreamCorrupted
from anywire_gateway_openai.answers import LARGE_CHARS, checked_json, split

MAX_PIECE_PARTS = 200_000
"""Lists, objects or commas of one piece that an engine made."""

Piece = Mapping[str, Any]
"""What one step of an answer adds to a message: a ``delta``, or a whole ``message``."""

_choices = msgspec.json.Decoder(list[dict[str, Any]]).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode


def first_choices(extra: str) -> list[dict[str, Any]]:
    """The choices of a chunk's ``extra`` that belong to the first one of the answer. Raises `StreamCorrupted`."""
    if len(extra) > LARGE_CHARS and max(extra.count(mark) for mark in "[{,") > MAX_PIECE_PARTS:
        raise StreamCorrupted(
            f"the agent sent an answer with more than {MAX_PIECE_PARTS} lists, objects or commas", phase="streaming"
        )
    try:
        choices = _choices(bytes(split(extra)[0]))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise StreamCorrupted(f"the agent sent choices that cannot be read: {error}", phase="streaming") from error
    return [choice for choice in choices if choice.get("index", 0) == 0]


def piece_of(choice: Mapping[str, Any]) -> Piece:
    """What a choice adds to the message, empty for nothing."""
    piece = choice.get("delta") or choice.get("message")
    return piece if isinstance(piece, dict) else {}


class CallNumbers:
    """Which call of a tool a piece belongs to: a number for each, in the order in which they begin.

    The ``index`` of a piece names it. Some servers give every call the same one, or none: then an ``id`` of its own
    with a name begins a call, and a name alone where there is no index. A piece with neither goes on with the
    newest."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._by_index: dict[int, int] = {}
        self._by_id: dict[str, int] = {}

    def of(self, calls: Sequence[Mapping[str, Any]]) -> list[int]:
        """The numbers of what one piece of an answer has of calls. Without an index these are calls apart."""
        before = len(self._ids)
        return [self._number(call, before) for call in calls]

    def _number(self, call: Mapping[str, Any], before: int) -> int:
        index, own_id, name = call.get("index"), call_id(call), called(call)
        known = self._by_id.get(own_id) if own_id else None
        number: int | None = None
        if type(index) is int:
            number = self._by_index.get(index)
            if number is not None and own_id and name and self._ids[number] not in ("", own_id):
                number = None
            elif number is None and own_id and not name:
                number = known
        elif known is not None and known < before:
            number = known
        elif before and not name:
            number = before - 1
        if number is None:
            number = len(self._ids)
            self._ids.append("")
        self._ids[number] = self._ids[number] or own_id
        if self._ids[number]:
            self._by_id[self._ids[number]] = number
        if type(index) is int:
            self._by_index[index] = number
        return number


def call_id(call: Mapping[str, Any]) -> str:
    """The id of a piece of a call; empty without."""
    return str(call.get("id") or "")


def called(call: Mapping[str, Any]) -> str:
    """The name of the tool in a piece of a call, or a part of it; empty without."""
    function = call.get("function")
    return str(function.get("name") or "") if isinstance(function, dict) else ""


class TokenCounts(NamedTuple):
    """Tokens of a prompt and of its answer. ``cached`` are those of the prompt that were not read again, ``thought``
    those of the answer that a model spent on reasoning. ``total`` is as it was told."""

    given: int = 0
    made: int = 0
    cached: int = 0
    thought: int = 0
    total: int = 0


def token_counts(usage: str) -> TokenCounts | None:
    """What a chunk's ``usage`` tells, None where it tells nothing. Raises `StreamCorrupted`."""
    if not usage:
        return None
    try:
        told = _object(bytes(checked_json(usage, "{", "usage")))
    except msgspec.MsgspecError as error:  # a number that is none, say
        raise StreamCorrupted(f"the agent sent usage that cannot be read: {error}", phase="streaming") from error
    before, after = _details(told, "prompt_tokens_details"), _details(told, "completion_tokens_details")
    given, made = _count(told, "prompt_tokens"), _count(told, "completion_tokens")
    return TokenCounts(
        given,
        made,
        _count(before, "cached_tokens"),
        _count(after, "reasoning_tokens"),
        _count(told, "total_tokens") or given + made,
    )


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = usage.get(name)
    return value if isinstance(value, dict) else {}
