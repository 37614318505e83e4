"""The answer to a chat that names MCP servers: the tool loop with their tools."""

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
from anywire_engine_mcp.connection.faults import ToolFault
from anywire_engine_mcp.status import McpStatus
from anywire_engine_mcp.tool_loop.calls import CallBegun, CallEnded, CallsGoOn
from anywire_engine_mcp.tool_loop.functions import Place
from anywire_engine_mcp.tool_loop.loop import LoopLimits, Round, ToolLoop
from anywire_engine_mcp.tool_loop.requested import ChatWithTools
from anywire_engine_mcp.tools import McpTool, ToolResult

log = logging.getLogger(__name__)

Ask = Callable[[TaskRequest], AsyncGenerator[Delta | EngineProgress, None]]
Tell = Callable[[str, dict[str, Any]], None]


class ToolServers(Protocol):
    """What is used of `anywire_engine_mcp.host.McpHost`."""

    def status(self, label: str) -> McpStatus: ...
    async def tools(self, label: str) -> tuple[McpTool, ...]: ...
    async def call(
        self, label: str, tool: str, arguments: Mapping[str, Any], *, timeout: float, trace: str = ""
    ) -> ToolResult: ...


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
    time = asyncio.get_running_loop().time
    began = time()
    listed: dict[str, tuple[McpTool, ...]] = {}
    for label in chat.servers:
        if host.status(label).state != "running":
            yield EngineProgress("loading", f"the MCP server {label}")
        listed[label] = await host.tools(label)
    chat.offer(listed)

    def ask_round(further: Sequence[Any], round_: Round) -> AsyncGenerator[Delta | EngineProgress, None]:
        if round_.last:
            log.info("task %s: the model answers without further tools after round %d", task.task_id, round_.number - 1)
        return ask(_asked(task, chat.body(further, first=round_.number == 1, last=round_.last), time() - began))

    async def carry(place: Place, arguments: Mapping[str, Any], timeout: float) -> ToolResult:
        try:
            return await host.call(place.label, place.tool.name, arguments, timeout=timeout, trace=task.trace)
        except (ToolFault, InvalidRequest) as error:
            return ToolResult(str(error), is_error=True)

    loop = ToolLoop(
        ask_round,
        chat.functions,
        carry,
        limits,
        client_functions=chat.client_functions,
        stream=task.stream,
        began=began,
    )
    async with aclosing(loop.run()) as steps:
        async for step in steps:
            match step:
                case CallBegun(what=what) | CallsGoOn(what=what):
                    yield EngineProgress("tool", what)
                case CallEnded():
                    _told(task.task_id, step, tell)
                case _:
                    yield step


def _asked(task: TaskRequest, body: str, elapsed: float) -> TaskRequest:
    left = max(1, task.time_left_ms - round(elapsed * 1000)) if task.time_left_ms else 0
    return msgspec.structs.replace(task, body=body, time_left_ms=left)


def _told(task_id: str, ended: CallEnded, tell: Tell) -> None:
    """Tell of a call that was made."""
    place, result = ended.place, ended.result
    if place is None:
        return
    how = "failed" if result.is_error else "gave a result"
    log.info(
        "task %s: tool %s %s after %.3f s with %d characters", task_id, place, how, ended.seconds, len(result.text)
    )
    tell(
        "call",
        {
            "task_id": task_id,
            "server": place.label,
            "tool": place.tool.name,
            "seconds": round(ended.seconds, 6),
            "chars": len(result.text),
            "is_error": result.is_error,
        },
    )
