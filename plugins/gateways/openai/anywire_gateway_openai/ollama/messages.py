"""Ollama's messages as those of a chat in OpenAI's form: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from anywire.errors import InvalidRequest

Object = dict[str, Any]
_Name = Annotated[str, Meta(min_length=1)]
_IMAGES = {"iVBORw0KGg": "png", "/9j/": "jpeg", "R0lGOD": "gif", "UklGR": "webp", "Qk": "bmp", "SUkq": "tiff"}
"""What base64 of an image begins with, by its format."""

_encode = msgspec.json.Encoder().encode


class CalledFunction(Struct):
    name: _Name
    arguments: Object | str = {}


class ToolCall(Struct):
    function: CalledFunction
    id: str | None = None


class Message(Struct):
    role: _Name
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    name: str | None = None
    tool_call_id: str | None = None


def chat_messages(messages: Sequence[Message]) -> list[Object]:
    """The messages of a chat. Ollama's calls of tools need no ids: each result belongs to the first call before it that
    has none yet, of its tool if it names one. Raises `InvalidRequest` for an image that is none."""
    calls = _Calls()
    return [_message(at, message, calls) for at, message in enumerate(messages)]


def prompt_message(prompt: str, images: Sequence[str] | None) -> Object:
    """A user's message with a text and images. Raises as `chat_messages`."""
    return {"role": "user", "content": _content("", prompt, images)}


class _Calls:
    """The calls whose results have not come."""

    def __init__(self) -> None:
        self._open: list[tuple[str, str]] = []
        self._made = 0

    def add(self, call: ToolCall) -> str:
        """The id of a call."""
        given = call.id or f"call_{self._made}"
        self._made += 1
        self._open.append((call.function.name, given))
        return given

    def answered(self, message: Message) -> str:
        """The id of the call whose result ``message`` is."""
        named = message.tool_name or message.name
        for at, (name, given) in enumerate(self._open):
            if given == message.tool_call_id or (not message.tool_call_id and named in (name, None)):
                del self._open[at]
                return given
        self._made += 1
        return message.tool_call_id or f"call_{self._made - 1}"


def _message(at: int, message: Message, calls: _Calls) -> Object:
    made: Object = {"role": message.role}
    made["content"] = _content(f"messages[{at}].", message.content or "", message.images)
    if message.thinking:
        made["reasoning_content"] = message.thinking
    if message.tool_calls:
        made["tool_calls"] = [
            {
                "id": calls.add(call),
                "type": "function",
                "function": {"name": call.function.name, "arguments": _arguments(call.function.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        made["tool_call_id"] = calls.answered(message)
    named = message.tool_name or message.name
    if named:
        made["name"] = named
    return made


def _arguments(arguments: Object | str) -> str:
    return arguments if isinstance(arguments, str) else _encode(arguments).decode()


def _content(place: str, text: str, images: Sequence[str] | None) -> str | list[Object]:
    if not images:
        return text
    parts: list[Object] = [{"type": "text", "text": text}] if text else []
    for number, image in enumerate(images):
        parts.append({"type": "image_url", "image_url": {"url": _url(f"{place}images[{number}]", image)}})
    return parts


def _url(place: str, image: str) -> str:
    if image.startswith("data:image/"):
        return image
    for start, form in _IMAGES.items():
        if image.startswith(start):
            return f"data:image/{form};base64,{image}"
    raise InvalidRequest(f"{place} is no image: it must be PNG, JPEG, GIF, WebP, BMP or TIFF in base64", param=place)
