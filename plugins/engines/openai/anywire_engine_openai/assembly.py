"""A streamed answer put together into the unary one, for a server that must be asked to stream.

llama.cpp, for one, notices that a client has gone only when it writes to it: a unary request that nobody waits for
any more would hold its slot to the end.
"""

from __future__ import annotations

from typing import Any

import msgspec

from anywire.engine import Delta
from anywire.extra import split

_PIECEWISE = {"content", "text", "reasoning_content", "reasoning", "refusal", "arguments"}
"""Members that come in pieces to be joined; other strings come whole."""


class Assembly:
    """Takes the deltas of one stream; ``whole`` is the one delta of the unary answer."""

    def __init__(self, *, chat: bool) -> None:
        self._chat = chat
        self._texts: list[str] = []
        self._finish_reason = ""
        self._usage = ""
        self._others: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}  # what goes beyond text of choice 0, by index

    def add(self, delta: Delta) -> None:
        self._texts.append(delta.text)
        self._finish_reason = delta.finish_reason or self._finish_reason
        self._usage = delta.usage or self._usage
        if delta.extra:
            choices, others = split(delta.extra)
            self._others.update(others)
            for choice in choices:
                _merge(self._choices.setdefault(choice.get("index", 0), {}), choice)

    def whole(self) -> Delta:
        text = "".join(self._texts)
        beyond = self._choices or self._others
        return Delta(text, self._extra(text) if beyond else "", self._finish_reason, self._usage)

    def _extra(self, text: str) -> str:
        first = self._choices.setdefault(0, {"index": 0})
        first["finish_reason"] = self._finish_reason or None
        if self._chat:
            first.setdefault("delta", {})["content"] = text or None
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


def _merge(into: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        before = into.get(key)
        if before is None:
            into[key] = {} if isinstance(value, dict) else [] if isinstance(value, list) else value
            before = into[key] if isinstance(value, dict | list) else None
        if isinstance(value, dict) and isinstance(before, dict):
            _merge(before, value)
        elif isinstance(value, list) and isinstance(before, list):
            _merge_list(before, value)
        elif isinstance(value, str) and isinstance(before, str) and key in _PIECEWISE:
            into[key] = before + value
        elif value is not None and before is not None:
            into[key] = value


def _merge_list(into: list[Any], new: list[Any]) -> None:
    """Members with an ``index`` (tool calls) are merged with their namesake; others (log probabilities) are added."""
    for value in new:
        if isinstance(value, dict) and isinstance(value.get("index"), int):
            same = next((each for each in into if isinstance(each, dict) and each.get("index") == value["index"]), None)
            if same is None:
                into.append(same := {})
            _merge(same, value)
        else:
            into.append(value)
