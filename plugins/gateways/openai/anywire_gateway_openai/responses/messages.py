"""From the items of a response's history and input to the messages of a chat: pure functions.

What stands beside each other in one answer of an assistant (reasoning, text, function calls) becomes one message, as
chat models want it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from anywire.conversation_items import Item

Message = dict[str, Any]

ENCRYPTED = "reasoning.encrypted_content"
"""What of a reasoning item no engine here can read."""


def chat_messages(instructions: str | None, items: Iterable[Item]) -> list[Message]:
    """The messages, ``instructions`` first. ``items`` are checked ones (`anywire.conversation_items.checked_items`)."""
    messages: list[Message] = [{"role": "system", "content": instructions}] if instructions is not None else []
    turn = _AssistantTurn()
    for item in items:
        kind = item["type"]
        if kind == "message" and item["role"] != "assistant":
            turn.end(messages)
            # Models know `system`; `developer` is OpenAI's newer name for it.
            role = "system" if item["role"] == "developer" else item["role"]
            messages.append({"role": role, "content": _content(item["content"])})
        elif kind == "function_call_output":
            turn.end(messages)
            output = item["output"]
            content = output if isinstance(output, str) else _content(output)
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})
        else:
            turn.add(item, messages)
    turn.end(messages)
    return messages


def unread(items: Iterable[Item]) -> bool:
    """Whether there is reasoning among ``items`` that only its author could read."""
    return any(item["type"] == "reasoning" and item.get("encrypted_content") for item in items)


class _AssistantTurn:
    """Collects one message of an assistant: its reasoning, its text, then its calls."""

    def __init__(self) -> None:
        self._message: Message = {}

    def add(self, item: Item, messages: list[Message]) -> None:
        kind = item["type"]
        if kind == "reasoning":
            if self._message:
                self.end(messages)
            text = "\n".join([part["text"] for part in item.get("content") or item["summary"]])
            if text:
                self._message["reasoning_content"] = text
        elif kind == "message":
            if "content" in self._message or "tool_calls" in self._message:
                self.end(messages)
            self._message |= _said(item["content"])
        else:
            function = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": function}
            self._message.setdefault("tool_calls", []).append(call)

    def end(self, messages: list[Message]) -> None:
        said, self._message = self._message, {}
        if not said:
            return
        said.setdefault("content", None if "tool_calls" in said else "")
        messages.append({"role": "assistant", **said})


def _said(parts: list[Item]) -> Message:
    """The text of an assistant, and what it refused with."""
    texts = [part["text"] for part in parts if part["type"] == "output_text"]
    refusals = [part["refusal"] for part in parts if part["type"] == "refusal"]
    said: Message = {"content": "".join(texts) if texts or not refusals else None}
    if refusals:
        said["refusal"] = "".join(refusals)
    return said


def _content(parts: list[Item]) -> str | list[Mapping[str, Any]]:
    """Plain text where it is that alone."""
    if all(part["type"] == "input_text" for part in parts) and len(parts) <= 1:
        return parts[0]["text"] if parts else ""
    return [_part(part) for part in parts]


def _part(part: Item) -> Mapping[str, Any]:
    kind = part["type"]
    if kind == "input_text":
        return {"type": "text", "text": part["text"]}
    if kind == "input_image":
        return {"type": "image_url", "image_url": {"url": part["image_url"], "detail": part["detail"]}}
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    return {
        "type": "file",
        "file": {name: part[name] for name in ("filename", "file_data") if part.get(name) is not None},
    }
