"""Processes that die: agents and orchestrators really killed, under load, with migration off. How agents are lost over
each wire is seen in `tests.integration.test_migration`."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import httpx
import pytest
from tests.integration.anywire_processes import NO_LIMITS, ask_streamed, body, config, start, until_agents
from tests.long_form import SOAK
from tests.patience import PATIENCE

__all__ = ["config", "start"]  # fixtures

NAMES = ("a1", "a2", "a3")
NO_MIGRATION = {"resume": False}


async def ask(client: httpx.AsyncClient, number: int) -> tuple[str, str]:
    """A whole answer: its text and the agent, or the error's code."""
    answer = await client.post("/v1/chat/completions", json=body(number, stream=False))
    if answer.status_code != 200:
        return "", answer.json()["error"]["code"]
    return answer.json()["choices"][0]["message"]["content"], answer.headers["x-anywire-agent"]


@pytest.mark.parametrize("config", ["dds", *["grpc", "http", "zeromq"] * SOAK], indirect=True)
async def test_killed_agent_loses_no_task_without_a_token(start: Any, config: Any) -> None:
    """One of three agents is killed under 50 streams and 20 whole answers."""
    settings = config(NO_MIGRATION, ttft=1000, itl=100, length=15)
    server = await start("serve", *settings)
    agents = {name: await start("agent", "--agent-id", name, "--slots", "64", *settings) for name in NAMES}
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE, limits=NO_LIMITS) as client:
        await until_agents(client, *NAMES)
        expected = [text for text, _ in await asyncio.gather(ask(client, 0), ask(client, 1))]
        assert all(expected)

        def streamed(number: int, began: asyncio.Event | None = None) -> asyncio.Task[tuple[str, str]]:
            return asyncio.create_task(ask_streamed(client, body(number % 2, stream=True), began))

        began = [asyncio.Event() for _ in range(30)]
        streams = [streamed(number, began[number]) for number in range(30)]
        await asyncio.gather(*(each.wait() for each in began))
        # These have no token yet when the agent dies: whole answers, and streams before their first token.
        wholes = [asyncio.create_task(ask(client, number % 2)) for number in range(20)]
        fresh = [streamed(number) for number in range(20)]
        await until_agents(client, *NAMES, in_flight=70)
        await agents["a1"].end(signal.SIGKILL)
        for number, (text, _) in enumerate(await asyncio.gather(*wholes)):
            assert text == expected[number % 2]
        outcomes = await asyncio.gather(*streams, *fresh)
        for number, (text, end) in enumerate(outcomes):
            whole = expected[number % 2]
            # Complete and by a living agent, or ended with the clear error after a true beginning.
            assert (text == whole and end in NAMES) or (end == "agent_lost" and whole.startswith(text) and text)
        assert {"a2", "a3", "agent_lost"} <= {end for _, end in outcomes[:30]}
        await until_agents(client, "a2", "a3")
        assert "a1" not in {agent for _, agent in await asyncio.gather(*(ask(client, 0) for _ in range(6)))}
        ended = (await client.get("/api/v1/stats")).json()["tasks"]["ended"]
        lost = sum(end == "agent_lost" for _, end in outcomes)
        assert ended == {"answered": 2 + 70 + 6 - lost, "agent_lost": lost}


async def test_restarted_orchestrator_finds_its_agents_and_their_slots_free(start: Any, config: Any) -> None:
    settings = config(ttft=60_000, length=3)
    first = await start("serve", *settings)
    names = ("b1", "b2")
    for name in names:
        await start("agent", "--agent-id", name, "--slots", "1", *settings)
    async with httpx.AsyncClient(base_url=first.url, timeout=PATIENCE) as client:
        before = await until_agents(client, *names)
        held = [asyncio.create_task(ask(client, number)) for number in range(2)]
        await until_agents(client, *names, in_flight=2)
        await first.end(signal.SIGKILL)
        assert all(isinstance(each, httpx.HTTPError) for each in await asyncio.gather(*held, return_exceptions=True))
    second = await start("serve", *settings)
    async with httpx.AsyncClient(base_url=second.url, timeout=PATIENCE) as client:
        after = await until_agents(client, *names)
        assert {agent["pid"] for agent in after} == {agent["pid"] for agent in before}

        async def placed() -> str:
            """Where the deadline finds the task: on an agent, so its only slot was free, or in the queue."""
            answer = await client.post(
                "/v1/chat/completions", json=body(0, stream=False), headers={"x-anywire-timeout": "3"}
            )
            assert answer.status_code == 504
            return str(answer.json()["error"]["message"])

        assert all("on agent" in where for where in await asyncio.gather(placed(), placed()))
