"""The whole way: HTTP in → orchestrator → transport → synthetic agent at no delay → HTTP out, on this machine.

Client, server and agent are a process each and share the cores. Every answer is checked to have come over the
transport it is counted for.
"""

import asyncio
import statistics
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from http_load import Result, load
from timing import Rounds, opened, per
from transport_stack import IN_FLIGHT, STREAM, server

SINGLE, MANY, STREAMS, READERS = 200, 1280, 100, 32


@pytest.fixture(scope="module")
def url(loop: asyncio.AbstractEventLoop, transport: str, options: dict[str, Any]) -> Iterator[str]:
    with opened(loop, server(transport, options)) as url:
        yield url


class Asked:
    """Requests to one server, and what came of those that were measured."""

    def __init__(self, url: str, transport: str) -> None:
        self._url, self._header = url, f"x-anywire-transport: {transport}\r\n"
        self.results: list[Result] = []

    async def ask(self, **settings: Any) -> None:
        self.results.append(await load(self._url, expect=self._header, **settings))

    def median_us(self) -> int:
        """Of a request, as its client sees it."""
        return round(statistics.median(time for result in self.results for time in result.times) * 1e6)


@pytest.fixture
def asked(url: str, transport: str) -> Asked:
    return Asked(url, transport)


@pytest.mark.benchmark(group="whole way: request, 1 client", timer=per(SINGLE))
def test_one_client(asked: Asked, rounds: Rounds, benchmark: BenchmarkFixture) -> None:
    rounds(lambda: asked.ask(clients=1, requests=SINGLE))
    benchmark.extra_info["p50_us"] = asked.median_us()


@pytest.mark.benchmark(group="whole way: requests, 64 clients", timer=per(MANY))
def test_64_clients(asked: Asked, rounds: Rounds, benchmark: BenchmarkFixture) -> None:
    rounds(lambda: asked.ask(clients=IN_FLIGHT, requests=MANY))
    benchmark.extra_info["p50_us"] = asked.median_us()


@pytest.mark.benchmark(group="whole way: tokens, 32 streams of 64", timer=per(STREAMS * STREAM))
def test_streams(asked: Asked, rounds: Rounds) -> None:
    """Each token is an event of its own."""
    rounds(lambda: asked.ask(clients=READERS, requests=STREAMS, stream=True, tokens=STREAM))
    assert {result.tokens for result in asked.results} == {STREAMS * STREAM}
