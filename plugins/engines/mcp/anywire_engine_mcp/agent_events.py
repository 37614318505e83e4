"""Follows what happens at the MCP servers of all agents, and publishes it as events of the orchestrator."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from anywire.context import Context
from anywire.errors import AnywireError, ConfigError
from anywire_engine_mcp.agent_servers import agents_with_servers

FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0
"""Seconds before an agent is followed again whose events have ended, doubling."""
KNOWN = ("server", "call", "missed")

log = logging.getLogger(__name__)


class AgentEvents:
    """Follows each agent that has MCP servers while it is there. ``publish`` gets an event's name and its data."""

    def __init__(self, context: Context, publish: Callable[[str, dict[str, Any]], None]) -> None:
        self._context, self._publish = context, publish
        self._following: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._unlisten: Callable[[], None] = lambda: None

    def begin(self) -> None:
        self._unlisten = self._context.listen(self._look)
        self._look()

    async def close(self) -> None:
        self._unlisten()
        tasks = list(self._following.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _look(self) -> None:
        there = {(each.agent_id, each.info.incarnation) for each in agents_with_servers(self._context)}
        for key in there - self._following.keys():
            self._following[key] = asyncio.create_task(self._follow(key[0]), name=f"mcp events of {key[0]}")
        for key in self._following.keys() - there:
            self._following.pop(key).cancel()

    async def _follow(self, agent_id: str) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                events = self._context.command([agent_id], "mcp.events", deadline=0.0)
                async with aclosing(events):
                    async for event in events:
                        pause = FIRST_PAUSE
                        self._tell(agent_id, event)
            except AnywireError as error:
                log.debug("the MCP events of agent %s ended: %s", agent_id, error)
                if error.code == "unknown_command":
                    return
            await self._context.clock.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)

    def _tell(self, agent_id: str, event: Any) -> None:
        if not isinstance(event, dict) or event.get("event") not in KNOWN:
            return
        name = event.pop("event")
        with contextlib.suppress(ConfigError):  # an agent is a stranger: what is too long is left out
            self._publish(f"mcp.{name}", {"agent_id": agent_id} | event)
