"""What ``anywire mcp`` asks of agents, through an orchestrator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from anywire.asked_fleet import AskedFleet
from anywire.errors import AgentUnavailable, AnywireError, ConfigError, InvalidRequest
from anywire.not_understood import NotUnderstood

LIST_DEADLINE = 10.0  # seconds
ORDER_DEADLINE = 300.0  # seconds; the server's own start_timeout is less
ENGINE = "mcp"

Listed = dict[str, dict[str, Any]]
"""By agent: ``servers``, a list, or ``error``, a sentence."""


def read_arguments(text: str) -> dict[str, Any]:
    """The arguments of a tool. Raises `ConfigError`."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ConfigError(f'the arguments must be a JSON object, such as \'{{"path": "a"}}\': {error}') from error


async def listed(fleet: AskedFleet, agent_id: str | None) -> Listed:
    """The servers of all agents with the engine ``mcp``, or of one agent. Raises `AgentUnavailable` where there is
    none, and for the one agent what it raises."""
    if agent_id is not None:
        return {agent_id: {"servers": await _servers(fleet, agent_id)}}
    agents = [str(each["id"]) for each in await fleet.list("agents") if each.get("engine") == ENGINE]
    if not agents:
        raise AgentUnavailable("no agent with the engine mcp has joined the orchestrator: see `anywire agents`")
    found: Listed = {}
    for each in agents:
        try:
            found[each] = {"servers": await _servers(fleet, each)}
        except AnywireError as error:
            found[each] = {"error": str(error)}
    return found


async def status(fleet: AskedFleet, server: str, agent_id: str | None) -> dict[str, Any]:
    """A server with its tools; where no agent runs it, as it was known last."""
    chosen = agent_id if agent_id is not None else await one(fleet, server)
    found = [each for each in await _servers(fleet, chosen) if each["server"] == server]
    if not found:
        raise InvalidRequest(f"the agent {chosen} has no MCP server {server!r}", param="server")
    return found[0]


async def ordered(fleet: AskedFleet, order: str, server: str, agent_id: str | None) -> dict[str, dict[str, Any]]:
    """Have agents start, stop or restart a server; what each says, or its ``error``."""
    agents = [agent_id] if agent_id is not None else await _having(fleet, server)
    done: dict[str, dict[str, Any]] = {}
    for each in agents:
        try:
            done[each] = await _only(fleet, each, f"mcp.{order}", {"server": server}, ORDER_DEADLINE)
        except AnywireError as error:
            if agent_id is not None:
                raise
            done[each] = {"error": str(error)}
    return done


async def call(
    fleet: AskedFleet, server: str, tool: str, arguments: Mapping[str, Any], agent_id: str | None
) -> dict[str, Any]:
    chosen = agent_id if agent_id is not None else await one(fleet, server)
    asked = {"server": server, "tool": tool, "arguments": dict(arguments)}
    return await _only(fleet, chosen, "mcp.call", asked, ORDER_DEADLINE)


async def each_line(
    fleet: AskedFleet, server: str, arguments: Mapping[str, Any], agent_id: str, show: Callable[[Any], None]
) -> None:
    """Hand on each result of a server's log."""
    async with aclosing(fleet.command(agent_id, "mcp.logs", {"server": server, **arguments})) as results:
        async for result in results:
            show(result)


async def _servers(fleet: AskedFleet, agent_id: str) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    async with aclosing(fleet.command(agent_id, "mcp.list", {}, deadline=LIST_DEADLINE)) as results:
        async for result in results:
            for piece in _list(result, "servers"):
                label, tools = _member(piece, "server"), _list(piece, "tools")
                found.setdefault(str(label), {**piece, "tools": []})["tools"].extend(tools)
    return list(found.values())


async def _having(fleet: AskedFleet, server: str) -> list[str]:
    """The agents that have a server. Raises `InvalidRequest` where none has."""
    agents = await listed(fleet, None)
    having = [
        agent_id
        for agent_id, told in agents.items()
        if any(each["server"] == server for each in told.get("servers", ()))
    ]
    if not having:
        known = sorted({each["server"] for told in agents.values() for each in told.get("servers", ())})
        raise InvalidRequest(
            f"no agent has an MCP server {server!r}; there are: {', '.join(known) or 'none'}", param="server"
        )
    return having


async def one(fleet: AskedFleet, server: str) -> str:
    """An agent that runs a server, or else one that has it."""
    having = await _having(fleet, server)
    if len(having) == 1:
        return having[0]
    for agent_id in having:
        if any(each["server"] == server and each.get("state") == "running" for each in await _servers(fleet, agent_id)):
            return agent_id
    return having[0]


async def _only(
    fleet: AskedFleet, agent_id: str, name: str, arguments: Mapping[str, Any], deadline: float
) -> dict[str, Any]:
    """The last result of a command."""
    found: Any = None
    async with aclosing(fleet.command(agent_id, name, arguments, deadline=deadline)) as results:
        async for result in results:
            found = result
    if not isinstance(found, dict):
        raise NotUnderstood(f"the agent {agent_id} answered {name} with {found!r:.100}")
    return found


def _list(result: Any, name: str) -> list[Any]:
    found = _member(result, name)
    if not isinstance(found, list):
        raise NotUnderstood(f"the agent answered with {result!r:.100}, whose {name} are no list")
    return found


def _member(result: Any, name: str) -> Any:
    if not isinstance(result, dict) or name not in result:
        raise NotUnderstood(f"the agent answered with {result!r:.100}, which has no {name}")
    return result[name]
