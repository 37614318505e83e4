"""``POST /v1/chat/completions`` at the agent itself."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Protocol

import msgspec
from aiohttp import web

from anywire.engine import Delta, EngineProgress
from anywire.errors import EngineFailed, InvalidRequest
from anywire.messages import TaskRequest
from anywire.printable import printable
from anywire_engine_models.local_api.answers import AnswerForm
from anywire_engine_models.local_api.api_errors import as_anywire, error_json
from anywire_engine_models.local_api.request_body import read_body
from anywire_engine_models.local_api.telling import Telling, Tellings
from anywire_engine_models.local_api.writing import COMMENT, HEARTBEAT, StreamedAnswer, event

MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_DETAIL = 256
PROGRESS = "x-anywire-progress"


class Runs(Protocol):
    """See `anywire.engine.Engine.run`."""

    def run(self, task: TaskRequest, /) -> AsyncGenerator[Delta | EngineProgress, None]: ...


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Asked(msgspec.Struct):
    """What is read here of a request; the rest is for the model's server."""

    model: Annotated[str, msgspec.Meta(min_length=1)]
    messages: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


_decode = msgspec.json.Decoder(_Asked).decode


class Chat:
    """Answers with ``engine``, which gives each request its turn at its model, or says why there is none."""

    def __init__(self, engine: Runs, tellings: Tellings) -> None:
        self._engine, self._tellings = engine, tellings

    async def completions(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await read_body(request, MAX_BODY_BYTES)
        try:
            asked, text = _decode(body), body.decode()
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise InvalidRequest(f"the body is no chat request: {error}") from error
        task_id = secrets.token_hex(12)
        streamed = asked.stream is True
        usage = asked.stream_options is not None and asked.stream_options.include_usage is True
        form = AnswerForm(task_id, asked.model, include_usage=usage)
        task = TaskRequest("local", task_id, 1, "chat", asked.model, text, stream=streamed, progress=True)
        async with self._tellings.open(self._engine.run(task)) as telling:
            if streamed:
                return await self._stream(request, telling, form)
            return await self._whole(telling, form)

    async def _whole(self, telling: Telling[Delta | EngineProgress], form: AnswerForm) -> web.StreamResponse:
        deltas: list[Delta] = []
        try:
            while True:
                each = await telling.next()
                if not isinstance(each, EngineProgress):
                    deltas.append(_checked(each))
        except StopAsyncIteration:
            return web.Response(body=form.whole(deltas), content_type="application/json")

    async def _stream(
        self, request: web.BaseRequest, telling: Telling[Delta | EngineProgress], form: AnswerForm
    ) -> web.StreamResponse:
        """The head goes out with the first token, so that an error before it has a status of its own; or after some
        silence, or with the first progress where the client asks for that (`PROGRESS`), as a comment."""
        answer = StreamedAnswer(request)
        tells_progress = request.headers.get(PROGRESS, "").lower() in ("1", "true")
        try:
            while True:
                try:
                    each = await telling.next(HEARTBEAT)
                except TimeoutError:
                    await answer.write(COMMENT)
                    continue
                if not isinstance(each, EngineProgress):
                    if piece := form.event(_checked(each)):
                        await answer.write(piece)
                elif tells_progress:
                    await answer.write(_progress(each))
        except StopAsyncIteration:
            return await answer.end(form.last())
        except ConnectionError:
            raise
        except Exception as error:
            if not answer.begun:
                raise
            return await answer.end(event(error_json(as_anywire(error))))


def _checked(each: object) -> Delta:
    if not isinstance(each, Delta):
        raise EngineFailed(f"the engine yielded {type(each).__name__}, which is no Delta")
    return each


def _progress(progress: EngineProgress) -> bytes:
    """As the orchestrator's gateway tells it."""
    told = f": progress {progress.state} {printable(progress.detail, MAX_DETAIL)}".rstrip()
    return told.encode(errors="replace") + b"\n\n"
