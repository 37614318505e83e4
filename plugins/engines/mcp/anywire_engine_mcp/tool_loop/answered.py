"""One round of the model's answer: text that goes on to the client, and calls of tools that do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from anywire.engine import Delta
from anywire.errors import EngineFailed
from anywire.extra import split

MAX_CALL_BYTES = 1024 * 1024
"""Characters of all calls of one round."""
MAX_CALLS = 256

_encode = msgspec.json.Encoder().encode


class ToolCall(msgspec.Struct):
    """``arguments`` is JSON text, as the model wrote it."""

    id: str = ""
    name: str = ""
    arguments: str = ""

    def as_message(self) -> dict[str, Any]:
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


class Answered:
    """Takes the deltas of one round. What is text, or members beside it (reasoning, log probabilities), is given back
    at once; calls, the reason of the end and the usage are kept for the end of the round.

    ``before`` is what the rounds before have shown: the texts of two rounds are kept apart by an empty line.
    """

    def __init__(self, before: str) -> None:
        self.text = self.reasoning = ""
        self.finish_reason = self.usage = ""
        self.calls: list[ToolCall] = []
        self._gap = "\n\n" if before and not before.endswith("\n") else ""
        self._by_index: dict[int, ToolCall] = {}
        self._size = 0
        self._others: dict[str, Any] = {}
        self._whole: dict[str, Any] = {}
        """The choice of a whole answer, without its calls."""

    def take(self, delta: Delta) -> Iterator[Delta]:
        """What of it the client gets now. Raises `EngineFailed` for calls that are no calls, or too long."""
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.usage = delta.usage or self.usage
        text = delta.text
        if text and not self.text:
            text = self._gap + text
        self.text += delta.text
        extra = self._without_calls(delta.extra) if delta.extra else ""
        if extra and text != delta.text:
            yield Delta(self._gap)
            text = delta.text
        if text or extra or delta.attempts_used:
            parts = delta.parts if text == delta.text else ()
            yield Delta(text, extra, attempts_used=delta.attempts_used, parts=parts)

    def message(self) -> dict[str, Any]:
        """The round as a message of the assistant, for the next one."""
        found: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.reasoning:
            found["reasoning_content"] = self.reasoning
        return found | {"tool_calls": [each.as_message() for each in self.calls]}

    def last(self, shown: str, calls: list[ToolCall], usage: str, *, stream: bool) -> Iterator[Delta]:
        """What ends the answer: ``calls`` are for the client. ``shown`` is the text of all rounds together, which a
        whole answer has."""
        finish = self.finish_reason or "stop"
        if not calls and finish == "tool_calls":
            finish = "length"  # it wants more rounds than it may have
        if stream:
            if calls:
                pieces = [{"index": number} | each.as_message() for number, each in enumerate(calls)]
                choice = {"index": 0, "delta": {"tool_calls": pieces}, "finish_reason": None}
                yield Delta("", _encode([choice]).decode())
            yield Delta("", "", finish, usage)
            return
        extra = ""
        if calls or self._whole or self._others:
            message = dict(self._whole.get("message") or {"role": "assistant"})
            message["content"] = shown or None
            if calls:
                message["tool_calls"] = [each.as_message() for each in calls]
            choice = self._whole | {"index": 0, "message": message, "finish_reason": finish}
            extra = _encode({"choices": [choice], **self._others} if self._others else [choice]).decode()
        yield Delta(shown, extra, finish, usage)

    def _without_calls(self, extra: str) -> str:
        """Take calls and what ends the answer out of a delta's choices; what is left for the client, empty for
        nothing."""
        try:
            choices, others = split(extra)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise EngineFailed(f"the engine's choices are no JSON: {error}", phase="streaming") from error
        left = []
        for choice in choices:
            if choice.get("index", 0) != 0:
                continue
            if isinstance(choice.get("message"), dict):
                self._take_message(choice)
                self._others |= others
                return ""
            delta = choice.get("delta")
            if isinstance(delta, dict):
                self._take_calls(delta.pop("tool_calls", None))
                reasoning = delta.get("reasoning_content")
                self.reasoning += reasoning if isinstance(reasoning, str) else ""
            choice["finish_reason"] = None
            says = isinstance(delta, dict) and any(value for name, value in delta.items() if name != "role")
            if says or choice.get("logprobs"):
                left.append(choice)
        if not left and not others:
            return ""
        return _encode({"choices": left, **others} if others else left).decode()

    def _take_message(self, choice: dict[str, Any]) -> None:
        message = choice["message"]
        self._take_calls(message.pop("tool_calls", None))
        reasoning = message.get("reasoning_content")
        self.reasoning += reasoning if isinstance(reasoning, str) else ""
        self._whole = choice

    def _take_calls(self, pieces: Any) -> None:
        for piece in pieces or () if isinstance(pieces, list | None) else ():
            if not isinstance(piece, dict):
                raise EngineFailed(f"the model's call of a tool is none: {piece!r:.80}", phase="streaming")
            function = piece.get("function")
            function = function if isinstance(function, dict) else {}
            call = self._begun(piece, _text(function.get("name")))
            call.id = call.id or _text(piece.get("id"))
            name = _text(function.get("name"))
            call.name += name if name != call.name else ""
            arguments = function.get("arguments")
            if arguments is not None:
                call.arguments += arguments if isinstance(arguments, str) else _encode(arguments).decode()
            self._size += len(call.name) + len(str(arguments))
            if self._size > MAX_CALL_BYTES or len(self.calls) > MAX_CALLS:
                raise EngineFailed(
                    f"the model's calls of tools have more than {MAX_CALL_BYTES} characters, or are more than "
                    f"{MAX_CALLS}",
                    phase="streaming",
                )

    def _begun(self, piece: dict[str, Any], name: str) -> ToolCall:
        """The call that a piece goes on with, or a new one. Its index says which it is, but where it names another one
        under another id; without an index, a name begins one, and everything else goes on with the newest."""
        index = piece.get("index")
        if isinstance(index, int):
            same = self._by_index.get(index)
            other = piece.get("id") not in (None, "", same.id if same is not None else "")
            if same is not None and not (name and same.name and other):
                return same
        elif self.calls and not name:
            return self.calls[-1]
        self.calls.append(ToolCall())
        if isinstance(index, int):
            self._by_index[index] = self.calls[-1]
        return self.calls[-1]


def added_usage(before: str, usage: str) -> str:
    """Two usages together, as OpenAI's object in JSON text; what is no number counts as the newer one says."""
    if not before or not usage:
        return usage or before
    old, new = msgspec.json.decode(before), msgspec.json.decode(usage)
    return _encode(_added(old, new)).decode() if isinstance(old, dict) and isinstance(new, dict) else usage


def _added(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    found = dict(old)
    for name, value in new.items():
        was = old.get(name)
        if isinstance(value, dict) and isinstance(was, dict):
            found[name] = _added(was, value)
        elif type(value) in (int, float) and type(was) in (int, float):
            found[name] = was + value
        else:
            found[name] = value
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
