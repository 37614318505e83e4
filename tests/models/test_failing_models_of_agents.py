"""A model whose server fails at one of two whole agents: clients are answered, and the agent keeps its other model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.models.served_models import Engine, FewDevices, ModelApi, ServedLauncher, entry, write_registry
from tests.models.simulated_servers import Behaviour

from anywire import events
from anywire.pipeline.orchestrator import Orchestrator
from anywire.selector import AgentView
from anywire.submission import Submission
from anywire.testing.patience import expect
from anywire.testing.rig import Rig, read
from anywire_engine_models.config import ModelsConfig

A, B = "local:a:1", "local:b:1"


@asynccontextmanager
async def two_agents(registry: Path, **breaker: float) -> AsyncIterator[tuple[Orchestrator, dict[str, ModelApi]]]:
    """Each with both models running; ``breaker`` are settings of breakers."""
    write_registry(registry, entry("a", autostart=True, slots=8), entry("b", autostart=True, slots=8))
    config = ModelsConfig.model_validate({"registry": registry, "memory_budget": 0})
    apis = {agent_id: ModelApi() for agent_id in ("one", "two")}
    async with Rig("memory", {"network": str(registry)}) as rig:
        pipeline = await rig.pipeline(breaker={"quarantine_trips": 1, **breaker}, retries={"base": 0.0})
        try:
            for agent_id, api in apis.items():
                await api.up()
                engine = Engine(config, launcher=ServedLauncher(api, Behaviour(), 0), devices=FewDevices())
                await rig.agent(agent_id, engine=engine)
            await expect(pipeline.agents_until(_all_ready), "both models run at both agents")
            yield pipeline, apis
        finally:
            for api in apis.values():
                await api.down()


def _all_ready(agents: list[AgentView]) -> bool:
    states = [offer.state for agent in agents for offer in agent.offers.values()]
    return states == ["ready"] * 4


async def chat(pipeline: Orchestrator, model: str, *prefer: str) -> str:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]})
    return await read(pipeline.submit(Submission("chat", model, body, True, prefer=prefer)))


@pytest.mark.parametrize("status", [500, 503])
async def test_a_broken_model_at_one_agent_harms_neither_its_clients_nor_the_agents_other_model(
    tmp_path: Path, status: int
) -> None:
    async with two_agents(tmp_path / "models.json", errors=2, recovery=600, longest=600) as (pipeline, apis):
        told: list[events.HealthChanged] = []
        pipeline.events.subscribe("told", told.append, events.HealthChanged)
        apis["one"].statuses[A] = status
        for _ in range(8):
            assert await chat(pipeline, A, "one") == f"{A} says hello"
            assert await chat(pipeline, B, "one") == f"{B} says hello"
        assert {agent_id: _asked(api) for agent_id, api in apis.items()} == {"one": {A: 2, B: 8}, "two": {A: 8}}
        health = pipeline.agent_health("one")
        assert (health.state, health.models) == ("closed", {A: "open"})
        assert [(each.agent_id, each.model, each.state) for each in told] == [("one", A, "open")]


def _asked(api: ModelApi) -> Counter[str]:
    """How often each model was asked there."""
    return Counter(body["model"] for body, _ in api.asked)


async def test_a_model_that_is_mended_answers_again(tmp_path: Path) -> None:
    async with two_agents(tmp_path / "models.json", errors=1, recovery=0.05) as (pipeline, apis):
        told: list[str] = []
        apis["one"].statuses[A] = 500
        pipeline.events.subscribe("told", lambda event: told.append(event.state), events.HealthChanged)
        assert await chat(pipeline, A, "one") == f"{A} says hello"
        assert told[0] == "open"
        del apis["one"].statuses[A]
        for _ in range(1000):
            assert await chat(pipeline, A, "one") == f"{A} says hello"
            if told[-1] == "closed":
                break
        assert told == ["open", "half_open", "closed"]
        assert pipeline.agent_health("one").models == {}
