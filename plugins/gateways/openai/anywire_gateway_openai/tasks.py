"""From an HTTP request to a task and back: chat completions, completions, embeddings."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from anywire.context import Context
from anywire.errors import AnywireError
from anywire.messages import Chunk, Kind, Progress
from anywire.task_stream import TaskStream
from anywire_gateway_openai.answers import answer
from anywire_gateway_openai.body import read_body
from anywire_gateway_openai.caller import caller_of
from anywire_gateway_openai.errors import as_anywire
from anywire_gateway_openai.headers import answer_headers, stages_text
from anywire_gateway_openai.reading import ProgressReader, Read, next_chunks
from anywire_gateway_openai.request_headers import task_headers
from anywire_gateway_openai.sse import EventEncoder, error_event, progress_comment
from anywire_gateway_openai.text_schema import EmbeddingRequest
from anywire_gateway_openai.validation import Checked, check
from anywire_gateway_openai.wire import EventStreamWriter, WrittenResponse, write_json


class TaskHandlers:
    """What answers the POST endpoints. A client that goes away cancels its task: aiohttp cancels the handler then."""

    def __init__(
        self,
        context: Context,
        *,
        max_body_bytes: int,
        body_timeout: float,
        write_timeout: float,
    ) -> None:
        self._context = context
        self._max_body_bytes = max_body_bytes
        self._body_timeout = body_timeout
        self._write_timeout = write_timeout

    async def chat(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._handle(request, "chat")

    async def completion(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._handle(request, "completion")

    async def embedding(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._handle(request, "embedding")

    async def _handle(self, request: web.BaseRequest, kind: Kind) -> web.StreamResponse:
        body = await read_body(request, self._max_body_bytes, self._body_timeout)
        fields, text = check(kind, body)
        headers = task_headers(request.headers)
        streamed = not isinstance(fields, EmbeddingRequest) and bool(fields.stream)
        stream = self._context.submit(headers.submission(kind, fields.model, text, streamed, caller_of(request)))
        try:
            if streamed:
                if not headers.progress:
                    return await self._stream(request, kind, fields, stream, partial(next_chunks, stream))
                reader = ProgressReader(stream)
                try:
                    return await self._stream(request, kind, fields, stream, reader.next)
                finally:
                    reader.close()
            chunk = await stream.result()
            whole = answer(kind, stream.task_id, stream.model or fields.model, chunk)
            stages = ("x-anywire-stages", stages_text(stream.stages.spans_ms()))
            return await write_json(request, whole, [*answer_headers(stream), stages])
        except AnywireError as error:
            stream.cancel(error.message)
            error.task_id = error.task_id or stream.task_id
            error.agent_id = error.agent_id or stream.agent_id
            raise
        except BaseException as error:
            stream.cancel(f"the client went away ({error})" if str(error) else "the client went away")
            raise

    async def _stream(
        self, request: web.BaseRequest, kind: Kind, fields: Checked, stream: TaskStream, read: Read
    ) -> web.StreamResponse:
        encoder = _Encoder(kind, fields, stream)
        # Until there is something to send, whatever goes wrong still gets a status of its own.
        data = encoder.encode(await read())
        writer = EventStreamWriter(request, answer_headers(stream), self._write_timeout)
        try:
            while not encoder.ended:
                await writer.write(data)
                data = encoder.encode(await read())
        except ConnectionError:
            raise
        except Exception as error:
            fault = as_anywire(error, stream.task_id)
            stream.cancel(fault.message)
            data = error_event(fault)
        await writer.write(data, last=True)
        return WrittenResponse(writer.keep_alive)


def include_usage(fields: Checked) -> bool:
    """Whether a stream's client asks for usage at its end."""
    options = None if isinstance(fields, EmbeddingRequest) else fields.stream_options
    return options is not None and bool(options.include_usage)


class _Encoder:
    """Encodes what is read of a stream; ``ended`` once its final chunk is. The model that answers is known with the
    first chunks."""

    def __init__(self, kind: Kind, fields: Checked, stream: TaskStream) -> None:
        self.ended = False
        self._kind, self._fields, self._stream = kind, fields, stream
        self._events: EventEncoder | None = None

    def encode(self, step: list[Chunk] | Progress) -> bytes:
        if isinstance(step, Progress):
            return progress_comment(step)
        stream, events = self._stream, self._events
        if events is None:
            model = stream.model or self._fields.model
            events = EventEncoder(self._kind, stream.task_id, model, include_usage(self._fields))
            self._events = events
        data = events.events(step, stream.stages.spans_ms() if step[-1].final else None)
        self.ended = events.ended
        return data
