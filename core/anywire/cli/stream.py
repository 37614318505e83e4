"""Asking a running server over HTTP, as any client of its OpenAI API would."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from anywire.errors import AnywireError

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
async def client(url: str, otherwise: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """A client of the server at ``url``; what goes wrong with it is raised as `ServerError`. ``otherwise`` is what else
    can be done when no server is there, as the end of a sentence."""
    try:
        host = httpx.URL(url).host
        local = host in ("localhost", "::1") or host.startswith("127.")
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT, trust_env=not local) as one:
            yield one
    except httpx.ConnectError as error:
        raise ServerError(
            f"no server answers at {url}: start one with `anywire up`, or name another with --url{otherwise}"
        ) from error
    except httpx.TimeoutException as error:
        raise ServerError(f"what listens at {url} does not answer: is it an Anywire server?") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerError(f"the server at {url}: {error or type(error).__name__}") from error


async def get(one: httpx.AsyncClient, path: str) -> Any:
    """The JSON at ``path``."""
    answer = await one.get(path)
    if answer.is_error:
        raise server_error(answer.status_code, answer.text)
    try:
        return answer.json()
    except ValueError as error:
        raise ServerError(f"{answer.url} gave no JSON: is this an Anywire server?") from error


async def first_model(one: httpx.AsyncClient) -> str:
    models = (await get(one, "/v1/models")).get("data") or []
    if not models:
        raise ServerError("the server has no model: no agent has joined yet (see `anywire agents`)")
    return str(models[0]["id"])


async def ask(
    one: httpx.AsyncClient, model: str, prompt: str, max_tokens: int | None, show: Callable[[str], None]
) -> Answer:
    """Stream one chat answer; ``show`` gets each piece of text as it comes."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    patient = httpx.Timeout(TIMEOUT, read=None)
    answer, ended, began = Answer(), False, time.perf_counter()
    async with one.stream("POST", "/v1/chat/completions", json=body, timeout=patient) as response:
        if response.is_error:
            raise server_error(response.status_code, (await response.aread()).decode(errors="replace"))
        answer.agent = response.headers.get("x-anywire-agent", "")
        answer.transport = response.headers.get("x-anywire-transport", "")
        async for line in response.aiter_lines():
            if line.startswith(_MARK):
                answer.stages = json.loads(line.removeprefix(_MARK)).get("stages", {})
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                ended = True
                break
            event = json.loads(data)
            if "error" in event:
                raise server_error(0, data)
            if event.get("usage"):
                answer.tokens = int(event["usage"].get("completion_tokens", 0))
            for choice in event.get("choices", ()):
                answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
                text = (choice.get("delta") or {}).get("content")
                if text:
                    answer.total = time.perf_counter() - began
                    answer.first = answer.first or answer.total
                    answer.pieces += 1
                    show(text)
    if not ended:
        raise ServerError("the answer broke off: the server closed the connection")
    answer.tokens = answer.tokens or answer.pieces
    return answer


def server_error(status: int, text: str) -> ServerError:
    """The error that an answer's body says; ``status`` 0 where there is none of its own."""
    try:
        told = json.loads(text)["error"]
        message, code = str(told["message"]), told.get("code") or told.get("type") or ""
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code = text.strip()[:500] or "no explanation", ""
    kind = ", ".join(str(part) for part in (status or "", code) if part)
    return ServerError(f"{message} ({kind})" if kind else message)
