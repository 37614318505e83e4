"""The calls of one round of a tool loop, made side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from anywire.near import nearest
from anywire.printable import printable
from anywire_engine_mcp.tool_loop.answered import ToolCall
from anywire_engine_mcp.tool_loop.functions import Place
from anywire_engine_mcp.tools import ToolResult, cut

TICK = 10.0
"""Seconds after which calls that go on are told of again: so that the answer does not count as silent."""
SHOWN_NAME = 80

Carry = Callable[[Place, Mapping[str, Any], float], Awaitable[ToolResult]]
"""Calls a tool with arguments, within so many seconds. What it raises ends the answer; what the model is to be told of
a failure is a result that says so."""


class CallLimits(msgspec.Struct, frozen=True):
    """``calls`` are made in one round, further ones are refused; ``result_chars`` is what the model is told of one
    result; ``deadline``, a time of the event loop, is when a call has to end: a late one has a second."""

    calls: int
    result_chars: int
    deadline: float


class CallBegun(msgspec.Struct, frozen=True):
    """``what`` names the tool for people."""

    call: ToolCall
    what: str


class CallsGoOn(msgspec.Struct, frozen=True):
    """``what`` says which, and for how long."""

    what: str


class CallEnded(msgspec.Struct, frozen=True):
    """``place`` is where the call was made, None when it was not: there is no such tool, the arguments are none, or
    there are too many calls. ``told`` is what the model gets of the result."""

    call: ToolCall
    result: ToolResult
    told: str
    place: Place | None = None
    seconds: float = 0.0


CallStep = CallBegun | CallsGoOn | CallEnded


class Calls:
    """``results`` are the messages for the model once all calls have ended, in the order of the calls."""

    def __init__(self, functions: Mapping[str, Place], carry: Carry, limits: CallLimits) -> None:
        self.results: list[dict[str, Any]] = []
        self._functions, self._carry, self._limits = functions, carry, limits

    async def made(self, calls: Sequence[ToolCall]) -> AsyncGenerator[CallStep, None]:
        """What becomes of the calls. Leaving it ends those under way."""
        time = asyncio.get_running_loop().time
        began = time()
        running: dict[asyncio.Task[CallEnded], str] = {}
        for number, call in enumerate(calls):
            place = self._functions.get(call.name)
            what = str(place) if place is not None else printable(call.name, SHOWN_NAME)
            running[asyncio.create_task(self._ended(call, place, number), name=f"tool {what}")] = what
        pending: set[asyncio.Task[CallEnded]] = set(running)
        told_at = began
        try:
            for call, what in zip(calls, running.values(), strict=True):
                yield CallBegun(call, what)
            while pending:
                patience = max(0.0, told_at + TICK - time())
                done, pending = await asyncio.wait(pending, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for each in [each for each in running if each in done]:
                    yield each.result()  # what a call raises ends the answer
                if pending and time() >= told_at + TICK:
                    told_at = time()
                    names = ", ".join(running[each] for each in running if each in pending)
                    yield CallsGoOn(f"{names} for {told_at - began:.0f} s")
        finally:
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        for call, each in zip(calls, running, strict=True):
            self.results.append({"role": "tool", "tool_call_id": call.id, "content": each.result().told})

    async def _ended(self, call: ToolCall, place: Place | None, number: int) -> CallEnded:
        if place is None:
            near = nearest(call.name, self._functions)
            hint = f"; did you mean {near}?" if near else ""
            return _refused(call, f"there is no tool {call.name[:SHOWN_NAME]!r}{hint}")
        if number >= self._limits.calls:
            return _refused(
                call, f"not called, because at most {self._limits.calls} tools are called at once. Call it again."
            )
        try:
            arguments = msgspec.json.decode(call.arguments.strip() or "{}", type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            return _refused(call, f"the arguments of {call.name[:SHOWN_NAME]} are no JSON object: {error}")
        time = asyncio.get_running_loop().time
        began = time()
        result = await self._carry(place, arguments, max(1.0, self._limits.deadline - began))
        told = cut(result.text, self._limits.result_chars)
        if result.is_error and not told.startswith("Error"):
            told = f"Error: {told}"
        return CallEnded(call, result, told, place, time() - began)


def _refused(call: ToolCall, why: str) -> CallEnded:
    return CallEnded(call, ToolResult(why, is_error=True), f"Error: {why}")
