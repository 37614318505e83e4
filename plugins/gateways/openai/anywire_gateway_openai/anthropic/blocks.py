"""From what an engine answers to the content of a message: its blocks, and the events that tell how they come to be.

`MessageBlocks` is fed with pieces of a chat's answer. A whole answer is one piece, so that a streamed message and a
whole one consist of the same blocks.

Blocks are told one after another, as clients of this API expect. Where an engine mixes the arguments of several tool
calls, later ones wait until the one before is whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Raw

from anywire.errors import StreamCorrupted
from anywire_gateway_openai.answers import encodable
from anywire_gateway_openai.anthropic.messages import INVALID_JSON, Object
from anywire_gateway_openai.first_choice import CallNumbers, call_id, called

MAX_BLOCKS = 10_000
MAX_LOOKS = 64
"""Times that the arguments of one call are looked at, whether they are whole; after that they are at the end."""
_REASONING = ("reasoning_content", "reasoning")
"""Members in which servers tell what a model thought; there is no standard for it."""

BlockKind = Literal["text", "thinking", "tool_use"]
Event = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_arguments = msgspec.json.Decoder(dict[str, Raw]).decode


class _Block:
    """One block that is being made. ``told`` counts the pieces of it that have an event."""

    def __init__(self, place: int, kind: BlockKind) -> None:
        self.place, self.kind = place, kind
        self.id = self.name = ""
        self.pieces: list[str] = []
        self.begun = False
        self.told = 0
        self._looks = self._looked_at = 0
        self._is_whole = False
        self._has_start = kind != "tool_use"
        """Whether it may be told as it comes."""
        self._blank = 0
        """How many of the first pieces of arguments say nothing."""

    def head(self) -> Object:
        if self.kind == "tool_use":
            return {"type": "tool_use", "id": self.id, "name": self.name, "input": {}}
        if self.kind == "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
        return {"type": "text", "text": ""}

    def delta(self, piece: str) -> Object:
        if self.kind == "tool_use":
            return {"type": "input_json_delta", "partial_json": piece}
        return {"type": f"{self.kind}_delta", self.kind: piece}

    def untold(self, *, ends: bool) -> list[str]:
        """The pieces that are to be told now. Clients read the arguments of a call after each piece, so the first one
        begins the object; what is no object waits for its end."""
        if not self._has_start:
            while self._blank < len(self.pieces) and not self.pieces[self._blank].strip():
                self._blank += 1
            if self._blank == len(self.pieces):
                return []
            is_object = self.pieces[self._blank].lstrip().startswith("{")
            if not is_object and not ends:
                return []
            text = "".join(self.pieces)
            self.pieces = [text if is_object else _encode({INVALID_JSON: text}).decode()]
            self._has_start, self._looked_at = True, 0
        untold = self.pieces[self.told :]
        self.told = len(self.pieces)
        return untold

    def whole(self) -> Object:
        text = "".join(self.pieces)
        if self.kind == "tool_use":
            return {**self.head(), "input": tool_input(text)}
        return {**self.head(), self.kind: text}

    def is_whole(self) -> bool:
        """Whether a block that is not the last can get no further piece: a text, or arguments that are a whole JSON
        object."""
        if self.kind != "tool_use" or self._is_whole:
            return True
        if (
            len(self.pieces) == self._looked_at
            or self._looks >= MAX_LOOKS
            or not self.pieces[-1].rstrip().endswith("}")
        ):
            return False
        self._looked_at = len(self.pieces)
        self._looks += 1
        self._is_whole = _is_object("".join(self.pieces))
        return self._is_whole


class MessageBlocks:
    """``task_id`` is what the ids of calls are made of that have none."""

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id
        self._blocks: list[_Block] = []
        self._front = 0
        """The block that is being told; those after it wait."""
        self._calls: list[_Block] = []
        self._numbers = CallNumbers()
        self.has_refused = False

    @property
    def content(self) -> list[Object]:
        return [each.whole() for each in self._blocks]

    @property
    def has_calls(self) -> bool:
        return bool(self._calls)

    def add_text(self, text: str) -> list[Event]:
        """A piece of the answer's text."""
        self._add("text", text)
        return self._tell()

    def add(self, piece: Mapping[str, Any]) -> list[Event]:
        """A piece of a chat's message: its ``delta``, or a whole ``message``. Members that are not known are passed
        over, and those that have another type than a chat's. Raises `StreamCorrupted` for more than `MAX_BLOCKS`."""
        thought = next((text for name in _REASONING if isinstance(text := piece.get(name), str) and text), "")
        if thought:
            self._add("thinking", thought)
        content, refusal, calls = piece.get("content"), piece.get("refusal"), piece.get("tool_calls")
        if isinstance(content, list):
            content = "".join([part["text"] for part in content if _has_text(part)])
        if isinstance(content, str) and content:
            self._add("text", content)
        if isinstance(refusal, str) and refusal:
            self.has_refused = True
            self._add("text", refusal)
        found = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
        for call, number in zip(found, self._numbers.of(found), strict=True):
            self._call(call, number)
        return self._tell()

    def end(self) -> list[Event]:
        """The answer is over. One without anything has an empty text."""
        if not self._blocks:
            self._begin("text")
        return self._tell(is_over=True)

    # Inside

    def _add(self, kind: BlockKind, text: str) -> None:
        last = self._blocks[-1] if self._blocks else None
        if last is None or last.kind != kind:
            last = self._begin(kind)
        last.pieces.append(encodable(text))

    def _call(self, call: Mapping[str, Any], number: int) -> None:
        function, own_id, name = call.get("function"), encodable(call_id(call)), encodable(called(call))
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if isinstance(arguments, dict):  # some servers send the object, and not its text
            arguments = _encode(arguments).decode()
        if number == len(self._calls):
            block = self._begin("tool_use")
            self._calls.append(block)
            block.id = own_id or f"toolu_{self._task_id}_{number}"
            block.name = name
        else:
            block = self._calls[number]
            is_repeated = own_id == block.id and name == block.name
            if not block.pieces and not is_repeated:
                block.name += name
        if isinstance(arguments, str) and arguments:
            block.pieces.append(encodable(arguments))

    def _begin(self, kind: BlockKind) -> _Block:
        if len(self._blocks) >= MAX_BLOCKS:
            raise StreamCorrupted(f"the agent sent an answer of more than {MAX_BLOCKS} blocks", phase="streaming")
        block = _Block(len(self._blocks), kind)
        self._blocks.append(block)
        return block

    def _tell(self, *, is_over: bool = False) -> list[Event]:
        """The events of what was not told yet, as far as it is its turn. A call is told from its first argument on: its
        name may come in pieces before."""
        events: list[Event] = []
        while self._front < len(self._blocks):
            block = self._blocks[self._front]
            ends = is_over or (block is not self._blocks[-1] and block.is_whole())
            if not block.begun and (ends or block.pieces):
                block.begun = True
                events.append({"type": "content_block_start", "index": block.place, "content_block": block.head()})
            for piece in block.untold(ends=ends):
                events.append({"type": "content_block_delta", "index": block.place, "delta": block.delta(piece)})
            if not ends:
                break
            events.append({"type": "content_block_stop", "index": block.place})
            self._front += 1
        return events


def tool_input(arguments: str) -> Raw:
    """The arguments of a call as the input of a tool, as they were written. What is no JSON object is told as the one
    member `INVALID_JSON` of one."""
    if not arguments.strip():
        return Raw(b"{}")
    return Raw(arguments if _is_object(arguments) else _encode({INVALID_JSON: arguments}))


def _is_object(text: str) -> bool:
    try:
        _arguments(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _has_text(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
