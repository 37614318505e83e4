"""A chat request to the server of a model, and its answer piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from anywire.engine import Delta
from anywire.errors import EngineFailed, InvalidRequest
from anywire.extra import split
from anywire.messages import TaskRequest
from anywire_engine_models.host.server import Server
from anywire_engine_openai.connection_errors import ConnectionFailed
from anywire_engine_openai.upstream import Upstream

EXIT_WAIT = 1.0
"""Seconds that an answer which broke off waits for the end of its server, to say how it ended."""
OWN_MEMBERS = frozenset(("messages", "model", "models", "stream", "stream_options"))
"""Members of a request that are not its caller's to set."""


class ServerEnded(EngineFailed):
    """The server of a model has ended before its answer was complete."""


class ChatPiece(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step of an answer. ``text`` is shown to the user, ``thinking`` is what a model writes before its answer.
    ``tool_calls`` are OpenAI's, whole, on the last piece, which has the ``finish_reason`` and the ``usage`` too."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    finish_reason: str = ""
    usage: dict[str, Any] | None = None


def request_body(messages: Sequence[Mapping[str, Any]], members: Mapping[str, Any]) -> str:
    """The body of a chat request. ``members`` are further ones, which go to the server as they are. Raises
    `InvalidRequest`."""
    if not messages:
        raise InvalidRequest("a chat needs a message: give at least one", param="messages")
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InvalidRequest(
                f"message {number} has no role: each is an object with role and content", param="messages"
            )
    wrong = sorted(OWN_MEMBERS & members.keys())
    if wrong:
        raise InvalidRequest(f"leave out {wrong[0]}: a chat sets it itself", param=wrong[0])
    kept = {name: value for name, value in members.items() if value is not None}
    try:
        return msgspec.json.encode({"messages": messages, **kept}).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request is no JSON: {error}", param="messages") from error


async def answer(
    upstream: Upstream, server: Server, model: str, body: str, deadline: float
) -> AsyncGenerator[Delta, None]:
    """The deltas of the answer of ``server``, which ``upstream`` speaks with. ``model`` is its name there, ``deadline``
    a time of the event loop. Leaving it closes the connection, which ends the work of the server. Raises
    `InvalidRequest`, `EngineFailed`, `ServerEnded`, which says how, and `TimeoutError`."""
    try:
        task = TaskRequest("", "local", 1, "chat", model, body, stream=True)
        async with aclosing(upstream.answer(task, model)) as deltas:
            while True:
                # Around each step and not around them all: whoever reads may take its time between two of them.
                async with asyncio.timeout_at(deadline):
                    step = await anext(deltas, None)
                if step is None:
                    return
                if isinstance(step, Delta):
                    yield step
    except ConnectionFailed as error:
        await asyncio.wait({server.exited}, timeout=EXIT_WAIT)
        if not server.exited.done():
            raise
        raise ServerEnded(f"the server of {model} ended: {_told(server)}", phase=error.phase) from error


def piece(delta: Delta) -> ChatPiece:
    """What a delta says, but for its tool calls, which come in parts."""
    thinking = ""
    if delta.extra:
        choices, _ = split(delta.extra)
        for choice in choices:
            said = choice.get("delta")
            if choice.get("index", 0) == 0 and isinstance(said, dict):
                thinking = said.get("reasoning_content") or said.get("reasoning") or ""
    return ChatPiece(delta.text, thinking if isinstance(thinking, str) else "")


def last_piece(whole: Delta) -> ChatPiece:
    """What is known once an answer is complete, of the delta that has all of it."""
    calls: tuple[dict[str, Any], ...] = ()
    if whole.extra:
        choices, _ = split(whole.extra)
        for choice in choices:
            message = choice.get("message")
            if choice.get("index", 0) == 0 and isinstance(message, dict):
                calls = tuple(each for each in message.get("tool_calls") or () if isinstance(each, dict))
    return ChatPiece(tool_calls=calls, finish_reason=whole.finish_reason, usage=_usage(whole))


def completion(whole: Delta, model: str, answer_id: str, created: int) -> dict[str, Any]:
    """OpenAI's answer to a chat that is not streamed."""
    choices: list[dict[str, Any]] = []
    others: dict[str, Any] = {}
    if whole.extra:
        choices, others = split(whole.extra)
    if not choices:
        message = {"role": "assistant", "content": whole.text}
        choices = [{"index": 0, "message": message, "finish_reason": whole.finish_reason or None}]
    told = {"id": answer_id, "object": "chat.completion", "created": created, "model": model, "choices": choices}
    usage = _usage(whole)
    return {**others, **told, **({"usage": usage} if usage is not None else {})}


def _usage(delta: Delta) -> dict[str, Any] | None:
    usage = msgspec.json.decode(delta.usage) if delta.usage else None
    return usage if isinstance(usage, dict) else None


def _told(server: Server) -> str:
    ended = server.exited.result()
    lines = "; it wrote last:\n  " + "\n  ".join(ended.lines[-8:]) if ended.lines else ""
    return f"{ended.reason}{lines}"
