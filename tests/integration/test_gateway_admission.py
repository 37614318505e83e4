"""What stock clients do when the queue is full or their deadline is too short: they come back when there is room."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import aiohttp
import openai
import pytest
from openai.types.chat import ChatCompletion
from tests.integration.gateway_serving import MESSAGES, TIMEOUT, ScriptedEngine, serving
from tests.long_form import SOAK

from anywire.engine import Delta
from anywire.messages import TaskRequest
from anywire.offers import Offer
from anywire.pipeline.tasks.model_queue import LEAST

CHAT: Any = {"model": "m", "messages": MESSAGES}
CLIENTS = 200 if SOAK else 40
SLOTS, QUEUE = 4, 16
INTERVAL = 0.075
"""Seconds between two answers, where there are many clients."""


class Answers:
    """An engine that answers after ``seconds``, once it may. It offers the model ``stopped`` too, which is."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.may = seconds, asyncio.Event()
        self.engine = ScriptedEngine(self._script, (Offer("m"), Offer("stopped", state="stopped")))

    async def _script(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        await self.may.wait()
        await asyncio.sleep(self.seconds)
        yield Delta("x", finish_reason="stop")


class Requests(logging.Handler):
    """What the gateway's log tells of each request: which client's it was, when it arrived, and its status."""

    def __init__(self) -> None:
        super().__init__()
        self.of_client: dict[str, list[tuple[float, int]]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        told: dict[str, Any] = record.fields  # type: ignore[attr-defined]
        arrived = record.created - told["total_ms"] / 1000
        self.of_client.setdefault(told["request_id"], []).append((arrived, told["status"]))


@pytest.fixture
def requests(caplog: pytest.LogCaptureFixture) -> Iterator[Requests]:
    found, logger = Requests(), logging.getLogger("anywire.request_log")
    logger.addHandler(found)
    with caplog.at_level(logging.INFO, logger.name):
        yield found
    logger.removeHandler(found)


async def test_stock_clients_that_are_refused_come_back_evenly_and_are_all_answered(requests: Requests) -> None:
    """Clients with their default settings, which try three times, against a full queue: when those arrive a second time
    that were refused at first."""
    answers = Answers(SLOTS * INTERVAL)
    answers.may.set()
    async with serving(
        answers.engine, slots=SLOTS, scheduler={"max_queue_size": QUEUE}, timeout=3 * TIMEOUT, log_requests=True
    ) as served:
        clients = [
            openai.AsyncOpenAI(
                base_url=f"{served.url}/v1",
                api_key="none",
                timeout=2 * TIMEOUT,
                default_headers={"x-request-id": f"{number}"},
                http_client=openai.DefaultAsyncHttpxClient(verify=False, timeout=2 * TIMEOUT),
            )
            for number in range(CLIENTS)
        ]

        async def ask(client: openai.AsyncOpenAI) -> str | None:
            answer: ChatCompletion = await client.chat.completions.create(**CHAT)
            return answer.choices[0].message.content

        async with aiohttp.ClientSession(served.url) as http:
            full = SLOTS + QUEUE
            # The pace of the queue is known, and it is full.
            waiting: list[asyncio.Future[int]] = [asyncio.ensure_future(status(http)) for _ in range(full)]
            await served.observer.submitted(full)
            waiting += [asyncio.ensure_future(status(http)) for _ in range(await have_ended(waiting, LEAST))]
            asked = await asyncio.gather(*map(ask, clients))
            assert set(await asyncio.gather(*waiting)) == {200}
        assert asked == ["x"] * CLIENTS
        await asyncio.gather(*(client.close() for client in clients))
    returns = [tries[1][0] for tries in requests.of_client.values() if tries[0][1] == 429]
    assert len(returns) > CLIENTS // 2
    bins = Counter(int((each - min(returns)) / (10 * INTERVAL)) for each in returns)  # ten are expected in each
    assert max(bins.values()) <= 3 * 10, bins


async def have_ended(tasks: list[asyncio.Future[int]], number: int) -> int:
    """Wait until so many of the tasks have ended, and say how many have."""
    while (ended := sum(each.done() for each in tasks)) < number:
        await asyncio.wait([each for each in tasks if not each.done()], return_when=asyncio.FIRST_COMPLETED)
    return ended


async def status(http: aiohttp.ClientSession) -> int:
    async with http.post("/v1/chat/completions", json=CHAT) as answer:
        return answer.status


async def test_a_deadline_that_cannot_be_met_is_a_429_that_says_when() -> None:
    answers = Answers(0.1)
    async with serving(answers.engine, slots=1) as served, aiohttp.ClientSession(served.url) as http:
        answers.may.set()
        await asyncio.gather(*(status(http) for _ in range(LEAST + 2)))
        answers.may.clear()
        asked = [asyncio.ensure_future(status(http)) for _ in range(20)]
        await served.observer.submitted(LEAST + 2 + 20)
        async with http.post("/v1/chat/completions", json=CHAT, headers={"x-anywire-timeout": "0.2"}) as answer:
            told = await answer.json()
            assert answer.status == 429
            assert told["error"]["code"] == "deadline_too_short"
            assert "would wait some" in told["error"]["message"]
            assert 0 < int(answer.headers["retry-after-ms"]) < 60_000
            assert "x-should-retry" not in answer.headers
        async with http.get("/metrics") as answer:
            page = await answer.text()
        assert 'anywire_admission_refused_total{error="deadline_too_short"} 1.0' in page
        assert "anywire_wait_prediction_error_seconds_count" in page
        assert "anywire_wait_prediction_bias_seconds" in page
        answers.seconds = 0.0
        answers.may.set()
        assert set(await asyncio.gather(*asked)) == {200}


async def test_an_answer_that_is_too_long_is_not_worth_another_try() -> None:
    async with (
        serving(Answers(0.0).engine, pipeline={"max_tokens": 10}) as served,
        aiohttp.ClientSession(served.url) as http,
        http.post("/v1/chat/completions", json=CHAT | {"max_tokens": 11}) as answer,
    ):
        assert (answer.status, answer.headers["x-should-retry"]) == (400, "false")
        assert (await answer.json())["error"]["param"] == "max_tokens"


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"extra_headers": {"x-anywire-timeout": "0.1"}}, 504, "deadline_exceeded"),
        ({"model": "stopped"}, 409, "model_stopped"),
        ({"max_tokens": 11}, 400, "invalid_request"),
    ],
)
async def test_a_stock_client_asks_once_where_another_try_would_end_the_same_way(
    requests: Requests, asked: dict[str, Any], status: int, code: str
) -> None:
    async with (
        serving(Answers(0.0).engine, pipeline={"max_tokens": 10}, log_requests=True) as served,
        openai.AsyncOpenAI(
            base_url=f"{served.url}/v1", api_key="none", timeout=TIMEOUT, default_headers={"x-request-id": "mine"}
        ) as client,
    ):
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(**CHAT | asked)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert [told for _, told in requests.of_client["mine"]] == [status]


async def test_a_full_queue_that_nobody_will_make_shorter_is_a_503_and_a_stock_client_tries_again(
    requests: Requests,
) -> None:
    answers = Answers(0.0)
    async with (
        serving(answers.engine, slots=1, scheduler={"max_queue_size": 1}, log_requests=True) as served,
        aiohttp.ClientSession(served.url) as http,
        openai.AsyncOpenAI(
            base_url=f"{served.url}/v1", api_key="none", timeout=TIMEOUT, default_headers={"x-request-id": "mine"}
        ) as client,
    ):
        before = [asyncio.ensure_future(status(http)) for _ in range(2)]
        await served.observer.submitted(2)
        async for _ in served.orchestrator.command(["agent-1"], "drain", {}, deadline=TIMEOUT):
            pass
        await served.orchestrator.agents_until(lambda agents: agents[0].status.state == "draining")
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(**CHAT)
        assert (caught.value.status_code, caught.value.code) == (503, "no_agent")
        assert "x-should-retry" not in caught.value.response.headers
        assert caught.value.response.headers["retry-after"] == "1"
        answers.may.set()
        assert await before[0] == 200
        assert [told for _, told in requests.of_client["mine"]] == [503] * 3
        for each in before:
            each.cancel()
