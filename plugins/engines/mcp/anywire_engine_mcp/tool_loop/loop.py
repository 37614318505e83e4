"""Asks the model, calls the tools that it wants, and asks it again, within bounds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

from anywire.engine import Delta, EngineProgress
from anywire.errors import EngineFailed, InvalidRequest
from anywire.messages import TaskRequest
from anywire.near import nearest
from anywire.printable import printable
from anywire_engine_mcp.host import McpStatus, ToolFault
from anywire_engine_mcp.tool_loop.answered import Answered, ToolCall, added_usage
from anywire_engine_mcp.tool_loop.requested import ChatWithTools, Place
from anywire_engine_mcp.tools import McpTool, ToolResult, cut

TICK = 10.0
"""Seconds after which a call that goes on is told of again: so that the stream does not count as silent."""
SHOWN_NAME = 80

log = logging.getLogger(__name__)

Ask = Callable[[TaskRequest], AsyncGenerator[Delta | EngineProgress, None]]
Tell = Callable[[str, dict[str, Any]], None]


class ToolServers(Protocol):
    """What is used of `McpHost`."""

    def status(self, label: str) -> McpStatus: ...
    async def tools(self, label: str) -> tuple[McpTool, ...]: ...
    async def call(self, label: str, tool: str, arguments: Mapping[str, Any], *, timeout: float) -> ToolResult: ...


class LoopLimits(msgspec.Struct, frozen=True):
    """``steps`` are rounds in which tools are called, ``seconds`` the time from the first question on after which none
    is called any more; the model then gets a last round for its answer. ``calls`` are those of one round,
    ``result_chars`` what the model is told of one result."""

    steps: int = 8
    seconds: float = 300.0
    calls: int = 16
    result_chars: int = 32 * 1024


async def run_loop(
    task: TaskRequest, chat: ChatWithTools, host: ToolServers, ask: Ask, limits: LoopLimits, tell: Tell
) -> AsyncGenerator[Delta | EngineProgress, None]:
    """The answer to a chat that names MCP servers; ``ask`` asks the model, ``tell`` is told of each call: an
    event and its members.

    Each call is told as progress. Calls for the client end the loop. Raises what ``ask`` raises, `InvalidRequest` for a
    server or tool that is not there, and what `anywire_engine_mcp.host.McpHost` says of a server that does not run or
    ends; a tool's own failure is a result for the model.
    """
    if task.resume:
        raise EngineFailed("a chat with MCP servers cannot be resumed: its tools would be called again")
    loop = asyncio.get_running_loop()
    began = loop.time()
    listed: dict[str, tuple[McpTool, ...]] = {}
    for label in chat.servers:
        if host.status(label).state != "running":
            yield EngineProgress("loading", f"the MCP server {label}")
        listed[label] = await host.tools(label)
    chat.offer(listed)
    further: list[dict[str, Any]] = []
    shown = usage = ""
    step = 0
    while True:
        step += 1
        elapsed = loop.time() - began
        last = step > limits.steps or elapsed >= limits.seconds
        if last:
            log.info("task %s: the model answers without further tools after %d rounds", task.task_id, step - 1)
        answered = Answered(shown)
        body = chat.body(further, first=step == 1, last=last)
        async with aclosing(ask(_round(task, body, elapsed))) as deltas:
            async for delta in deltas:
                if isinstance(delta, EngineProgress):
                    yield delta
                    continue
                for each in answered.take(delta):
                    shown += each.text
                    if task.stream or not each.text:
                        yield each
        usage = added_usage(usage, answered.usage)
        calls = [each for each in answered.calls if each.name in chat.client_functions]
        if calls or last or not answered.calls:
            if not calls and not shown and answered.calls:
                raise EngineFailed(
                    f"the model wants further tools after {step - 1} rounds, and gives no answer "
                    "(max_steps, max_seconds)",
                    phase="streaming",
                )
            for each in answered.last(shown, calls, usage, stream=task.stream):
                yield each
            return
        for number, call in enumerate(answered.calls):
            call.id = call.id or f"call_{step}_{number}"
        further.append(answered.message())
        round_of_calls = _Calls(task.task_id, chat, host, limits, began + limits.seconds, tell)
        async with aclosing(round_of_calls.made(answered.calls)) as progress:
            async for told in progress:
                yield told
        further += round_of_calls.results
        yield EngineProgress("running")


def _round(task: TaskRequest, body: str, elapsed: float) -> TaskRequest:
    left = max(1, task.time_left_ms - round(elapsed * 1000)) if task.time_left_ms else 0
    return msgspec.structs.replace(task, body=body, time_left_ms=left)


class _Calls:
    """The calls of one round, made side by side. ``results`` are the messages for the model, in their order."""

    def __init__(
        self, task_id: str, chat: ChatWithTools, host: ToolServers, limits: LoopLimits, deadline: float, tell: Tell
    ) -> None:
        self.results: list[dict[str, Any]] = []
        self._task_id, self._chat, self._host = task_id, chat, host
        self._limits, self._deadline, self._tell = limits, deadline, tell

    async def made(self, calls: Sequence[ToolCall]) -> AsyncGenerator[EngineProgress, None]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        running: dict[asyncio.Task[str], str] = {}
        for number, call in enumerate(calls):
            place = self._chat.functions.get(call.name)
            what = str(place) if place is not None else printable(call.name, SHOWN_NAME)
            running[asyncio.create_task(self._result(call, place, number), name=f"tool {what}")] = what
        pending: set[asyncio.Task[str]] = set(running)
        try:
            for what in running.values():
                yield EngineProgress("tool", what)
            while pending:
                done, pending = await asyncio.wait(pending, timeout=TICK, return_when=asyncio.FIRST_EXCEPTION)
                for each in done:
                    each.result()  # a server that does not run ends the chat
                if pending:
                    names = ", ".join(running[each] for each in running if each in pending)
                    yield EngineProgress("tool", f"{names} for {loop.time() - began:.0f} s")
        finally:
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        for call, each in zip(calls, running, strict=True):
            self.results.append({"role": "tool", "tool_call_id": call.id, "content": each.result()})

    async def _result(self, call: ToolCall, place: Place | None, number: int) -> str:
        """What the model is told of a call."""
        if place is None:
            near = nearest(call.name, self._chat.functions)
            hint = f"; did you mean {near}?" if near else ""
            return f"Error: there is no tool {call.name[:SHOWN_NAME]!r}{hint}"
        if number >= self._limits.calls:
            return f"Error: not called, because at most {self._limits.calls} tools are called at once. Call it again."
        try:
            arguments = msgspec.json.decode(call.arguments or "{}", type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            return f"Error: the arguments of {call.name} are no JSON object: {error}"
        loop = asyncio.get_running_loop()
        began = loop.time()
        timeout = max(1.0, self._deadline - began)
        try:
            result = await self._host.call(place.label, place.tool.name, arguments, timeout=timeout)
        except (ToolFault, InvalidRequest) as error:
            result = ToolResult(f"Error: {error}", is_error=True)
        text = cut(result.text, self._limits.result_chars)
        seconds = loop.time() - began
        how = "failed" if result.is_error else "gave a result"
        log.info(
            "task %s: tool %s %s after %.3f s with %d characters", self._task_id, place, how, seconds, len(result.text)
        )
        self._tell(
            "call",
            {
                "task_id": self._task_id,
                "server": place.label,
                "tool": place.tool.name,
                "seconds": round(seconds, 6),
                "chars": len(result.text),
                "is_error": result.is_error,
            },
        )
        if result.is_error and not text.startswith("Error"):
            text = f"Error: {text}"
        return text
