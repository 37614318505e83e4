"""Agents whose link has no room: when they may be sent to again."""

from __future__ import annotations

import asyncio
from collections import Counter

from anywire.boundary import Boundary
from anywire.clock import Clock
from anywire.pipeline.fleet.registry import Registry
from anywire.selector import AgentView
from anywire.transport import Hub

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0
"""Seconds before a link is tried again whose transport says that there is room where there is none."""


class Rooms:
    """Makes an agent a candidate again once ``Hub.drain`` has returned.

    After it the first message has room, by the contract. Where it has not, the link is tried again after a pause that
    is doubled each time, so that a transport against its contract does not keep the event loop busy.
    """

    def __init__(self, registry: Registry, boundary: Boundary, clock: Clock, counts: Counter[str]) -> None:
        self._registry, self._boundary, self._clock, self._counts = registry, boundary, clock, counts
        self._fruitless: dict[str, int] = {}
        self._drains: set[asyncio.Task[None]] = set()

    def wait(self, hub: Hub, agent: AgentView) -> None:
        """There was no room for a message to ``agent``: send it none until there is."""
        fruitless = self._fruitless[agent.agent_id] = self._fruitless.get(agent.agent_id, -1) + 1
        self._registry.set_cause(agent, "congested")
        drain = asyncio.get_running_loop().create_task(self._drain(hub, agent, fruitless))
        self._drains.add(drain)
        drain.add_done_callback(self._drains.discard)

    def found(self, agent_id: str) -> None:
        """A message to this agent had room, or its link is gone."""
        if self._fruitless:
            self._fruitless.pop(agent_id, None)

    def close(self) -> None:
        for drain in self._drains:
            drain.cancel()

    async def _drain(self, hub: Hub, agent: AgentView, fruitless: int) -> None:
        try:
            await hub.drain(agent.agent_id)
        except Exception as error:
            self._boundary.failed(f"transport {agent.transport}", "drain", error)
        if fruitless:
            self._counts["fruitless_drains"] += 1
            await self._clock.sleep(min(FIRST_PAUSE * 2**fruitless, LONGEST_PAUSE))
        self._registry.clear_cause(agent, "congested")
