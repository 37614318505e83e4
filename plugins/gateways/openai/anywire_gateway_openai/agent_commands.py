"""Commands to agents over HTTP: arguments as the body, results as they come."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web

from anywire.context import Context
from anywire.errors import InvalidRequest
from anywire.messages import MAX_COMMAND_BYTES
from anywire_gateway_openai.body import read_body
from anywire_gateway_openai.caller import Callers
from anywire_gateway_openai.errors import HttpError, as_anywire, error_json
from anywire_gateway_openai.openapi.form import Form, Query, described
from anywire_gateway_openai.sse import sse_event
from anywire_gateway_openai.wire import EVENT_STREAM, EventStreamWriter, WrittenResponse

DEADLINE = 60.0
"""Seconds that a command may take where the request does not say."""
JSON_LINES = "application/x-ndjson"
COMMENT = b":\n\n"

_read = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode
_FORM = Form(
    takes=dict[str, Any],
    may_be_empty=True,
    events=Any,
    lines=Any,
    query={"deadline": Query("Seconds that the command may take, 60 without it; 0: any time.", {"type": "number"})},
    is_answer=True,
)


class AgentCommandHandler:
    """``body_timeout`` and ``write_timeout`` are the gateway's, in seconds; ``heartbeat``: seconds without a result
    after which a stream of events gets a comment."""

    def __init__(
        self, context: Context, callers: Callers, *, body_timeout: float, write_timeout: float, heartbeat: float
    ) -> None:
        self._context, self._callers = context, callers
        self._body_timeout, self._write_timeout, self._heartbeat = body_timeout, write_timeout, heartbeat

    @described(_FORM)
    async def command(self, request: web.BaseRequest, agent_id: str, name: str) -> web.StreamResponse:
        """Sends an agent a command; the body has its arguments. Each result is a line of JSON, or an event where the
        client accepts `text/event-stream`. `?deadline=` gives the seconds that it may take (60; 0: any time).

        What fails before the first result is answered with a status of its own, what fails later at the end of the
        stream: a line or an event ``error``.
        """
        body = await read_body(request, MAX_COMMAND_BYTES, self._body_timeout, any_type=True)
        caller = self._callers.still(request)
        arguments, deadline = _arguments(body), _deadline(request.query.get("deadline", ""))
        if all(view.agent_id != agent_id for view in self._context.agents()):
            raise HttpError(404, "agent_not_found", f"there is no agent {agent_id[:128]!r}; GET /v1/agents lists them")
        results = self._context.command((agent_id,), name, arguments, deadline=deadline, caller=caller)
        async with aclosing(results):
            return await self._stream(request, results)

    async def _stream(self, request: web.BaseRequest, results: AsyncGenerator[Any, None]) -> web.StreamResponse:
        as_events = "text/event-stream" in request.headers.get("Accept", "")
        content_type = EVENT_STREAM if as_events else JSON_LINES
        writer: EventStreamWriter | None = None
        waiting: asyncio.Future[Any] | None = None
        last = b""
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(anext(results))
                await asyncio.wait((waiting,), timeout=self._heartbeat if as_events else None)
                piece = COMMENT
                if waiting.done():
                    result, waiting = waiting, None
                    encoded = _encode(result.result())
                    piece = sse_event(encoded) if as_events else encoded + b"\n"
                writer = writer or EventStreamWriter(request, (), self._write_timeout, content_type)
                await writer.write(piece)
        except StopAsyncIteration:
            last = sse_event(b"{}", "end") if as_events else b""
        except ConnectionError:
            raise
        except Exception as error:
            if writer is None:
                raise
            told = error_json(as_anywire(error), origin=True)
            last = sse_event(told, "error") if as_events else told + b"\n"
        finally:
            if waiting is not None:
                waiting.cancel()
                await asyncio.wait((waiting,))  # only what does not run can be closed
        writer = writer or EventStreamWriter(request, (), self._write_timeout, content_type)
        await writer.write(last, last=True)
        return WrittenResponse(writer.keep_alive)


def _arguments(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        return _read(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(
            f'the body must be empty or a JSON object with the arguments, such as {{"model": "m"}}: {error}',
            param="arguments",
        ) from error


def _deadline(text: str) -> float:
    """Seconds, as `Context.command` takes them and checks their bounds."""
    if not text:
        return DEADLINE
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InvalidRequest(
            f"deadline must be a number of seconds, or 0 for any time, not {text[:32]!r}", param="deadline"
        )
    return seconds
