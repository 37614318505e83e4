"""A server with OpenAI's API in the place of a model: its answers are known, and it fails as it is told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from anywire_experiment.faults.catalogue import CUT_AFTER, SLOW

MODEL = "stand-in"
REFUSED = "refused"
"""The fault of a server that listens no more."""
GARBAGE = b'data: {"choices": [{"delta": {"content": "garb\x00\xff\xfe\n\ngarbage\n\ndata: <html>502</html>\n\n'
"""Of a 200 with an event stream: a broken event, text without a field, and HTML."""

Handler = Callable[[web.Request, "StandIn"], Awaitable[web.StreamResponse]]


class StandIn:
    """Answers streams of chat with one token every ``pace`` seconds: ``NAME-0 NAME-1 …``, where NAME is the last
    word of the user's last message, ``max_tokens`` of them. A last message of the assistant is continued, and
    ``/tokenize`` counts its tokens, as llama.cpp's server does. Use `start`, and `close` at the end; everything
    happens on the event loop of whoever starts it."""

    def __init__(self, pace: float) -> None:
        self.pace, self.port = pace, 0
        self.fails_as = ""
        """The name of a fault (`FAILS`), empty while it answers as it should."""
        self.met = 0
        """Requests that met a fault, those refused at the port not counted."""
        self.first_met_ns = 0
        """CLOCK_MONOTONIC ns when the first of them did: at the end of what it was given rightly."""
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        """Listen, on the same port as before if it did."""
        app = web.Application()
        app.router.add_get("/v1/models", self._list)
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_post("/tokenize", self._tokenize)
        # Connections that hang are part of what it is for.
        runner = self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = runner.addresses[0][1]

    async def close(self) -> None:
        """Refuse connections from now on, and end those there are. Safe to call twice."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def fail(self, how: str) -> None:
        """Fail as a fault of that name (`FAILS`, `REFUSED`) from now on."""
        if how == REFUSED:
            await self.close()
        else:
            self.fails_as = how

    async def heal(self) -> None:
        """Answer as it should again."""
        self.fails_as = ""
        if self._runner is None:
            await self.start()

    def note_fault(self) -> None:
        self.met += 1
        self.first_met_ns = self.first_met_ns or time.monotonic_ns()

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def _tokenize(self, request: web.Request) -> web.Response:
        words = (await request.json())["content"].split()
        return web.json_response({"tokens": list(range(len(words)))})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        return await FAILS.get(self.fails_as, _as_it_should)(request, self)


async def _as_it_should(request: web.Request, server: StandIn) -> web.StreamResponse:
    body = await request.json()
    if not body.get("stream"):
        return _whole(body)
    words, ending = await _asked(request)
    response = await _event_stream(request)
    await _say(response, words, server.pace)
    await response.write(ending)
    await response.write_eof()
    return response


async def _cut(request: web.Request, server: StandIn) -> web.StreamResponse:
    words, _ = await _asked(request)
    response = await _event_stream(request)
    await _say(response, words[:CUT_AFTER], server.pace)
    server.note_fault()
    if request.transport is not None:
        request.transport.abort()
    return response


async def _silent(request: web.Request, server: StandIn) -> web.StreamResponse:
    words, _ = await _asked(request)
    response = await _event_stream(request)
    await _say(response, words[:CUT_AFTER], server.pace)
    server.note_fault()
    # Until its client has gone: then it is cancelled.
    await asyncio.Event().wait()
    return response


async def _too_many(request: web.Request, server: StandIn) -> web.StreamResponse:
    server.note_fault()
    return _error(429, "rate_limit_exceeded", {"Retry-After": "1"})


async def _broken(request: web.Request, server: StandIn) -> web.StreamResponse:
    server.note_fault()
    return _error(500, "internal_error")


async def _garbage(request: web.Request, server: StandIn) -> web.StreamResponse:
    server.note_fault()
    response = await _event_stream(request)
    await response.write(GARBAGE)
    await response.write_eof()
    return response


async def _empty(request: web.Request, server: StandIn) -> web.StreamResponse:
    server.note_fault()
    _, ending = await _asked(request, empty=True)
    response = await _event_stream(request)
    await response.write(ending)
    await response.write_eof()
    return response


async def _slow(request: web.Request, server: StandIn) -> web.StreamResponse:
    server.note_fault()
    await asyncio.sleep(SLOW)
    return await _as_it_should(request, server)


FAILS: dict[str, Handler] = {
    "cut-after-k-tokens": _cut,
    "cut-without-resuming": _cut,
    "silence": _silent,
    "429-burst": _too_many,
    "500-burst": _broken,
    "garbage-sse": _garbage,
    "empty-200": _empty,
    "slow-first-token": _slow,
}


async def _asked(request: web.Request, *, empty: bool = False) -> tuple[list[bytes], bytes]:
    """The events of the words of the answer, and those that end it."""
    said = [] if empty else _words(await request.json())
    words = [_event({"content": word}) for word in said]
    usage = _usage(len(words))
    ending = _event({}, "stop") + _data({"object": "chat.completion.chunk", "choices": [], "usage": usage})
    return words, ending + b"data: [DONE]\n\n"


def _whole(body: dict[str, Any]) -> web.Response:
    words = _words(body)
    message = {"role": "assistant", "content": "".join(words)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return web.json_response({"object": "chat.completion", "choices": [choice], "usage": _usage(len(words))})


def _words(body: dict[str, Any]) -> list[str]:
    """The answer to a request, token by token, or what of it is still to say."""
    *before, last = [each["content"].split() for each in body["messages"]]
    said = len(last) if body["messages"][-1]["role"] == "assistant" else 0
    name = (before[-1] if said else last)[-1]
    return [f"{name}-{number} " for number in range(said, said + int(body.get("max_tokens") or 20))]


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1 + tokens}


async def _say(response: web.StreamResponse, words: list[bytes], pace: float) -> None:
    for word in words:
        await response.write(word)
        await asyncio.sleep(pace)


async def _event_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    return response


def _event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _data({"id": "c", "object": "chat.completion.chunk", "model": MODEL, "choices": [choice]})


def _data(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content)}\n\n".encode()


def _error(status: int, code: str, headers: dict[str, str] | None = None) -> web.Response:
    error = {"error": {"message": f"{code}, as it was told to say", "type": code, "code": code}}
    return web.json_response(error, status=status, headers=headers)
