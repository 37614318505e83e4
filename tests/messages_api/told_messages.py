"""Messages and their events as clients of Anthropic's API read them, for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pydantic
from anthropic.types import Message, RawMessageStreamEvent

from anywire_gateway_openai.anthropic.messages import INVALID_JSON

_events: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(RawMessageStreamEvent)


def checked(message: Any) -> dict[str, Any]:
    """``message``, once Anthropic's own types have found it without fault: the client itself does not look."""
    Message.model_validate(message)
    return dict(message)


def events_of(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each without fault, its name that of its type."""
    found = []
    for block in data.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            event = json.loads(fields["data"])
            assert fields["event"] == event["type"]
            if event["type"] not in ("ping", "error"):
                _events.validate_python(event)
            found.append(event)
    return found


def put_together(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The message that a client has at the end of a stream. Its blocks come one after another. The arguments of a call
    that ``max_tokens`` has cut may be unfinished: they are told as in a message that comes whole, then."""
    message: dict[str, Any] = {}
    is_cut = any(each.get("delta", {}).get("stop_reason") == "max_tokens" for each in events)
    pieces: list[str] = []
    is_open = False
    for event in events:
        kind = event["type"]
        if kind == "message_start":
            assert not message
            message = {**event["message"], "content": []}
        elif kind == "content_block_start":
            assert not is_open
            assert event["index"] == len(message["content"])
            message["content"].append(dict(event["content_block"]))
            pieces, is_open = [], True
        elif kind == "content_block_delta":
            assert is_open
            assert event["index"] == len(message["content"]) - 1
            (piece,) = [value for name, value in event["delta"].items() if name != "type"]
            pieces.append(piece)
        elif kind == "content_block_stop":
            block = message["content"][-1]
            name = {"text": "text", "thinking": "thinking", "tool_use": "input"}[block["type"]]
            said = "".join(pieces)
            block[name] = _arguments(said, is_cut) if name == "input" else said
            is_open = False
        elif kind == "message_delta":
            message |= {**event["delta"], "usage": {**message["usage"], **event["usage"]}}
        else:
            assert kind == "message_stop"
    assert not is_open
    assert events[-1]["type"] == "message_stop"
    return message


def _arguments(said: str, is_cut: bool) -> Any:
    try:
        return json.loads(said) if said else {}
    except ValueError:
        if not is_cut:
            raise
        return {INVALID_JSON: said}


def said_in(content: Sequence[Any]) -> list[dict[str, Any]]:
    """The blocks that the client has, as they were sent: of a stream it reads more into them."""
    return [{name: value for name, value in each.to_dict().items() if name != "parsed_output"} for each in content]
