"""Asks the model, calls the tools that it wants, and asks it again, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from anywire.engine import Delta, EngineProgress
from anywire.errors import EngineFailed
from anywire_engine_mcp.tool_loop.answered import Answered, added_usage
from anywire_engine_mcp.tool_loop.calls import CallLimits, Calls, CallStep, Carry
from anywire_engine_mcp.tool_loop.functions import Place


class LoopLimits(msgspec.Struct, frozen=True):
    """``steps`` are rounds in which tools are called, ``seconds`` the time from the beginning on after which none
    is called any more; the model then gets a last round for its answer. ``calls`` are those of one round,
    ``result_chars`` what the model is told of one result."""

    steps: int = 8
    seconds: float = 300.0
    calls: int = 16
    result_chars: int = 32 * 1024


class Round(msgspec.Struct, frozen=True):
    """``number`` begins with 1. In the ``last`` one the model may call no tool."""

    number: int
    last: bool


Ask = Callable[[Sequence[dict[str, Any]], Round], AsyncGenerator[Delta | EngineProgress, None]]
"""Asks the model with the conversation and these messages after it."""


class ToolLoop:
    """One answer of a model that may call tools. ``functions`` are those that it is told of, by their names; ``carry``
    calls one. A call of one of the ``client_functions`` ends the answer. Without functions, calls are nobody's.
    ``began``, a time of the event loop, is when the time of ``limits`` begins; default: now.
    """

    def __init__(
        self,
        ask: Ask,
        functions: Mapping[str, Place],
        carry: Carry,
        limits: LoopLimits,
        *,
        client_functions: Collection[str] = (),
        stream: bool = True,
        began: float | None = None,
    ) -> None:
        began = asyncio.get_running_loop().time() if began is None else began
        self._ask, self._functions, self._carry, self._limits = ask, functions, carry, limits
        self._client_functions, self._stream = client_functions, stream
        self._deadline = began + limits.seconds
        self._messages: list[dict[str, Any]] = []
        self._answered = Answered("")

    @property
    def said(self) -> list[dict[str, Any]]:
        """The messages that the answer adds to the conversation: whole rounds, each call with its result, and the text
        after them, also where it has broken off."""
        text = self._answered.text
        return [*self._messages, *([{"role": "assistant", "content": text}] if text else [])]

    async def run(self) -> AsyncGenerator[Delta | EngineProgress | CallStep, None]:
        """The answer and what becomes of the calls, as it comes. Where it is no ``stream``, the last delta has all of
        the text. Raises what ``ask`` and ``carry`` raise, and `EngineFailed` where the model wants tools without
        end."""
        limits, time = self._limits, asyncio.get_running_loop().time
        shown = usage = ""
        number = 0
        while True:
            number += 1
            last = number > limits.steps or time() >= self._deadline
            self._answered = answered = Answered(shown)
            async with aclosing(self._ask(self._messages, Round(number, last))) as deltas:
                async for delta in deltas:
                    if isinstance(delta, EngineProgress):
                        yield delta
                        continue
                    for each in answered.take(delta):
                        shown += each.text
                        if self._stream or not each.text:
                            yield each
            usage = added_usage(usage, answered.usage)
            clients = [each for each in answered.calls if each.name in self._client_functions]
            if clients or last or not answered.calls or not self._functions:
                if last and not clients and answered.calls and not shown:
                    raise EngineFailed(
                        f"the model wants further tools after {number - 1} rounds, and gives no answer: ask in another "
                        "way, or allow it more rounds",
                        phase="streaming",
                    )
                for each in answered.last(shown, clients, usage, stream=self._stream):
                    yield each
                return
            for at, call in enumerate(answered.calls):
                call.id = call.id or f"call_{number}_{at}"
            bounds = CallLimits(limits.calls, limits.result_chars, self._deadline)
            calls = Calls(self._functions, self._carry, bounds)
            async with aclosing(calls.made(answered.calls)) as steps:
                async for step in steps:
                    yield step
            self._messages += [answered.message(), *calls.results]
            self._answered = Answered(shown)
            yield EngineProgress("running")
