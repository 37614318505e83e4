"""Placement over real processes: an agent is killed, and what is wanted is loaded elsewhere while clients ask on."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.anywire_processes import NO_LIMITS, start, until_agents
from tests.long_form import SOAK
from tests.patience import PATIENCE

from anywire.testing.patience import polled

__all__ = ["start"]  # a fixture

SIZES = dict.fromkeys(("a", "b", "c", "d", "e"), 1)
PLUGIN = Path(__file__).with_name("model_agent.py")
WANTED = {model: {"replicas": 2 if model == "a" else 1} for model in SIZES}

pytestmark = pytest.mark.timeout(150)


async def report(client: httpx.AsyncClient) -> dict[str, Any]:
    told: dict[str, Any] = (await client.get("/v1/placement")).json()
    return told


async def restored(client: httpx.AsyncClient, agents: set[str]) -> dict[str, Any]:
    """Wait until all that is wanted is loaded at these agents."""

    async def look() -> dict[str, Any]:
        while True:
            told = await report(client)
            at = {agent for each in told["models"] for agent in each["loaded"]}
            if all(len(each["loaded"]) >= each["replicas"] for each in told["models"]) and at <= agents:
                return told
            await asyncio.sleep(0.05)

    return await asyncio.wait_for(look(), PATIENCE)


@pytest.mark.parametrize("transport", ["http", *["dds", "grpc", "zeromq"] * SOAK])
async def test_what_a_killed_agent_had_is_restored_and_no_request_is_lost(
    start: Callable[..., Any],
    tmp_path: Path,
    options_of: Callable[[str], dict[str, Any]],
    transport: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    settings = {
        "transports": {transport: options_of(transport)},
        "server": {"port": 0},
        "engine": {"name": "model_agent", "models": SIZES, "budget": 3, "loading": 0.2},
        "plugins": [str(PLUGIN)],
        "lease": {"timeout": 1.0, "heartbeat_interval": 0.2},
        "services": {"placement": {"models": WANTED, "absence": 1.0, "settle": 1.0}},
    }
    path = tmp_path / "anywire.yaml"
    path.write_text(json.dumps(settings))
    config = ["--config", str(path)]
    server = await start("serve", *config)
    agents = {each: await start("agent", "--agent-id", each, "--slots", "16", *config) for each in ("a1", "a2", "a3")}
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE, limits=NO_LIMITS) as client:
        await until_agents(client, *agents)
        told = await restored(client, set(agents))
        assert all(each.get("used_bytes", 0) <= 3 for each in told["agents"])
        answers: list[tuple[str, int, str]] = []
        asking = True

        async def ask(model: str) -> None:
            body = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 20}
            while asking:
                answer = await client.post("/v1/chat/completions", json=body)
                answers.append((model, answer.status_code, answer.text[:300]))

        clients = [asyncio.create_task(ask(model)) for model in SIZES for _ in range(2)]
        victim = told["models"][1]["loaded"][0]  # of b there is one replica
        await polled(lambda: len(answers) >= 50, "clients are answered", PATIENCE)
        await agents.pop(victim).end(signal.SIGKILL)
        told = await restored(client, set(agents))
        before = len(answers)
        await polled(
            lambda: {model for model, _, _ in answers[before:]} == SIZES.keys(), "all models are answered", PATIENCE
        )
        asking = False
        await asyncio.gather(*clients)
        wrong = [each for each in answers if each[1] != 200]
        assert not wrong, wrong
        assert told["swap_cost"]["loads"] > 6
        assert told["swap_cost"]["failed"] == 0
        lost = await client.get("/metrics")
        assert "anywire_placement_loads_total" in lost.text
