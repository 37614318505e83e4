"""Tasks that have not ended: listed, looked at, followed and cancelled, as far as a caller may."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web

from anywire.context import Context
from anywire.errors import AnywireError
from anywire.messages import Chunk
from anywire.views import chunk_json, record_json, task_json
from anywire_gateway_openai.answers import task_id_of
from anywire_gateway_openai.caller import CALLER, Callers
from anywire_gateway_openai.catalogue import json_response
from anywire_gateway_openai.errors import HttpError, as_anywire, error_json
from anywire_gateway_openai.openapi import answer_types
from anywire_gateway_openai.openapi.form import Form, Query, described
from anywire_gateway_openai.query_numbers import bounded_number
from anywire_gateway_openai.sse import sse_event
from anywire_gateway_openai.wire import EventStreamWriter, WrittenResponse

COMMENT = b":\n\n"
MAX_LISTED = 100_000
"""Tasks of one list that says how many it wants."""

_encode = msgspec.json.Encoder().encode


class TaskViewHandlers:
    """``heartbeat``: seconds without a chunk after which a follower is sent a comment."""

    def __init__(self, context: Context, callers: Callers, *, write_timeout: float, heartbeat: float) -> None:
        self._context, self._callers = context, callers
        self._write_timeout, self._heartbeat = write_timeout, heartbeat

    @described(
        Form(
            gives=answer_types.Tasks,
            query={"limit": Query("How many at most.", {"type": "integer", "minimum": 0, "maximum": MAX_LISTED})},
        )
    )
    async def list(self, request: web.BaseRequest) -> web.StreamResponse:
        """The tasks that have not ended and that the caller sees, oldest first; ``?limit=`` is how many at most.
        ``more`` is how many there are beyond those."""
        views = self._context.tasks(request[CALLER])
        limit = bounded_number(request.query.get("limit", ""), "limit", most=MAX_LISTED) or len(views)
        told = {"object": "list", "data": [task_json(each) for each in views[:limit]]}
        return json_response(told | {"more": max(0, len(views) - limit)})

    @described(Form(gives=answer_types.TaskTold))
    async def get(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """One task, be it ended, and how its agents were chosen. ``{id}`` is its id, alone or as an answer's id carries
        it (``chatcmpl-…``)."""
        record = self._context.explain(task_id_of(name), request[CALLER])
        if record is None:
            raise unknown_task(name)
        return json_response(record_json(record))

    @described(Form(gives=answer_types.TaskCancelled))
    async def cancel(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """Cancels a task."""
        task_id = task_id_of(name)
        if not self._context.cancel(task_id, "cancelled by DELETE", request[CALLER]):
            raise unknown_task(name)
        return json_response({"id": task_id, "object": "task", "cancelled": True})

    @described(Form(events=answer_types.FollowedChunk, errors=(429,)))
    async def follow(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """The text of one task from now on, as server-sent events.

        Events ``chunk``, or ``error`` at the end of a task without an answer; they have no ids."""
        task_id, caller = task_id_of(name), request[CALLER]
        try:
            chunks: Any = self._context.follow(task_id, caller)
        except AnywireError as error:
            if error.code != "invalid_request":
                raise
            raise unknown_task(task_id) from error
        async with aclosing(chunks):
            writer = EventStreamWriter(request, (("x-anywire-task", task_id),), self._write_timeout)
            if not writer.wants_events:
                return writer.end_head()
            last = b""
            waiting: asyncio.Future[Chunk] | None = None
            try:
                async with self._callers.revocations.while_valid(caller):
                    await writer.write(COMMENT)
                    while True:
                        waiting = waiting or asyncio.ensure_future(anext(chunks))
                        await asyncio.wait((waiting,), timeout=self._heartbeat)
                        if not waiting.done():
                            await writer.write(COMMENT)
                            continue
                        chunk, waiting = waiting.result(), None
                        await writer.write(sse_event(_encode(chunk_json(chunk)), "chunk"))
            except StopAsyncIteration:
                pass
            except ConnectionError:
                raise
            except Exception as error:
                last = sse_event(error_json(as_anywire(error, task_id)), "error")
            finally:
                if waiting is not None:
                    waiting.cancel()
            await writer.write(last, last=True)
        return WrittenResponse(writer.keep_alive)


def unknown_task(name: str) -> HttpError:
    return HttpError(404, "task_not_found", f"there is no task {name[:128]!r} (any more)")
