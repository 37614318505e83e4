"""A fleet that goes on while somebody sends nonsense: its tasks are answered, nobody is lost, nothing is kept."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
from _pytest.logging import LogCaptureHandler
from tests.integration.wire_bench import log_of
from tests.long_form import SOAK

from anywire.errors import AnywireError
from anywire.events import AgentLost
from anywire.identity import agent_info, hub_info
from anywire.messages import (
    AgentInfo,
    AgentStatus,
    Cancel,
    Chunk,
    Command,
    CommandResult,
    Credit,
    HubInfo,
    Progress,
    TaskRequest,
)
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import PipelineConfig
from anywire.plugins import Plugins
from anywire.protocol import PROTOCOL
from anywire.roles.agent import Agent
from anywire.testing.doubles import MODEL, OFFERS, Only, Script, ScriptedEngine, fifo
from anywire.testing.patience import PATIENCE
from anywire.testing.rig import read, submit

MESSAGES = 20_000 if SOAK else 2_000
"""How many are sent in a test."""

HUB = HubInfo("rogue", 5, "host", 1, 1000, PROTOCOL)
AGENT = AgentInfo("rogue", 5, "host", 1, "engine", "", ("chat",), "", "boot", 1000, PROTOCOL)
STATUS = AgentStatus("rogue", 5, "ready", OFFERS, 8, resources={"cpu_percent": 1.0})
FROM_AGENT = (
    STATUS,
    Chunk("hub", "t", 1, 0, ("text",), usage="{}", final=True, first_ns=1, last_ns=2),
    Chunk("hub", "t", 1, 0, ("text",)),
    Progress("hub", "t", 1, "loading", "detail"),
    CommandResult("hub", "c", 0, "{}", True),
)
TO_AGENT = (
    TaskRequest("rogue", "t", 1, "chat", MODEL, Script(tag="rogue").body(), True, credit=8),
    Cancel("rogue", "t", 1, "reason"),
    Credit("rogue", "t", 1, 5),
    Command("rogue", "c", "count", '{"count":1}', credit=8),
)


class Fuzzed:
    """An orchestrator named ``hub`` and its agent ``victim``, which is asked one task after the other."""

    def __init__(self, transport: str, hub_options: dict[str, Any], agent_options: dict[str, Any]) -> None:
        plugins = Plugins()
        self.hub = Orchestrator(
            msgspec.structs.replace(hub_info("hub"), lease_ms=60_000),
            [plugins.create("transports", transport, hub_options)],
            fifo(),
            Only("victim"),
            # Records of tasks that have ended would be more, the longer the messages take.
            config=PipelineConfig(explained_tasks=0),
            plugins=plugins,
        )
        engine = ScriptedEngine()
        info = agent_info("victim", engine=engine, lease=60.0)
        self.agent = Agent(info, engine, [plugins.create("transports", transport, agent_options)], slots=64)
        self.answered, self.failures, self._over = 0, list[str](), False
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Fuzzed:
        self._log = self._stack.enter_context(log_of(""))
        await self.hub.start()
        self._stack.push_async_callback(self.hub.close)
        await self.agent.start()
        self._stack.push_async_callback(self.agent.close)
        seen = self.hub.agents_until(lambda views: any(each.status.state == "ready" for each in views))
        await asyncio.wait_for(seen, PATIENCE)
        self.hub.events.subscribe("fuzzed", self._lost, AgentLost)
        self._asking = asyncio.create_task(self._ask())
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._over = True
        await self._asking
        await self._stack.aclose()

    def names(self) -> list[Any]:
        """What others are called now: the tasks under way, among them."""
        return ["hub", "victim", *(each for key in self.hub.attempts.open for each in key)]

    async def bears(self, send: Callable[[int], Awaitable[None]], messages: int = MESSAGES) -> None:
        """Let ``send`` send so many mutated messages, in two halves: after the second no more is kept than before."""
        await send(messages // 2)
        most = await self._kept() + messages // 2
        await send(messages - messages // 2)
        kept, soon = await self._kept(), asyncio.get_running_loop().time() + PATIENCE
        while kept >= most and asyncio.get_running_loop().time() < soon:
            # On a busy machine, what the last messages have begun has not ended yet.
            kept = await self._kept()
        assert kept < most, f"{kept - most} objects too many are kept after {messages // 2} messages more"
        assert not self.failures
        assert not self._log.tracebacks, self._log.tracebacks[:3]
        warned = self._log.count("")
        assert warned < 1000, f"{warned} warnings"
        (victim,) = [each for each in self.hub.agents() if each.agent_id == "victim"]
        assert victim.status.state == "ready"
        assert victim.failed == 0
        assert not self.agent.draining

    async def _kept(self) -> int:
        """Objects that are kept once two more tasks are answered, beside what pytest keeps of the log."""
        for _ in range(2):
            await asyncio.wait_for(self._answer(), PATIENCE)
        for handler in logging.getLogger().handlers:
            if isinstance(handler, LogCaptureHandler):
                handler.reset()
        gc.collect()
        return len(gc.get_objects())

    async def _answer(self) -> None:
        script = Script(tag="s", chunks=20)
        try:
            text = await read(submit(self.hub, script))
        except AnywireError as error:
            self.failures.append(f"{type(error).__name__}: {error}")
        else:
            self.answered += 1
            if text != script.text():
                self.failures.append(f"{text!r} was answered")

    async def _ask(self) -> None:
        while not self._over:
            await self._answer()

    def _lost(self, event: AgentLost) -> None:
        if event.agent_id == "victim":
            self.failures.append(f"the victim was lost: {event.reason}")
