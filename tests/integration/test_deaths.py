"""Processes that die: agents and orchestrators really killed, under load, with migration off. How agents are lost over
each wire is seen in `tests.integration.test_migration`."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import httpx
import pytest
from tests.integration.anywire_processes import (
    FOR_EVER,
    NO_LIMITS,
    ask_streamed,
    body,
    config,
    start,
    until_agents,
)
from tests.long_form import SOAK
from tests.patience import PATIENCE

__all__ = ["config", "start"]  # fixtures

NO_MIGRATION = {"resume": False}
PATIENT = ("--set", "lease.timeout=3")
"""For a machine that is busy: nobody is taken for lost who lives."""


async def ask(client: httpx.AsyncClient, number: int, prefer: str = "") -> tuple[str, str]:
    """A whole answer: its text and the agent, or the error's code."""
    headers = {"x-anywire-prefer": prefer} if prefer else {}
    answer = await client.post("/v1/chat/completions", json=body(number, stream=False), headers=headers)
    if answer.status_code != 200:
        return "", answer.json()["error"]["code"]
    return answer.json()["choices"][0]["message"]["content"], answer.headers["x-anywire-agent"]


@pytest.mark.parametrize("config", ["dds", *["grpc", "http", "nats", "zeromq"] * SOAK], indirect=True)
async def test_killed_agents_lose_no_task_without_a_token(start: Any, config: Any) -> None:
    """Two of three agents are killed with all that they hold: one has shown a token of each stream, the other none."""
    settings = [*config(NO_MIGRATION | {"next_token_timeout": 0}, length=15), *PATIENT]
    server = await start("serve", *settings)
    slots = ("--slots", "64", *settings)
    await start("agent", "--agent-id", "good", *slots)
    begins = await start("agent", "--agent-id", "begins", *slots, "--set", f"engine.itl={FOR_EVER}")
    silent = await start("agent", "--agent-id", "silent", *slots, "--set", f"engine.ttft={FOR_EVER}")
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE, limits=NO_LIMITS) as client:
        await until_agents(client, "good", "begins", "silent")
        expected = [text for text, _ in await asyncio.gather(ask(client, 0, "good"), ask(client, 1, "good"))]
        assert all(expected)

        def streamed(number: int, agent: str, began: asyncio.Event | None = None) -> asyncio.Task[tuple[str, str]]:
            return asyncio.create_task(ask_streamed(client, body(number % 2, stream=True), began, prefer=agent))

        began = [asyncio.Event() for _ in range(10)]
        broken = [streamed(number, "begins", began[number]) for number in range(10)]
        await asyncio.gather(*(each.wait() for each in began))
        wholes = [
            asyncio.create_task(ask(client, number % 2, ("begins", "silent")[number % 3 > 0])) for number in range(10)
        ]
        fresh = [streamed(number, "silent") for number in range(10)]
        await until_agents(client, "good", "begins", "silent", in_flight=30)
        await asyncio.gather(begins.end(signal.SIGKILL), silent.end(signal.SIGKILL))
        for number, outcome in enumerate(await asyncio.gather(*wholes)):
            assert outcome == (expected[number % 2], "good")
        for number, (text, _) in enumerate(await asyncio.gather(*fresh)):
            assert text == expected[number % 2]
        for number, (text, end) in enumerate(await asyncio.gather(*broken)):
            # Ended with the clear error after a true beginning.
            assert end == "agent_lost"
            assert text
            assert expected[number % 2].startswith(text)
        await until_agents(client, "good")
        assert {agent for _, agent in await asyncio.gather(*(ask(client, 0) for _ in range(6)))} == {"good"}
        ended = (await client.get("/api/v1/stats")).json()["tasks"]["ended"]
        assert ended == {"answered": 2 + 20 + 6, "agent_lost": 10}


async def test_restarted_orchestrator_finds_its_agents_and_their_slots_free(start: Any, config: Any) -> None:
    settings = [*config(ttft=FOR_EVER, length=3), *PATIENT]
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
