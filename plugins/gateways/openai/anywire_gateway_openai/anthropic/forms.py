"""What the endpoints of Anthropic's API take and give, for the API's description."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from anywire_gateway_openai.anthropic.request import REFUSED, MessageRequest
from anywire_gateway_openai.openapi.form import Form

Object = dict[str, Any]


class MessageAnswer(Struct):
    """A message as Anthropic defines it. ``content`` are its blocks: text, thinking, calls of tools."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Object]
    stop_reason: str | None
    stop_sequence: str | None
    usage: Object


class MessageEvent(Struct):
    """``type`` says what it is, as Anthropic names it: ``content_block_delta``, ``message_stop`` …"""

    type: str


class TokenCount(Struct):
    """``estimated`` where no tokenizer could be asked."""

    input_tokens: int
    estimated: bool | UnsetType = UNSET


MESSAGE = Form(takes=MessageRequest, refuses=REFUSED, gives=MessageAnswer, events=MessageEvent, is_task=True)
COUNT = Form(takes=MessageRequest, refuses=REFUSED, gives=TokenCount, is_task=True)
