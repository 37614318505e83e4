"""Asking a running server over HTTP, as any client of its OpenAI API would."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from anywire.errors import AnywireError

if TYPE_CHECKING:
    from anywire.cli.asked_server import Server
    from anywire.cli.question import Question

_MARK = ": anywire "
OVER_TRANSPORT = ", or ask over its transport: -t NAME"
"""What else commands with ``--transport`` can do when no server answers."""
TIMEOUT = 5.0
"""Seconds for what a server answers by itself; an engine may take as long as the server's deadline allows."""


class ServerError(AnywireError):
    """The server is not there, or answered with an error."""

    code = "server_error"


@dataclass
class Answer:
    """One streamed answer. Times are seconds as seen here; ``tokens`` is what the server counted, else the pieces."""

    agent: str = ""
    transport: str = ""
    first: float = 0.0
    total: float = 0.0
    pieces: int = 0
    tokens: int = 0
    finish_reason: str = ""
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        """Of the tokens after the first; 0.0 when there was no time between."""
        streaming = self.total - self.first
        return (self.tokens - 1) / streaming if streaming > 0 and self.tokens > 1 else 0.0


@asynccontextmanager
async def client(server: Server, otherwise: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """A client of ``server``; what goes wrong with it is raised as `ServerError`, and `ConfigError` when a file with a
    certificate does not serve. ``otherwise`` is what else can be done when no server is there, as the end of a
    sentence."""
    url = server.url
    try:
        async with server.client(TIMEOUT) as one:
            yield one
    except httpx.ConnectError as error:
        if url.startswith("https"):
            from anywire.listening.certificates import fault_of

            if fault := fault_of(error):
                raise ServerError(f"the server at {url} {fault}") from error
        raise ServerError(
            f"no server answers at {url}: start one with `anywire up`, or name another with --url{otherwise}"
        ) from error
    except httpx.TimeoutException as error:
        raise ServerError(f"what listens at {url} does not answer: is it an Anywire server?") from error
    except (httpx.ReadError, httpx.RemoteProtocolError) as error:
        raise ServerError(f"the server at {url} hung up: {_why_hung_up(server)}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerError(f"the server at {url}: {error or type(error).__name__}") from error


def _why_hung_up(server: Server) -> str:
    if server.url.startswith("http:"):
        return "it has ended, or its address begins with https"
    if server.url.startswith("https:") and server.own_certificate is None:
        return "it has ended, or asks for a certificate of the client (--cert FILE)"
    return "it has ended, or does not take this client"


async def get(one: httpx.AsyncClient, path: str) -> Any:
    """The JSON at ``path``."""
    return _json_of(await one.get(path))


async def post(one: httpx.AsyncClient, path: str, body: object) -> Any:
    """The JSON that a POST of ``body`` is answered with."""
    return _json_of(await one.post(path, json=body))


def _json_of(answer: httpx.Response) -> Any:
    if answer.is_error:
        raise server_error(answer.status_code, answer.text)
    try:
        return answer.json()
    except ValueError as error:
        raise ServerError(f"{answer.url} gave no JSON: is this an Anywire server?") from error


async def command_results(answer: httpx.Response) -> AsyncGenerator[Any, None]:
    """The results of a command that come as events of ``answer``. Raises `ServerError` for the error that ends it."""
    kind = ""
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data" and kind == "error":
            raise server_error(0, value)
        elif name == "data" and kind == "end":
            return
        elif name == "data":
            try:
                result = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise no_answer(answer.url) from error
            yield result
        elif not line:
            kind = ""
    raise ServerError("the command broke off: the server closed the connection")


async def first_model(one: httpx.AsyncClient) -> str:
    found = await get(one, "/v1/models")
    try:
        models = found["data"]
        if models:
            return str(models[0]["id"])
    except (KeyError, TypeError, IndexError) as error:
        raise no_answer(one.base_url) from error
    raise ServerError("the server has no model: no agent has joined yet (see `anywire agents`)")


def body_of(model: str, question: Question) -> dict[str, Any]:
    """The request of a streamed chat answer."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": question.prompt}],
        "stream": True,
    }
    if question.max_tokens is not None:
        body["max_tokens"] = question.max_tokens
    return body


async def ask(one: httpx.AsyncClient, model: str, question: Question, show: Callable[[str], None]) -> Answer:
    """Stream one chat answer; ``show`` gets each piece of text as it comes."""
    body = body_of(model, question) | {"stream_options": {"include_usage": True}}
    headers = {"x-anywire-stages": "true"}
    if question.priority:
        headers["x-anywire-priority"] = str(question.priority)
    if question.timeout:
        headers["x-anywire-timeout"] = f"{question.timeout:g}"
    patient = httpx.Timeout(TIMEOUT, read=None)
    answer, ended, began = Answer(), False, time.perf_counter()
    async with one.stream("POST", "/v1/chat/completions", json=body, headers=headers, timeout=patient) as response:
        if not response.is_success:
            raise server_error(response.status_code, (await response.aread()).decode(errors="replace"))
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            raise no_answer(response.url)
        answer.agent = response.headers.get("x-anywire-agent", "")
        answer.transport = response.headers.get("x-anywire-transport", "")
        async for line in response.aiter_lines():
            if line.rstrip() == "data: [DONE]":
                ended = True
                break
            try:
                text = _read_line(line, answer)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise no_answer(response.url) from error
            if text:
                answer.total = time.perf_counter() - began
                answer.first = answer.first or answer.total
                answer.pieces += 1
                show(text)
    if not ended:
        raise ServerError("the answer broke off: the server closed the connection")
    answer.tokens = answer.tokens or answer.pieces
    return answer


def _read_line(line: str, answer: Answer) -> str:
    """The text that a line of an event stream brings; what else it says is noted in ``answer``. Raises `ServerError`
    for an error that the server tells, and what reading something else raises."""
    if line.startswith(_MARK):
        answer.stages = json.loads(line.removeprefix(_MARK)).get("stages", {})
    if not line.startswith("data:"):
        return ""
    data = line.removeprefix("data:").strip()
    event = json.loads(data)
    if "error" in event:
        raise server_error(0, data)
    if event.get("usage"):
        answer.tokens = int(event["usage"].get("completion_tokens", 0))
    texts = []
    for choice in event.get("choices", ()):
        answer.finish_reason = str(choice.get("finish_reason") or answer.finish_reason)
        texts.append((choice.get("delta") or {}).get("content") or "")
    return "".join(texts)


def no_answer(url: httpx.URL | str) -> ServerError:
    """The error for a server that is another one."""
    return ServerError(f"what listens at {url} gave no answer of an OpenAI API: is this an Anywire server?")


def server_error(status: int, text: str) -> ServerError:
    """The error that an answer's body says; ``status`` 0 where there is none of its own."""
    try:
        told = json.loads(text)["error"]
        message, code = str(told["message"]), told.get("code") or told.get("type") or ""
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # A page for people, or whatever else another server says.
        message, code = "this is no answer of an OpenAI API: is this an Anywire server?", ""
    if status == 401:
        message += "; set ANYWIRE_API_KEY to a key of this server"
    kind = ", ".join(str(part) for part in (status or "", code) if part)
    return ServerError(f"{message} ({kind})" if kind else message)
