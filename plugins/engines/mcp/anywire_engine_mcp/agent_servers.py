"""The MCP servers of all agents of an orchestrator, asked for by commands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from anywire.caller import Caller
from anywire.context import Context
from anywire.errors import AnywireError
from anywire.offers import NAMED_NEED
from anywire.selector import AgentView

ENGINE = "mcp"
LIST_DEADLINE = 10.0
"""Seconds that an agent may take to list its servers."""
MAX_AT_ONCE = 32
"""Agents that are asked at the same time."""
MAX_SERVERS_OF_AGENT = 1000
MAX_PIECES = 2000
"""Results of one list; an agent with as many servers and tools as there may be needs fewer."""


class AgentServers(msgspec.Struct, frozen=True):
    """What one agent has said; ``error`` is a sentence where it has not."""

    agent_id: str
    servers: tuple[dict[str, Any], ...] = ()
    error: str = ""


def agents_with_servers(context: Context) -> list[AgentView]:
    """Those whose engine has MCP servers, by what they say of themselves."""
    return [
        each
        for each in context.agents()
        if each.info.engine == ENGINE
        or any(need.startswith(NAMED_NEED) for offer in each.offers.values() for need in offer.features)
    ]


async def listed(context: Context, caller: Caller) -> list[AgentServers]:
    """What all agents say; one that does not answer is told, and holds up nobody longer than `LIST_DEADLINE`."""
    free = asyncio.Semaphore(MAX_AT_ONCE)

    async def ask(agent_id: str) -> AgentServers:
        async with free:
            return await _listed(context, agent_id, caller)

    return list(await asyncio.gather(*[ask(agent.agent_id) for agent in agents_with_servers(context)]))


async def _listed(context: Context, agent_id: str, caller: Caller) -> AgentServers:
    found: dict[str, dict[str, Any]] = {}
    pieces = 0
    try:
        results = context.command([agent_id], "mcp.list", deadline=LIST_DEADLINE, caller=caller)
        async with aclosing(results):
            async for result in results:
                for piece in result["servers"]:
                    _add(found, piece)
                pieces += 1
                if pieces > MAX_PIECES:
                    raise ValueError(f"it goes on after {MAX_PIECES} results")
    except AnywireError as error:
        return AgentServers(agent_id, error=f"{error.code}: {error}")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return AgentServers(agent_id, error=f"what it says of its MCP servers is not understood: {error!r:.200}")
    return AgentServers(agent_id, tuple(found.values()))


def _add(found: dict[str, dict[str, Any]], piece: dict[str, Any]) -> None:
    """Put a piece of a list to those before it: a server's tools may come in several."""
    label, tools = piece["server"], piece["tools"]
    if not isinstance(label, str) or not isinstance(tools, list):
        raise ValueError(f"{piece!r:.100} is no server")
    if label not in found:
        if len(found) >= MAX_SERVERS_OF_AGENT:
            raise ValueError(f"it has more than {MAX_SERVERS_OF_AGENT} servers")
        found[label] = piece | {"tools": []}
    found[label]["tools"] += tools


async def carried_out(
    context: Context, agent_ids: Sequence[str], command: str, label: str, deadline: float, caller: Caller
) -> dict[str, Any]:
    """Have agents do something with a server: what each says, or its error as ``{"error": {"code", "message"}}``."""

    async def ask(agent_id: str) -> Any:
        try:
            results = context.command([agent_id], command, {"server": label}, deadline=deadline, caller=caller)
            last: Any = None
            async with aclosing(results):
                async for result in results:
                    last = result
            return last
        except AnywireError as error:
            return {"error": {"code": error.code, "message": str(error)}}

    return dict(zip(agent_ids, await asyncio.gather(*map(ask, agent_ids)), strict=True))
