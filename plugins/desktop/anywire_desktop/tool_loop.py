"""An answer with tools: the model asks for them, the bridge calls them, until the model has said its answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

from anywire.errors import AnywireError, TaskError
from anywire_engine_models.local_models import ChatPiece

MAX_STEPS = 8
"""Times that a model may ask for tools within one answer."""
MAX_CALLS = 16
"""Calls of one step; further ones are answered with an error."""
MAX_RESULT = 64 * 1024
"""Characters of a tool's result that the model gets."""
MAX_SHOWN = 4000
"""Characters of it that the app is told."""


class Answering(Protocol):
    """One request to the model with these messages and tools."""

    def __call__(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> AsyncGenerator[ChatPiece, None]: ...


class ToolResult(msgspec.Struct, frozen=True):
    text: str
    is_error: bool = False


class Tools(Protocol):
    """Tools that a model may call."""

    async def definitions(self) -> list[dict[str, Any]]:
        """Those that can be called now, as OpenAI's functions."""
        ...

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Call one of them. Raises `AnywireError`."""
        ...


class Telling(Protocol):
    """Where the app is told what happens: messages with one key each."""

    async def tell(self, message: Mapping[str, Any]) -> None: ...


class Answer:
    """One answer. ``said`` are the messages that it adds to the conversation, also when it breaks off: then with the
    text so far."""

    def __init__(self, answering: Answering, tools: Tools | None, telling: Telling) -> None:
        self._answering, self._tools, self._telling = answering, tools, telling
        self.said: list[dict[str, Any]] = []

    async def run(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Answer ``messages``. Raises what the model's server raises, and `TaskError` after `MAX_STEPS` steps."""
        definitions = await self._tools.definitions() if self._tools is not None else []
        for _ in range(MAX_STEPS):
            calls = await self._step([*messages, *self.said], definitions)
            if not calls:
                return
            for number, call in enumerate(calls):
                self.said.append(await self._called(call, number))
        raise TaskError(f"the model asked for tools {MAX_STEPS} times and gave no answer: ask in another way")

    async def _step(
        self, messages: Sequence[Mapping[str, Any]], definitions: Sequence[Mapping[str, Any]]
    ) -> Sequence[Mapping[str, Any]]:
        texts: list[str] = []
        calls: tuple[dict[str, Any], ...] = ()
        try:
            async with aclosing(self._answering(messages, definitions)) as pieces:
                async for piece in pieces:
                    if piece.thinking:
                        await self._telling.tell({"thinking_chunk": piece.thinking})
                    if piece.text:
                        texts.append(piece.text)
                        await self._telling.tell({"chunk": piece.text})
                    calls = piece.tool_calls or calls
            calls = tuple(
                {**call, "id": str(call.get("id") or f"call_{len(self.said)}_{number}")}
                for number, call in enumerate(calls)
            )
        finally:
            text = "".join(texts)
            if calls and definitions:
                self.said.append({"role": "assistant", "content": text or None, "tool_calls": list(calls)})
            elif text:
                self.said.append({"role": "assistant", "content": text})
        return calls if definitions else ()

    async def _called(self, call: Mapping[str, Any], number: int) -> dict[str, Any]:
        """The message with the result of a call. What goes wrong is told to the model, which may try otherwise."""
        function = call.get("function")
        name = str(function.get("name", "")) if isinstance(function, dict) else ""
        given = function.get("arguments") if isinstance(function, dict) else None
        call_id = call["id"]
        await self._telling.tell({"tool_call": {"id": call_id, "name": name, "arguments": given}})
        try:
            result = await self._result(name, given, number)
        except AnywireError as error:
            result = ToolResult(f"the tool failed: {error}", is_error=True)
        told = {"id": call_id, "name": name, "text": result.text[:MAX_SHOWN], "is_error": result.is_error}
        await self._telling.tell({"tool_result": told})
        return {"role": "tool", "tool_call_id": call_id, "content": result.text[:MAX_RESULT]}

    async def _result(self, name: str, given: Any, number: int) -> ToolResult:
        if number >= MAX_CALLS:
            return ToolResult(f"only {MAX_CALLS} calls are made at a time", is_error=True)
        try:
            arguments = msgspec.json.decode(given) if isinstance(given, str) and given.strip() else given or {}
        except (msgspec.DecodeError, RecursionError) as error:
            return ToolResult(f"the arguments are no JSON: {error}", is_error=True)
        if not isinstance(arguments, dict):
            return ToolResult("the arguments must be an object", is_error=True)
        assert self._tools is not None
        return await self._tools.call(name, arguments)
