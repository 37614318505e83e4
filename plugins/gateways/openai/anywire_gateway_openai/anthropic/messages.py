"""From the messages of Anthropic's API to those of a chat: pure functions.

Blocks become parts of messages. What an assistant thought, said and called in one message becomes one message of the
chat, and each result of a tool a message of its own. Blocks that no chat has are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from anywire.errors import InvalidRequest

_encode = msgspec.json.Encoder().encode

Object = dict[str, Any]

INVALID_JSON = "INVALID_JSON"
"""The one member of a tool's input where a model wrote no JSON object; Anthropic's guide has clients do the same."""
FAILED = "error"
"""What a model is told of a tool that failed and said nothing."""
IGNORED = (
    "cache_control",
    "citations",
    "caller",
    "toolset_name",
    "title",
    "context",
    "transformations",
    "is_error",
    "signature",
)
"""Members of blocks that change nothing here."""
REDACTED = "redacted_thinking"
ROLES = ("user", "assistant", "system")


class Given(Struct):
    """A message as a client sends it."""

    role: str
    content: str | list[Object]


def chat_messages(system: str | list[Object] | None, given: Sequence[Given]) -> tuple[list[Object], list[str]]:
    """The messages of a chat, ``system`` first, and what of the blocks has no effect. Raises `InvalidRequest` that
    names the block at fault."""
    translation = _Translation()
    if system:
        translation.plain("system", system, "system")
    for at, message in enumerate(given):
        where = f"messages[{at}]"
        if message.role not in ROLES:
            raise _wrong(f"{where}.role", f"must be one of {', '.join(ROLES)}, got {message.role[:64]!r}")
        if not message.content and not isinstance(message.content, str):
            raise _wrong(f"{where}.content", "must have a block")
        if message.role == "assistant":
            translation.assistant(message.content, f"{where}.content")
        else:
            translation.plain(message.role, message.content, f"{where}.content")
    return translation.messages, [name for name in (*IGNORED, REDACTED) if name in translation.ignored]


class _Translation:
    """Collects the messages, and the names of what has no effect."""

    def __init__(self) -> None:
        self.messages: list[Object] = []
        self.ignored: set[str] = set()

    def plain(self, role: str, content: str | list[Object], where: str) -> None:
        """What a user or the system says, and in between the results of tools."""
        if isinstance(content, str):
            self.messages.append({"role": role, "content": content})
            return
        parts: list[Object] = []
        for at, block in enumerate(content):
            place = f"{where}[{at}]"
            self._note(block)
            if block.get("type") == "tool_result" and role == "user":
                self._say(role, parts)
                parts = []
                self._result(block, place)
            else:
                parts += self._parts(block, place, text_alone=role == "system")
        self._say(role, parts)

    def assistant(self, content: str | list[Object], where: str) -> None:
        if isinstance(content, str):
            self.messages.append({"role": "assistant", "content": content})
            return
        said: list[str] = []
        thought: list[str] = []
        calls: list[Object] = []
        for at, block in enumerate(content):
            place, kind = f"{where}[{at}]", block.get("type")
            self._note(block)
            if kind == "text":
                said.append(_text(block, "text", place))
            elif kind == "thinking":
                thought.append(_text(block, "thinking", place))
            elif kind == REDACTED:
                self.ignored.add(REDACTED)
            elif kind == "tool_use":
                calls.append(_call(block, place))
            else:
                raise _unknown(kind, place, "text, thinking, redacted_thinking or tool_use")
        message: Object = {"role": "assistant", "content": "".join(said) if said or not calls else None}
        if any(thought):
            message["reasoning_content"] = "".join(thought)
        if calls:
            message["tool_calls"] = calls
        self.messages.append(message)

    def _say(self, role: str, parts: list[Object]) -> None:
        """Plain text where it is that alone."""
        if len(parts) == 1 and parts[0]["type"] == "text":
            self.messages.append({"role": role, "content": parts[0]["text"]})
        elif parts:
            self.messages.append({"role": role, "content": parts})

    def _result(self, block: Object, where: str) -> None:
        call_id, content = _text(block, "tool_use_id", where), block.get("content")
        if content is None or isinstance(content, str):
            said: str | list[Object] = content or ""
        elif isinstance(content, list):
            said = []
            for at, each in enumerate(content):
                place = f"{where}.content[{at}]"
                if not isinstance(each, dict):
                    raise _wrong(place, "must be an object")
                self._note(each)
                said += self._parts(each, place)
            if len(said) <= 1 and all(part["type"] == "text" for part in said):
                said = str(said[0]["text"]) if said else ""
        else:
            raise _wrong(f"{where}.content", "must be a text or a list of blocks")
        if block.get("is_error") and not said:
            said = FAILED
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": said})

    def _parts(self, block: Object, where: str, *, text_alone: bool = False) -> list[Object]:
        kind = block.get("type")
        if kind == "text":
            return [{"type": "text", "text": _text(block, "text", where)}]
        if text_alone:
            raise _unknown(kind, where, "text")
        source = block.get("source")
        if kind in ("image", "document") and not isinstance(source, dict):
            raise _wrong(f"{where}.source", "must be an object")
        if kind == "image" and isinstance(source, dict):
            return [{"type": "image_url", "image_url": {"url": _image_url(source, f"{where}.source")}}]
        if kind == "document" and isinstance(source, dict):
            return self._document(block, source, f"{where}.source")
        raise _unknown(kind, where, "text, image, document or tool_result")

    def _document(self, block: Object, source: Object, where: str) -> list[Object]:
        kind, title = source.get("type"), block.get("title")
        if title and kind != "base64":
            self.ignored.add("title")
        if kind == "text":
            return [{"type": "text", "text": _text(source, "data", where)}]
        if kind == "base64":
            data = f"data:{_media_type(source, where)};base64,{_text(source, 'data', where)}"
            name = {"filename": title} if isinstance(title, str) else {}
            return [{"type": "file", "file": {**name, "file_data": data}}]
        content = source.get("content")
        if kind == "content" and isinstance(content, str):
            return [{"type": "text", "text": content}]
        if kind == "content" and isinstance(content, list):
            parts: list[Object] = []
            for at, each in enumerate(content):
                place = f"{where}.content[{at}]"
                if not isinstance(each, dict) or each.get("type") not in ("text", "image"):
                    raise _wrong(place, "must be a block of type text or image")
                self._note(each)
                parts += self._parts(each, place)
            return parts
        raise _unknown(kind, where, "text, base64 or content: send the document itself")

    def _note(self, block: Mapping[str, Any]) -> None:
        """Note the members without effect."""
        for name in IGNORED:
            if block.get(name) and not (name == "title" and block.get("type") == "document"):
                self.ignored.add(name)


def _call(block: Object, where: str) -> Object:
    call_id, name, given = _text(block, "id", where), _text(block, "name", where), block.get("input")
    if not isinstance(given, dict):
        raise _wrong(f"{where}.input", "must be an object")
    raw = given.get(INVALID_JSON)
    arguments = raw if isinstance(raw, str) and len(given) == 1 else _encode(given).decode()
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _image_url(source: Object, where: str) -> str:
    kind = source.get("type")
    if kind == "url":
        return _text(source, "url", where)
    if kind == "base64":
        return f"data:{_media_type(source, where)};base64,{_text(source, 'data', where)}"
    raise _unknown(kind, where, "base64 or url: no files are kept here")


def _media_type(source: Object, where: str) -> str:
    return _text(source, "media_type", where)


def _text(given: Mapping[str, Any], member: str, where: str) -> str:
    value = given.get(member)
    if not isinstance(value, str):
        raise _wrong(f"{where}.{member}", "must be a text" if value is not None else "is required")
    return value


def _unknown(kind: object, where: str, known: str) -> InvalidRequest:
    return _wrong(f"{where}.type", f"must be {known}; {str(kind)[:64]!r} is not supported here")


def _wrong(param: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{param} {what}", param=param)
