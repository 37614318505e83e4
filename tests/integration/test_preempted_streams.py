"""Preemption and fallbacks between processes, over a real wire: what clients see of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.integration.anywire_processes import FOR_EVER, NO_LIMITS, ask_streamed, body, start, until_agents
from tests.integration.test_migration import undisturbed
from tests.long_form import SOAK
from tests.patience import PATIENCE

__all__ = ["start"]  # a fixture

STREAMS = 4
"""As many as the agent has slots."""


@pytest.fixture(params=["zeromq", *["dds", "grpc", "http"] * SOAK])
def config(request: pytest.FixtureRequest, tmp_path: Any, options_of: Any) -> Callable[..., list[str]]:
    """Writes a YAML file; gives the arguments that use it."""

    def write(**sections: Any) -> list[str]:
        settings = {"transports": {request.param: options_of(request.param)}, "server": {"port": 0}, **sections}
        path = tmp_path / "anywire.yaml"
        path.write_text(json.dumps(settings))
        return ["--config", str(path)]

    return write


async def count(client: httpx.AsyncClient, name: str) -> int:
    """A counter of the orchestrator."""
    for line in (await client.get("/metrics")).text.splitlines():
        if line.startswith(f"anywire_{name}_total "):
            return int(float(line.split()[1]))
    return 0


async def test_streams_that_give_their_slot_are_the_same_to_the_byte(start: Any, config: Any) -> None:
    """Each gives its slot twice to an urgent task, which it would else hold for ever, and ends at another agent."""
    settings = config(
        engine={"name": "synthetic", "length": 30}, pipeline={"preemption": {"urgent": 5}, "next_token_timeout": 0}
    )
    server = await start("serve", *settings)
    await start("agent", "--agent-id", "slow", "--slots", str(STREAMS), *settings, "--set", f"engine.itl={FOR_EVER}")
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE, limits=NO_LIMITS) as client:
        await until_agents(client, "slow")
        began = [asyncio.Event() for _ in range(STREAMS)]
        low = [
            asyncio.ensure_future(ask_streamed(client, body(number, stream=True), began[number]))
            for number in range(STREAMS)
        ]
        for each in began:
            await asyncio.wait_for(each.wait(), PATIENCE)
        urgent = body(99, stream=False) | {"max_tokens": 1}
        for _ in range(2 * STREAMS):
            answer = await client.post("/v1/chat/completions", json=urgent, headers={"x-anywire-priority": "5"})
            assert answer.status_code == 200
            assert "x-anywire-ignored" not in answer.headers
        await start("agent", "--agent-id", "quick", "--slots", str(STREAMS), *settings)
        await until_agents(client, "slow", "quick")
        assert (await client.post("/v1/agents/slow/isolate")).status_code == 200
        for number, (text, agent) in enumerate(await asyncio.gather(*low)):
            expected, _, _ = await undisturbed(body(number, stream=True), length=30)
            assert (text, agent) == (expected, "slow"), "the header tells where it began"
        assert await count(client, "preemptions") == 2 * STREAMS
        assert await count(client, "retries") == 0


async def test_the_answer_says_which_model_took_the_place(start: Any, config: Any) -> None:
    settings = config(engine={"name": "synthetic", "length": 3}, pipeline={"fallbacks": {"large": ["synthetic"]}})
    server = await start("serve", *settings)
    await start("agent", "--agent-id", "a", *settings)
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
        await until_agents(client, "a")
        for stream in (False, True):
            answer = await client.post("/v1/chat/completions", json=body(1, stream=stream) | {"model": "large"})
            assert (answer.status_code, answer.headers["x-anywire-model"]) == (200, "synthetic")
        task = answer.headers["x-anywire-task"]
        decisions = (await client.get(f"/v1/tasks/{task}")).json()["decisions"]
        assert [each["model"] for each in decisions] == ["synthetic"]
        assert await count(client, "model_fallbacks") == 2
