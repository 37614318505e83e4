"""What a request costs when engines fail: OpenAI's client with its retries, real agents, and a server that counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from anywire.builtin.fifo import Fifo
from anywire.scheduler import QueuedTask
from anywire_engine_openai import OpenAIEngine

from .fake_openai_server import FakeServer, saying
from .gateway_serving import MESSAGES, Served, joined, serving

FAILED = {"error": {"message": "out of memory", "type": "server_error"}}
ENDLESS = {"errors": 0}


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    fake = FakeServer()
    fake.models = {"data": [{"id": "m"}]}
    fake.handler = saying(500, FAILED)
    await fake.up()
    yield fake
    await fake.down()


@asynccontextmanager
async def fronting(server: FakeServer, agents: int, **pipeline: Any) -> AsyncIterator[Served]:
    """So many agents, whose engine `openai` passes on to the server."""
    engines = [
        OpenAIEngine(OpenAIEngine.Config(base_url=server.url, refresh_interval=0)) for _ in range(agents)
    ]  # fmt: skip
    async with serving(engines[0], pipeline=pipeline) as served, joined(served, engines):
        yield served


async def ask(client: openai.AsyncOpenAI, stream: bool = False) -> openai.APIStatusError:
    """The error that a request ends with."""
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
    return caught.value


@pytest.mark.parametrize(("agents", "attempts", "cost"), [(4, 3, 3), (2, 3, 2), (3, 2, 2), (2, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("stream", [True, False])
async def test_one_request_costs_at_most_its_attempts_also_through_a_client_that_retries(
    server: FakeServer, agents: int, attempts: int, cost: int, stream: bool
) -> None:
    async with (
        fronting(server, agents, max_attempts=attempts) as served,
        served.client().with_options(max_retries=2) as client,
    ):
        error = await ask(client, stream)
    assert (error.status_code, error.response.headers["x-should-retry"]) == (502, "false")
    assert error.response.headers["x-anywire-origin"] == "engine"
    assert len(server.requests) == cost


async def test_the_budget_pays_for_what_a_client_tries_again(server: FakeServer) -> None:
    """One agent alone: nobody else could be asked, and the client tries as often as the budget allows."""
    async with (
        fronting(server, 1, breaker=ENDLESS, retries={"share": 0, "floor": 1}) as served,
        served.client().with_options(max_retries=5) as client,
    ):
        error = await ask(client)
    assert error.response.headers["x-should-retry"] == "false"
    assert len(server.requests) == 2


async def test_a_task_that_ends_without_a_decision_after_several_attempts_is_not_to_be_tried_again(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler fails when the task is put back for its third attempt."""
    put_back = 0

    def fails_at_the_second(scheduler: Fifo, task: QueuedTask) -> None:
        nonlocal put_back
        put_back += 1
        if put_back == 2:
            raise RuntimeError("lost its place")
        scheduler.put(task)

    monkeypatch.setattr(Fifo, "put_back", fails_at_the_second)
    async with (
        fronting(server, 3, max_attempts=3) as served,
        served.client().with_options(max_retries=2) as client,
    ):
        error = await ask(client)
    headers = error.response.headers
    assert (error.code, headers["x-anywire-attempts"], headers["x-should-retry"]) == ("plugin_failed", "2", "false")
    assert len(server.requests) == 2


async def test_a_used_up_budget_is_told(server: FakeServer) -> None:
    async with fronting(server, 3, retries={"share": 0, "floor": 0}) as served:
        async with served.client().with_options(max_retries=2) as client:
            error = await ask(client)
        assert served.orchestrator.stats()["events"]["retries_denied"] == 1
    assert len(server.requests) == 1
    assert error.response.headers["x-should-retry"] == "false"
    assert "out of memory" in error.message
    assert "not sent again: the budget for retries of m is used up (pipeline.retries)" in error.message


@pytest.mark.parametrize(("agents", "status", "told"), [(3, 500, 502), (1, 500, 502), (3, 429, 429)])
async def test_retries_of_hundreds_of_clients_stay_within_share_and_floor(
    server: FakeServer, agents: int, status: int, told: int
) -> None:
    """All at once, each with retries of its own."""
    server.handler = saying(status, FAILED)
    clients, share, floor = 200, 0.1, 10
    retries = {"share": share, "floor": floor, "window": 1000, "base": 0.01}
    async with fronting(server, agents, breaker=ENDLESS, retries=retries, max_attempts=4) as served:
        async with served.client().with_options(max_retries=2) as client:
            found = await asyncio.gather(*[ask(client) for _ in range(clients)])
        asked = sum(served.orchestrator.stats()["tasks"]["ended"].values())
    assert {error.status_code for error in found} == {told}
    # What a client tries again is a task more, which has a share of its own.
    assert len(server.requests) <= (clients + floor) / (1 - share)
    assert asked <= len(server.requests)


async def test_a_burst_of_429_that_is_soon_over_is_no_matter(server: FakeServer) -> None:
    """The server asks for some milliseconds, and has room then."""
    busy = saying(429, FAILED, headers={"retry-after-ms": "20"})

    async def handler(request: Any) -> Any:
        return await (busy if len(server.requests) <= 10 else server.say_hello)(request)

    server.handler = handler
    async with fronting(server, 1, breaker=ENDLESS, max_attempts=12) as served, served.client() as client:
        asking = [client.chat.completions.create(model="m", messages=MESSAGES) for _ in range(5)]
        answers = await asyncio.gather(*asking)
        assert served.orchestrator.stats()["events"]["retries"] == 10
        assert served.orchestrator.stats()["events"].get("repeated", 0) == 0
    assert {answer.choices[0].message.content for answer in answers} == {"Hello world"}
    assert len(server.requests) == 15
