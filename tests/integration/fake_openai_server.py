"""A server with OpenAI's API on loopback whose answers a test sets, well behaved or not, and the engine asking it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from anywire.engine import Delta
from anywire.messages import Kind, TaskRequest
from anywire_engine_openai import OpenAIEngine

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeServer:
    """A server whose answers a test sets; ``requests`` are the bodies it got. ``looked`` is set when its models were
    asked for, ``gone`` when a client left."""

    def __init__(self) -> None:
        self.models: Any = {"object": "list", "data": [{"id": "m1"}, {"id": "m2"}]}
        self.models_status = 200
        self.handler: Handler = self.say_hello
        self.requests: list[dict[str, Any]] = []
        self.tokenized: list[dict[str, Any]] | None = None
        """What it was asked to tokenize: a token a word. None: it cannot."""
        self.headers: list[Any] = []
        self.paths: list[str] = []
        self.looked, self.begun = asyncio.Event(), asyncio.Event()
        self.gone = asyncio.Event()
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def up(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/models", self._list)
        app.router.add_post("/v1/{kind:.*}", self._answer)
        app.router.add_post("/tokenize", self._tokenize)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def down(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _list(self, request: web.Request) -> web.Response:
        self.headers.append(request.headers)
        self.looked.set()
        return web.json_response(self.models, status=self.models_status)

    async def _tokenize(self, request: web.Request) -> web.Response:
        if self.tokenized is None:
            raise web.HTTPNotFound
        asked = await request.json()
        self.tokenized.append(asked)
        return web.json_response({"tokens": [*range(len(asked["prompt"].split()))]})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        self.headers.append(request.headers)
        self.paths.append(request.path)
        return await self.handler(request)

    async def say_hello(self, request: web.Request) -> web.StreamResponse:
        if not self.requests[-1].get("stream"):
            message = {"role": "assistant", "content": "Hello world"}
            return web.json_response(
                {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": USAGE}
            )
        return await stream(request, *HELLO)

    async def wait_for_ever(self, request: web.Request) -> web.StreamResponse:
        self.begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.gone.set()
            raise
        raise AssertionError


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def event(content: Any) -> bytes:
    return b"data: " + (content if isinstance(content, bytes) else json.dumps(content).encode()) + b"\n\n"


def step(text: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    delta: dict[str, Any] = {} if text is None else {"content": text}
    return event({"id": "c", "model": "m1", "choices": [{"index": 0, "delta": delta | more, "finish_reason": finish}]})


DONE = event(b"[DONE]")
HELLO = (
    step(role="assistant"),
    step("Hello"),
    step(" wörld"),
    step(finish="stop"),
    event({"choices": [], "usage": USAGE}),
    DONE,
)


async def stream(request: web.Request, *pieces: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    await response.write_eof()
    return response


def answering(*pieces: bytes) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await stream(request, *pieces)

    return handler


def saying(
    status: int, body: Any, content_type: str = "application/json", headers: dict[str, str] | None = None
) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, content_type=content_type, headers=headers)

    return handler


def request(stream: bool = True, kind: Kind = "chat", model: str = "m1", trace: str = "", **body: Any) -> TaskRequest:
    content: dict[str, Any] = {"model": model}
    if kind == "chat":
        content["messages"] = [{"role": "user", "content": "hi"}]
    else:
        content["prompt" if kind == "completion" else "input"] = "hi"
    return TaskRequest("hub", "t", 1, kind, model, json.dumps(content | body), stream=stream, trace=trace)


async def collect(engine: OpenAIEngine, task: TaskRequest) -> list[Delta]:
    """The deltas of an answer, tokens that came together one by one."""
    given = [delta async for delta in engine.run(task) if isinstance(delta, Delta)]
    return [delta for each in given for delta in [Delta(text) for text in each.parts] or [each]]


class Watched(OpenAIEngine):
    """Lets a test wait for a status."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.moved = asyncio.Event()

    async def until(self, state: str, models: tuple[str, ...] = ("m1", "m2")) -> None:
        while (self.status().state, self.status().models) != (state, models):
            self.moved.clear()
            await self.moved.wait()


@asynccontextmanager
async def engine_for(url: str, **options: Any) -> AsyncIterator[Watched]:
    engine = Watched(OpenAIEngine.Config(base_url=url, **options))
    try:
        await engine.start(engine.moved.set)
        yield engine
    finally:
        await engine.close()


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    fake = FakeServer()
    await fake.up()
    yield fake
    await fake.down()


@pytest.fixture
async def engine(server: FakeServer) -> AsyncIterator[Watched]:
    async with engine_for(server.url, refresh_interval=0) as started:
        yield started
