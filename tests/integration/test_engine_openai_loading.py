"""The engine ``openai`` and a server that is there but still loads its model."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from aiohttp import web

from anywire.engine import Delta, EngineProgress
from anywire.errors import EngineFailed
from anywire_engine_openai import loading, upstream
from anywire_engine_openai.loading import LoadingPauses, is_loading

from .fake_openai_server import FakeServer, Handler, Watched, collect, engine, engine_for, request, saying, server

__all__ = ["engine", "server"]  # fixtures

pytestmark = pytest.mark.timeout(30)

LLAMA = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
HUGGING_FACE = {"error": "Model gpt2 is currently loading", "estimated_time": 20.0}
OTHERS: list[Any] = [
    {"error": {"message": "The model is being loaded, try again", "type": "server_error"}},
    {"detail": "Server is warming up"},
]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "FIRST_PAUSE", 0.01)


def loading_times(server: FakeServer, times: int, said: Any = LLAMA, headers: dict[str, str] | None = None) -> Handler:
    """Says so many times that it loads, and then answers."""
    left = times

    async def handler(asked: web.Request) -> web.StreamResponse:
        nonlocal left
        left -= 1
        if left < 0:
            return await server.say_hello(asked)
        return await saying(503, said, headers=headers)(asked)

    return handler


@pytest.mark.parametrize("said", [LLAMA, HUGGING_FACE, *OTHERS])
@pytest.mark.parametrize("options", [{}, {"always_stream": True}], ids=["", "always_stream"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_server_that_loads_is_asked_again_and_that_is_told(
    server: FakeServer, said: Any, options: dict[str, Any], stream: bool
) -> None:
    server.handler = loading_times(server, 3, said)
    async with engine_for(server.url, refresh_interval=0, **options) as engine:
        steps = [step async for step in engine.run(request(stream=stream))]
    told = [each for each in steps if isinstance(each, EngineProgress)]
    assert told == [EngineProgress("loading", "m1")] * 3 + [EngineProgress("running")]
    assert steps[: len(told)] == told
    text = "".join(each.text for each in steps if isinstance(each, Delta))
    assert text == ("Hello wörld" if stream or options else "Hello world")
    assert len(server.requests) == 4
    assert not any(each.attempts_used for each in steps if isinstance(each, Delta))


@pytest.mark.parametrize(
    "said",
    [
        {"error": {"message": "Model is overloaded", "type": "overloaded"}},
        {"error": {"message": "Error loading model: no such file", "type": "server_error"}},
        {"error": {"message": "the model failed while loading", "type": "server_error"}},
        {"error": {"message": "The engine is dead", "type": "server_error"}},
        "",
    ],
)
async def test_another_503_is_passed_on(server: FakeServer, engine: Watched, said: Any) -> None:
    server.handler = saying(503, said)
    with pytest.raises(EngineFailed, match="status 503"):
        await collect(engine, request())
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [500, 429])
async def test_loading_is_said_with_503_alone(server: FakeServer, engine: Watched, status: int) -> None:
    server.handler = saying(status, LLAMA)
    with pytest.raises(EngineFailed, match="Loading model"):
        await collect(engine, request())
    assert len(server.requests) == 1


async def test_with_no_time_for_it_the_first_answer_counts(server: FakeServer) -> None:
    server.handler = saying(503, LLAMA)
    async with engine_for(server.url, refresh_interval=0, loading_timeout=0) as engine:
        with pytest.raises(EngineFailed, match="Loading model"):
            await collect(engine, request())
    assert len(server.requests) == 1


async def test_once_its_time_is_over_the_last_answer_counts(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting and the deadline are what bounds it."""
    bounds: list[tuple[float, int]] = []

    class Scripted(LoadingPauses):
        def __init__(self, timeout: float, time_left_ms: int) -> None:
            bounds.append((timeout, time_left_ms))
            self._left = [0.01, 0.01, 0.0]

        def next(self, asked: float) -> float:
            return self._left.pop(0)

    monkeypatch.setattr(upstream, "LoadingPauses", Scripted)
    server.handler = saying(503, LLAMA)
    task = msgspec.structs.replace(request(), time_left_ms=200)
    async with engine_for(server.url, refresh_interval=0, loading_timeout=60) as engine:
        with pytest.raises(EngineFailed, match="Loading model") as failure:
            await collect(engine, task)
    assert failure.value.status == 503
    assert (len(server.requests), bounds) == (3, [(60, 200)])


async def test_pauses_grow_and_are_at_least_what_the_server_asks_for() -> None:
    pauses = LoadingPauses(1000, 0)
    assert pauses.next(30) == 30
    grown = [pauses.next(0) for _ in range(20)]
    assert all(each <= loading.LONGEST_PAUSE for each in grown)
    assert grown[-1] >= loading.LONGEST_PAUSE / 2


@pytest.mark.parametrize(("timeout", "time_left_ms", "most"), [(90, 0, 90), (90, 50_000, 50), (50, 90_000, 50)])
async def test_pauses_end_with_their_time_and_with_the_deadline(timeout: float, time_left_ms: int, most: float) -> None:
    assert most / 2 < LoadingPauses(timeout, time_left_ms).next(1000) <= most
    assert LoadingPauses(0, time_left_ms).next(1000) == 0


async def test_a_task_that_is_cancelled_meanwhile_asks_no_more(server: FakeServer, engine: Watched) -> None:
    server.handler = saying(503, LLAMA)
    answer = engine.run(request())
    assert await anext(answer) == EngineProgress("loading", "m1")
    waits = asyncio.ensure_future(anext(answer))
    await asyncio.sleep(0)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    assert len(server.requests) <= 2


async def test_an_engine_whose_server_loads_is_starting_however_long_it_takes(server: FakeServer) -> None:
    server.models, models = LLAMA, server.models
    server.models_status = 503
    async with engine_for(server.url, startup_timeout=0.01) as engine:
        for _ in range(3):
            server.looked.clear()
            await server.looked.wait()
        assert engine.status().state == "starting"
        server.models, server.models_status = models, 200
        await engine.until("ready")


async def test_a_server_that_loads_again_lets_the_engine_start_again(server: FakeServer, engine: Watched) -> None:
    """Its agent gets no further task meanwhile, and its models are not gone."""
    server.models, models = LLAMA, server.models
    server.models_status = 503
    server.handler = loading_times(server, 1)
    assert (await collect(engine, request()))[-1].usage
    await engine.until("starting")
    assert {offer.state for offer in engine.status().offers} == {"starting"}
    server.models, server.models_status = models, 200
    await engine.until("ready")


@pytest.mark.parametrize("message", ["LOADING MODEL", "the model is still loading", "Warming up", "being loaded"])
def test_what_servers_say_while_they_load(message: str) -> None:
    assert is_loading(503, message)
    assert not is_loading(500, message)
