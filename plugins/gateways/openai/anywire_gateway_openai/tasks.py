"""From an HTTP request to a task and back: chat completions, completions, embeddings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from aiohttp import web

from anywire.caller import Caller
from anywire.context import Context
from anywire.errors import AnywireError
from anywire.messages import Chunk, Kind, Progress
from anywire.task_stream import TaskStream
from anywire_gateway_openai.answers import answer
from anywire_gateway_openai.as_asked import embeddings_as_asked, not_followed
from anywire_gateway_openai.background import BackgroundHandlers
from anywire_gateway_openai.body import BodyRoom, read_body
from anywire_gateway_openai.caller import Callers
from anywire_gateway_openai.chat_schema import ChatRequest
from anywire_gateway_openai.default_model import DefaultModel
from anywire_gateway_openai.headers import DECISION, answer_headers, decision_header, stages_text
from anywire_gateway_openai.idempotency import KeptAnswers, Reader, digest_of
from anywire_gateway_openai.notes import HEADERS, MODEL, TASK
from anywire_gateway_openai.once import Once
from anywire_gateway_openai.openapi import answer_types
from anywire_gateway_openai.openapi.form import Form, described
from anywire_gateway_openai.reading import Passing, ProgressReader, Read, next_chunks, next_chunks_passing
from anywire_gateway_openai.request_headers import task_headers
from anywire_gateway_openai.sse import EventEncoder, error_event, progress_comment
from anywire_gateway_openai.streamed_answer import StreamedAnswer
from anywire_gateway_openai.text_schema import CompletionRequest, EmbeddingRequest
from anywire_gateway_openai.validation import Checked, check, check_streamed_chat
from anywire_gateway_openai.wire import write_json

_TAKEN = {202: answer_types.TaskTaken}
_CHAT_STREAM = Form(
    takes=ChatRequest, events=answer_types.ChatCompletionChunk, last_event="[DONE]", also=_TAKEN, is_task=True
)
_CHAT = _CHAT_STREAM._replace(gives=answer_types.ChatCompletion)
_COMPLETION = _CHAT._replace(takes=CompletionRequest, gives=answer_types.Completion, events=answer_types.Completion)
_EMBEDDING = Form(takes=EmbeddingRequest, gives=answer_types.EmbeddingList, also=_TAKEN, is_task=True)


class TaskHandlers:
    """What answers the POST endpoints. A client that goes away cancels its task: its connection cancels the handler."""

    def __init__(
        self,
        context: Context,
        callers: Callers,
        default_model: DefaultModel,
        *,
        max_body_bytes: int,
        body_timeout: float,
        write_timeout: float,
        keep_alive: float,
        room: BodyRoom,
        kept: KeptAnswers,
        background: BackgroundHandlers,
    ) -> None:
        self._once, self._background = Once(context, callers, kept), background
        self._context, self._callers, self._default_model = context, callers, default_model
        self._keep_alive, self._room = keep_alive, room
        self._max_body_bytes = max_body_bytes
        self._body_timeout = body_timeout
        self._write_timeout = write_timeout

    @described(_CHAT)
    async def chat(self, request: web.BaseRequest) -> web.StreamResponse:
        """A chat completion; with ``"stream": true`` as server-sent events."""
        return await self._handle(request, "chat")

    @described(_CHAT_STREAM)
    async def chat_stream(self, request: web.BaseRequest) -> web.StreamResponse:
        """A chat that is streamed whatever its body says of that."""
        return await self._handle(request, "chat", always_stream=True)

    @described(_COMPLETION)
    async def completion(self, request: web.BaseRequest) -> web.StreamResponse:
        """A completion of a prompt; with ``"stream": true`` as server-sent events."""
        return await self._handle(request, "completion")

    @described(_EMBEDDING)
    async def embedding(self, request: web.BaseRequest) -> web.StreamResponse:
        """Embeddings of the input."""
        return await self._handle(request, "embedding")

    async def _handle(self, request: web.BaseRequest, kind: Kind, *, always_stream: bool = False) -> web.StreamResponse:
        with self._room.share() as share:
            body = await read_body(request, self._max_body_bytes, self._body_timeout, share=share)
            return await self._answer(request, kind, body, always_stream=always_stream)

    async def _answer(
        self, request: web.BaseRequest, kind: Kind, body: bytes, *, always_stream: bool
    ) -> web.StreamResponse:
        checking = (
            check_streamed_chat(body, self._max_body_bytes)
            if always_stream
            else check(kind, body, self._max_body_bytes)
        )
        fields, text, outline = await checking
        headers = task_headers(request.headers)
        streamed = always_stream or (not isinstance(fields, EmbeddingRequest) and bool(fields.stream))
        caller = self._callers.still(request)
        request[MODEL] = model = fields.model or self._default_model.of(kind, caller)
        submission = headers.submission(kind, model, text, streamed, caller, outline)
        reader: Reader | None = None
        digest = digest_of(kind, body, always_stream) if headers.idempotency_key else b""
        if headers.background:
            key = "\n".join(self._once.scope(request, headers.idempotency_key, caller)) if digest else ""
            return await self._background.take(request, submission, key, digest)
        if digest:
            reader, stream = self._once.begin(request, headers.idempotency_key, digest, submission)
            read, result = partial(next_chunks, reader), reader.result
        else:
            stream = self._context.submit(submission)
            read, result = partial(next_chunks, stream), stream.result
        request[TASK] = stream
        explain = telling_decision(self._context, request, stream, caller) if headers.explain else nothing
        try:
            if streamed:
                encoder = _Encoder(kind, fields, model, stream, headers.stages)
                if not headers.progress or reader is not None:
                    passing = partial(next_chunks_passing, stream) if reader is None else None
                    return await self._stream(request, encoder, stream, read, explain, reader, passing)
                progress = ProgressReader(stream)
                try:
                    return await self._stream(request, encoder, stream, progress.next, explain)
                finally:
                    progress.close()
            chunk = await result()
            explain()
            if isinstance(fields, EmbeddingRequest):
                chunk = await embeddings_as_asked(chunk, fields)
            whole = answer(kind, stream.task_id, stream.model or model, chunk)
            stages = ("x-anywire-stages", stages_text(stream.stages))
            return await write_json(request, whole, [*answer_headers(stream, not_followed(fields, chunk)), stages])
        except BaseException as error:
            if reader is None:
                cancel_for(stream, error)
            tell_whose(error, stream, explain)
            raise
        finally:
            if reader is not None:
                reader.close()

    async def _stream(
        self,
        request: web.BaseRequest,
        encoder: _Encoder,
        stream: TaskStream,
        read: Read,
        explain: Callable[[], None],
        reader: Reader | None = None,
        passing: Passing | None = None,
    ) -> web.StreamResponse:
        answer = StreamedAnswer(request, stream, self._write_timeout, self._keep_alive)
        cancel = stream.cancel if reader is None else nothing
        return await answer.write_all(read, encoder, first=explain, failed=error_event, cancel=cancel, passing=passing)


def nothing(*_: object) -> None: ...


def telling_decision(
    context: Context, request: web.BaseRequest, stream: TaskStream, caller: Caller
) -> Callable[[], None]:
    """What lets the answer tell how its agent was chosen, once one is."""

    def tell() -> None:
        told = decision_header(context.explain(stream.task_id, caller))
        others = [each for each in request.get(HEADERS, ()) if each[0] != DECISION]
        request[HEADERS] = (*others, *told)

    return tell


def cancel_for(stream: TaskStream, error: BaseException) -> None:
    """End the task of an answer that cannot be given, with ``error`` as the reason. What is none of Anywire's errors is
    that of a client that has gone."""
    if isinstance(error, AnywireError):
        stream.cancel(error.message)
    else:
        stream.cancel(f"the client went away ({error})" if str(error) else "the client went away")


def tell_whose(error: BaseException, stream: TaskStream, explain: Callable[[], None]) -> None:
    """Let the error's own answer tell the task, its agent, and how that was chosen. Nobody reads it where it is none of
    Anywire's errors."""
    if isinstance(error, AnywireError):
        explain()
        error.task_id = error.task_id or stream.task_id
        error.agent_id = error.agent_id or stream.agent_id


def include_usage(fields: Checked) -> bool:
    """Whether a stream's client asks for usage at its end."""
    options = None if isinstance(fields, EmbeddingRequest) else fields.stream_options
    return options is not None and bool(options.include_usage)


class _Encoder:
    """Encodes what is read of a stream; ``ended`` once its final chunk is. The model that answers is known with the
    first chunks."""

    def __init__(self, kind: Kind, fields: Checked, model: str, stream: TaskStream, tells_stages: bool) -> None:
        self.ended = False
        self._tells_stages = tells_stages
        self._kind, self._fields, self._model, self._stream = kind, fields, model, stream
        self._events: EventEncoder | None = None

    def encode(self, step: list[Chunk] | Progress) -> bytes:
        if isinstance(step, Progress):
            return progress_comment(step)
        stream, events = self._stream, self._events
        if events is None:
            model = stream.model or self._model
            events = EventEncoder(self._kind, stream.task_id, model, include_usage(self._fields))
            self._events = events
        tells_stages = self._tells_stages and step[-1].final
        data = events.events(step, stream.stages.spans_ms() if tells_stages else None)
        self.ended = events.ended
        return data
