"""The commands ``mcp.*`` of an agent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from anywire.errors import EngineFailed, InvalidRequest, UnknownCommand
from anywire_engine_mcp.events import Events
from anywire_engine_mcp.host import FAILED_DEPENDENCY, McpHost, McpStatus, ToolFault
from anywire_engine_mcp.tools import cut
from anywire_engine_models.log_results import MAX_ID_CHARS, log_result

PREFIX = "mcp."
MAX_RESULT_CHARS = 48 * 1024
"""Characters of one result; one of a command has at most 64 KiB."""
MAX_LIST_BYTES = 48 * 1024


class McpCommands:
    """Carries out commands on ``host``; the class's methods are the commands, one each."""

    def __init__(self, host: McpHost, events: Events) -> None:
        self._host, self._told = host, events

    def carry_out(self, name: str, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        """As `anywire.engine.Engine.command`, for a name that begins with `PREFIX`."""
        command = getattr(self, f"_{name.removeprefix(PREFIX)}", None) if name in COMMANDS else None
        if command is None:
            raise UnknownCommand(f"there is no command {name!r}; known: {', '.join(COMMANDS)}")
        found: AsyncIterator[Any] = command(arguments)
        return found

    async def _list(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """Results with ``servers`` each, as many as it takes; long ones in pieces: a server's tools may go on in the
        next result, under the same label."""
        for status in self._host.list():
            for piece in told(status):
                yield {"servers": [piece]}

    async def _status(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        for piece in told(self._host.status(_label(arguments))):
            yield piece

    async def _start(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        yield summary(await self._host.connect(_label(arguments)))

    async def _stop(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        yield summary(await self._host.disconnect(_label(arguments)))

    async def _restart(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        yield summary(await self._host.restart(_label(arguments)))

    async def _call(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        tool, given = arguments.get("tool"), arguments.get("arguments", {})
        if not isinstance(tool, str) or not isinstance(given, dict):
            raise InvalidRequest("tool must be the name of a tool, arguments an object", param="tool")
        label = _label(arguments)
        try:
            result = await self._host.call(label, tool, given)
        except ToolFault as error:
            raise EngineFailed(f"the MCP server {label!r}: {error}", status=FAILED_DEPENDENCY) from error
        found: dict[str, Any] = {"text": cut(result.text, MAX_RESULT_CHARS), "is_error": result.is_error}
        if result.structured is not None:
            found["structured"] = result.structured
            if len(msgspec.json.encode(found)) > MAX_LIST_BYTES:
                del found["structured"]
        while len(msgspec.json.encode(found)) > MAX_LIST_BYTES:  # characters of several bytes
            found["text"] = cut(result.text, len(found["text"]) // 2)
        yield found

    async def _logs(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        lines = arguments.get("lines", 100)
        if type(lines) is not int or not 0 <= lines <= 100_000:
            raise InvalidRequest("lines must be a number from 0 to 100000", param="lines")
        after = arguments.get("after", "")
        if not isinstance(after, str) or len(after) > MAX_ID_CHARS:
            raise InvalidRequest(f"after must be the id of a line, of at most {MAX_ID_CHARS} characters", param="after")
        follow = arguments.get("follow") is True
        async with aclosing(self._host.logs(_label(arguments), lines=lines, follow=follow, after=after)) as logged:
            async for each in logged:
                yield log_result(each)

    async def _events(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """What happens from now on: ``{"event": "server", …}`` with the summary of one that has changed,
        ``{"event": "call", …}`` for each call of a tool, ``{"event": "missed", "count"}``."""
        async with aclosing(self._told.follow()) as events:
            async for event in events:
                yield event


COMMANDS = tuple(f"{PREFIX}{each}" for each in ("list", "status", "start", "stop", "restart", "call", "logs", "events"))


def summary(status: McpStatus) -> dict[str, Any]:
    """A server without its tools: how many they are."""
    found: dict[str, Any] = msgspec.to_builtins(status)
    return found | {"tools": len(status.tools)}


def told(status: McpStatus) -> list[dict[str, Any]]:
    """A server with its tools, in pieces of which each fits into a result."""
    whole: dict[str, Any] = msgspec.to_builtins(status)
    tools = whole.pop("tools", [])
    pieces: list[dict[str, Any]] = [whole | {"tools": []}]
    size = 0
    for tool in tools:
        length = len(msgspec.json.encode(tool))
        if length > MAX_LIST_BYTES:
            tool = {"name": tool["name"], "description": cut(tool.get("description", ""), 1000)}
            length = len(msgspec.json.encode(tool))
        if size + length > MAX_LIST_BYTES and pieces[-1]["tools"]:
            pieces.append({"server": status.server, "tools": []})
            size = 0
        pieces[-1]["tools"].append(tool)
        size += length
    return pieces


def _label(arguments: Mapping[str, Any]) -> str:
    label = arguments.get("server")
    if not isinstance(label, str):
        raise InvalidRequest("server must be the label of an MCP server", param="server")
    return label
