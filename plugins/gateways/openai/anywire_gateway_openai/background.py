"""Tasks whose client does not wait: taken in with ``x-anywire-background: true``, and their answers later.

The service ``background`` runs and keeps them (`anywire.background`); the answer has the form that it would have had at
once.
"""

from __future__ import annotations

import math

from aiohttp import web

from anywire.background import SERVICE, BackgroundTask, BackgroundTasks
from anywire.context import Context
from anywire.errors import AnywireError, Forbidden, InvalidRequest, Unauthenticated
from anywire.submission import Submission
from anywire_gateway_openai.answers import answer, task_id_of
from anywire_gateway_openai.as_asked import embeddings_as_asked, not_followed
from anywire_gateway_openai.caller import CALLER, Callers
from anywire_gateway_openai.catalogue import json_response
from anywire_gateway_openai.errors import error_code, error_response
from anywire_gateway_openai.headers import answer_headers
from anywire_gateway_openai.notes import ERROR, HEADERS
from anywire_gateway_openai.openapi import answer_types
from anywire_gateway_openai.openapi.form import Form, Query, described
from anywire_gateway_openai.task_views import unknown_task
from anywire_gateway_openai.text_schema import EmbeddingRequest
from anywire_gateway_openai.validation import check

MAX_WAIT_S = 60.0
RETRY_AFTER = ("retry-after", "1")
_ANSWER = Form(
    gives=(answer_types.ChatCompletion, answer_types.Completion, answer_types.EmbeddingList),
    also={202: answer_types.TaskTaken},
    query={"wait": Query("Seconds to wait for the answer.", {"type": "number", "minimum": 0, "maximum": MAX_WAIT_S})},
    is_answer=True,
)


class BackgroundHandlers:
    """``max_body_bytes`` is the gateway's."""

    def __init__(self, context: Context, callers: Callers, *, max_body_bytes: int) -> None:
        self._context, self._callers, self._max_body_bytes = context, callers, max_body_bytes

    async def take(
        self, request: web.BaseRequest, submission: Submission, key: str, digest: bytes
    ) -> web.StreamResponse:
        """Answer a request with the id of its task. ``key`` is that of `BackgroundTasks.submit`."""
        tasks = self._tasks()
        if tasks is None:
            raise InvalidRequest(
                "no background tasks are kept here: configure the service background (services: [background])",
                param="x-anywire-background",
            )
        task_id, is_new = await tasks.submit(submission, key, digest)
        if not is_new:
            request[HEADERS] = (*request.get(HEADERS, ()), ("x-anywire-replayed", "true"))
        return _not_yet(request, task_id)

    @described(_ANSWER)
    async def answer(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """The answer of a background task; 202 while there is none. ``?wait=30`` waits so many seconds for it.

        A task that failed is answered as it would have been at once, with ``x-should-retry: false``: it stays so."""
        wait = _wait(request.query.get("wait", "0"))
        tasks, task_id = self._tasks(), task_id_of(name)
        task = await tasks.get(task_id, request[CALLER], wait) if tasks is not None else None
        self._callers.still(request)
        if task is None:
            raise unknown_task(name)
        if isinstance(task.error, Unauthenticated):  # of who sent it, and not of who asks
            return _failed(request, task, Forbidden("the key with which this task was sent counts no more"))
        if task.error is not None:
            return _failed(request, task, task.error)
        if task.chunk is None:
            return _not_yet(request, task.task_id)
        submission, chunk = task.submission, task.chunk
        fields, _, _ = await check(submission.kind, submission.body.encode(), self._max_body_bytes)
        if isinstance(fields, EmbeddingRequest):
            chunk = await embeddings_as_asked(chunk, fields)
        model = task.model or submission.model
        whole = answer(submission.kind, task.task_id, model, chunk, created=int(task.ended))
        headers = {"Content-Type": "application/json", "Server": "anywire"}
        return web.Response(body=whole, headers=headers | dict(answer_headers(task, not_followed(fields, chunk))))

    @described(Form(gives=answer_types.TaskDeleted))
    async def forget(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """Cancels a background task, and keeps nothing of it."""
        tasks, task_id = self._tasks(), task_id_of(name)
        if tasks is None or not await tasks.forget(task_id, request[CALLER]):
            raise unknown_task(name)
        return json_response({"id": task_id, "object": "task", "deleted": True})

    def _tasks(self) -> BackgroundTasks | None:
        tasks: BackgroundTasks | None = self._context.services.get(SERVICE)
        return tasks


def _not_yet(request: web.BaseRequest, task_id: str) -> web.StreamResponse:
    base = "/api/v1" if request.path.startswith("/api/") else "/v1"
    where = f"{base}/tasks/{task_id}/answer"
    headers = (("x-anywire-task", task_id), ("location", where), RETRY_AFTER)
    request[HEADERS] = (*request.get(HEADERS, ()), *headers)
    return json_response({"id": task_id, "object": "task", "background": True, "answer": where}, 202)


def _failed(request: web.BaseRequest, task: BackgroundTask, error: AnywireError) -> web.StreamResponse:
    error.agent_id = error.agent_id or task.agent_id
    error.retry_after = 0.0  # it told when its request might have been sent again
    request[ERROR] = error_code(error)
    response = error_response(error)
    response.headers.popall("Retry-After", None)
    response.headers["x-should-retry"] = "false"
    return response


def _wait(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MAX_WAIT_S:  # false for NaN too
        raise InvalidRequest(f"wait must be seconds from 0 to {MAX_WAIT_S:.0f}, got {text[:64]!r}", param="wait")
    return seconds
