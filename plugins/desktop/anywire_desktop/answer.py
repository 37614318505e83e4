"""An answer in a conversation, told to the app piece by piece. The model may call tools meanwhile."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from anywire.engine import Delta
from anywire_engine_mcp.tool_loop.calls import CallBegun, CallEnded
from anywire_engine_mcp.tool_loop.functions import Place, definitions
from anywire_engine_mcp.tool_loop.loop import LoopLimits, Round, ToolLoop
from anywire_engine_mcp.tools import ToolResult
from anywire_engine_models.local_models.chat import piece

MAX_STEPS = 8
"""Times that a model may ask for tools within one answer; then it must answer without."""
MAX_CALLS = 16
"""Calls of one step; further ones are answered with an error."""
MAX_RESULT = 64 * 1024
"""Characters of a tool's result that the model gets."""
MAX_SHOWN = 4000
"""Characters of it that the app is told."""


class Answering(Protocol):
    """One request to the model with these messages, and these members beside them."""

    def __call__(
        self, messages: Sequence[Mapping[str, Any]], members: Mapping[str, Any]
    ) -> AsyncGenerator[Delta, None]: ...


class Tools(Protocol):
    """Tools that a model may call."""

    async def functions(self) -> dict[str, Place]:
        """Those that can be called now, by the names under which the model is told of them."""
        ...

    def carry(self, place: Place, arguments: Mapping[str, Any], timeout: float) -> Awaitable[ToolResult]:
        """Call one of them, within so many seconds. What goes wrong is a result, for the model."""
        ...


class Telling(Protocol):
    """Where the app is told what happens: messages with one key each."""

    async def tell(self, message: Mapping[str, Any]) -> None: ...


class Answer:
    """One answer, for which ``seconds`` are there in all."""

    def __init__(self, answering: Answering, tools: Tools | None, telling: Telling, seconds: float) -> None:
        self._answering, self._tools, self._telling, self._seconds = answering, tools, telling, seconds
        self._loop: ToolLoop | None = None

    @property
    def said(self) -> list[dict[str, Any]]:
        """The messages that it adds to the conversation, also when it breaks off: then with the text so far."""
        return self._loop.said if self._loop is not None else []

    async def run(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Answer ``messages``. Raises what the model's server raises, and `EngineFailed` for a model that asks for
        tools without end."""
        functions = await self._tools.functions() if self._tools is not None else {}
        told_of = {"tools": definitions(functions)} if functions else {}

        def ask(further: Sequence[Mapping[str, Any]], round_: Round) -> AsyncGenerator[Delta, None]:
            none = {"tool_choice": "none"} if functions and round_.last else {}
            return self._answering([*messages, *further], told_of | none)

        limits = LoopLimits(MAX_STEPS, self._seconds, MAX_CALLS, MAX_RESULT)
        self._loop = ToolLoop(ask, functions, self._carry, limits)
        async with aclosing(self._loop.run()) as steps:
            async for step in steps:
                match step:
                    case Delta():
                        await self._tell_piece(step)
                    case CallBegun(call=call):
                        shown = {"id": call.id, "name": call.name, "arguments": call.arguments}
                        await self._telling.tell({"tool_call": shown})
                    case CallEnded(call=call, result=result):
                        told = {"id": call.id, "name": call.name, "text": result.text[:MAX_SHOWN]}
                        await self._telling.tell({"tool_result": told | {"is_error": result.is_error}})
                    case _:
                        pass  # how the calls go on: the app knows that they have begun

    async def _tell_piece(self, delta: Delta) -> None:
        said = piece(delta)
        if said.thinking:
            await self._telling.tell({"thinking_chunk": said.thinking})
        if said.text:
            await self._telling.tell({"chunk": said.text})

    def _carry(self, place: Place, arguments: Mapping[str, Any], timeout: float) -> Awaitable[ToolResult]:
        assert self._tools is not None  # only then are there functions
        return self._tools.carry(place, arguments, timeout)
