"""The service ``placement`` beside an orchestrator, with agents that have simulated models; for tests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from tests.placement.model_agent import ModelAgent, ModelAgentConfig

from anywire.builtin.memory import MemoryTransport
from anywire.events import PluginEvent
from anywire.identity import agent_info
from anywire.roles.agent import Agent
from anywire.route import Response
from anywire.testing.patience import expect, polled
from anywire.testing.recorder import Recorder
from anywire.testing.service_bench import ServiceBench, service_bench
from anywire_service_placement.config import PlacementConfig
from anywire_service_placement.service import Placement

QUICK: dict[str, Any] = {"absence": 0.2, "settle": 0.2, "retry_min": 0.2, "retry_max": 2.0}


class Fleet:
    """``events`` has (name, data) of every event of placement."""

    def __init__(self, bench: ServiceBench, service: Placement) -> None:
        self.bench, self.service = bench, service
        self.engines: dict[str, ModelAgent] = {}
        self.agents: dict[str, Agent] = {}
        self.events = Recorder()
        self.unsubscribe = bench.orchestrator.events.subscribe("test", self._told, PluginEvent)

    def _told(self, event: PluginEvent) -> None:
        if event.source == "placement":
            self.events.add(event.name, event.data)

    async def join(self, agent_id: str, host: str = "", slots: int = 64, **engine: Any) -> ModelAgent:
        """One more agent, ready."""
        made = ModelAgent(ModelAgentConfig(**engine))
        info = msgspec.structs.replace(agent_info(agent_id, engine=made), host=host or agent_id)
        network = self.bench.orchestrator.transports[0].config
        agent = Agent(info, made, [MemoryTransport(network)], slots=slots)
        self.engines[agent_id], self.agents[agent_id] = made, agent
        await agent.start()
        await expect(
            self.bench.orchestrator.agents_until(
                lambda agents: any(each.agent_id == agent_id and each.status.state == "ready" for each in agents)
            ),
            f"{agent_id} has joined",
        )
        return made

    async def leave(self, agent_id: str) -> None:
        del self.engines[agent_id]
        await self.agents.pop(agent_id).close()

    def where(self, model: str) -> list[str]:
        """The agents at which a model runs."""
        return [
            agent_id
            for agent_id, engine in self.engines.items()
            if (found := engine.models.get(model)) is not None and found.state == "running"
        ]

    async def loaded(self, **replicas: int) -> None:
        """Wait until just so many replicas of each model run."""

        def seen() -> str:
            return f"; they run at { ({model: self.where(model) for model in replicas}) }, events: {self.events.events}"

        await polled(
            lambda: all(len(self.where(model)) == number for model, number in replicas.items()),
            f"replicas are loaded: {replicas}",
            seen=seen,
        )

    async def report(self) -> dict[str, Any]:
        answer = await self.bench.call("GET", "/placement")
        assert isinstance(answer, Response), answer
        told: dict[str, Any] = json.loads(answer.body)
        return told

    async def put(self, **models: Any) -> Any:
        answer = await self.bench.call("PUT", "/placement", json.dumps({"models": models}).encode())
        return json.loads(answer.body) if isinstance(answer, Response) else answer

    def check(self) -> None:
        """Nothing was done at an agent that must not be."""
        broken = [each for engine in self.engines.values() for each in engine.broken]
        assert not broken, broken


@asynccontextmanager
async def fleet(state: Path, models: dict[str, Any], agent_wait: float = 5.0, **settings: Any) -> AsyncIterator[Fleet]:
    """A fleet without agents that have models, where these are wanted."""
    service = Placement(PlacementConfig(models=models, **QUICK | settings))
    async with service_bench(service, state=state, agent_wait=agent_wait) as bench:
        found = Fleet(bench, service)
        try:
            yield found
            found.check()
        finally:
            found.unsubscribe()
            for agent in found.agents.values():
                await agent.close()
    failures = {name: count for name, count in bench.orchestrator.boundary.failures.items() if "placement" in name}
    assert not failures, failures
