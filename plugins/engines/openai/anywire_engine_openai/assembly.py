"""A streamed answer put together into the unary one, for a server that must be asked to stream.

llama.cpp, for one, notices that a client has gone only when it writes to it: a unary request that nobody waits for
any more would hold its slot to the end.
"""

from __future__ import annotations

from typing import Any

import msgspec

from anywire.engine import Delta
from anywire.extra import split

_PIECEWISE = {
    "content",
    "text",
    "reasoning_content",
    "reasoning",
    "refusal",
    "arguments",
    "input",
    "thinking",
    "summary",
    "transcript",
    "data",
}
"""Members that come in pieces to be joined; other strings come whole."""


class Assembly:
    """Takes the deltas of one stream; ``whole`` is the one delta of the unary answer."""

    def __init__(self, *, chat: bool) -> None:
        self._chat = chat
        self._texts: list[str] = []
        self._finish_reason = ""
        self._usage = ""
        self._attempts_used = 0
        self._others: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}  # what goes beyond text of choice 0, by index

    def add(self, delta: Delta) -> None:
        self._texts.append(delta.text)
        self._finish_reason = delta.finish_reason or self._finish_reason
        self._usage = delta.usage or self._usage
        self._attempts_used = delta.attempts_used or self._attempts_used
        if delta.extra:
            choices, others = split(delta.extra)
            self._others.update(others)
            for choice in choices:
                _merge(self._choices.setdefault(choice.get("index", 0), {}), choice)

    def whole(self) -> Delta:
        text = "".join(self._texts)
        beyond = self._choices or self._others
        extra = self._extra(text) if beyond else ""
        return Delta(text, extra, self._finish_reason, self._usage, self._attempts_used)

    def _extra(self, text: str) -> str:
        first = self._choices.setdefault(0, {"index": 0})
        first["finish_reason"] = self._finish_reason or None
        if self._chat:
            delta = first.setdefault("delta", {})
            delta["content"] = _with_text(delta.get("content"), text)
        else:
            first["text"] = text
        whole = []
        for _, choice in sorted(self._choices.items()):
            if self._chat:
                message = {"role": "assistant", "content": None} | choice.pop("delta", {})
                message["tool_calls"] = [
                    {key: value for key, value in call.items() if key != "index"}
                    for call in message.get("tool_calls") or ()
                ]
                if not message["tool_calls"]:
                    del message["tool_calls"]
                choice["message"] = message
            whole.append(choice)
        return msgspec.json.encode({"choices": whole, **self._others} if self._others else whole).decode()


def _with_text(content: Any, text: str) -> Any:
    """The content of choice 0: its text, or its parts and after them the text that came beside them."""
    if isinstance(content, list):
        return [*content, {"type": "text", "text": text}] if text else content
    return text or None


def _merge(into: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        before = into.get(key)
        if before is None:
            into[key] = {} if isinstance(value, dict) else [] if isinstance(value, list) else value
            before = into[key] if isinstance(value, dict | list) else None
        if isinstance(value, dict) and isinstance(before, dict):
            _merge(before, value)
        elif isinstance(value, list) and isinstance(before, list):
            _merge_list(before, value, calls=key == "tool_calls")
        elif isinstance(value, str) and isinstance(before, str) and key in _PIECEWISE:
            into[key] = before + value
        elif value not in (None, "") and before is not None and not isinstance(before, list):
            into[key] = value


def _merge_list(into: list[Any], new: list[Any], *, calls: bool) -> None:
    """Add each member, or merge it with the one it is a piece of: a tool call's always, of other lists (content parts,
    reasoning details) those that have an ``index``. Log probabilities have none and are added."""
    for value in new:
        if isinstance(value, dict) and (calls or isinstance(value.get("index"), int)):
            same = _begun(into, value)
            if same is None:
                into.append(same := {})
            elif calls and same.get("id"):
                value = {key: each for key, each in value.items() if key != "id"}
            _merge(same, value)
        else:
            into.append(value)


def _begun(into: list[Any], piece: dict[str, Any]) -> dict[str, Any] | None:
    """The member that ``piece`` goes on with; None when it begins one of its own.

    An ``id`` that is known names it. A new ``id`` or another ``type`` begins one, but for the id of a piece that names
    nothing to call: some servers give every piece an id of its own. Without those the ``index`` names it, and without
    an index it is the newest.
    """
    given = [each for each in into if isinstance(each, dict)]
    index, name = piece.get("index"), _name(piece)
    if piece.get("id"):
        same = next((each for each in given if each.get("id") == piece["id"] and _fits(each, piece)), None)
        if same is not None or name or not isinstance(index, int):
            return same
    if isinstance(index, int):
        given = [each for each in given if each.get("index") == index]
    newest = given[-1] if given else None
    if newest is None or not _fits(newest, piece):
        return None
    if not isinstance(index, int) and name and _name(newest) not in ("", name):
        return None
    return newest


def _fits(begun: dict[str, Any], piece: dict[str, Any]) -> bool:
    return not (begun.get("type") and piece.get("type") and begun["type"] != piece["type"])


def _name(call: dict[str, Any]) -> str:
    """What a tool call calls; empty where a piece does not say."""
    for kind in ("function", "custom"):
        called = call.get(kind)
        if isinstance(called, dict) and called.get("name"):
            return str(called["name"])
    return ""
