"""From an HTTP request to a task and back: chat completions, completions, embeddings."""

from __future__ import annotations

from aiohttp import web

from anywire.errors import AnywireError, StreamCorrupted
from anywire.messages import Chunk, Kind
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline.stream import TaskStream
from anywire.submission import Submission
from anywire_gateway_openai.answers import answer
from anywire_gateway_openai.body import read_body
from anywire_gateway_openai.errors import as_anywire
from anywire_gateway_openai.headers import header_text, stages_text, task_headers
from anywire_gateway_openai.metrics import Metrics
from anywire_gateway_openai.sse import EventEncoder, error_event
from anywire_gateway_openai.text_schema import EmbeddingRequest
from anywire_gateway_openai.validation import Checked, check
from anywire_gateway_openai.wire import EventStreamWriter, WrittenResponse, write_json


class TaskHandlers:
    """What answers the POST endpoints. A client that goes away cancels its task: aiohttp cancels the handler then."""

    def __init__(
        self,
        orchestrator: Orchestrator,
        metrics: Metrics,
        *,
        max_body_bytes: int,
        body_timeout: float,
        write_timeout: float,
    ) -> None:
        self._orchestrator = orchestrator
        self._metrics = metrics
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
        deadline_s, priority, trace = task_headers(request.headers)
        streamed = not isinstance(fields, EmbeddingRequest) and bool(fields.stream)
        stream = self._orchestrator.submit(Submission(kind, fields.model, text, streamed, priority, deadline_s, trace))
        try:
            if streamed:
                return await self._stream(request, kind, fields, stream)
            chunk = await stream.result()
            whole = answer(kind, stream.task_id, fields.model, chunk)
            headers = [*_headers(stream), ("x-anywire-stages", stages_text(stream.stages.spans_ms()))]
            written = await write_json(request, whole, headers)
            self._metrics.answered(kind, fields.model, stream)
            return written
        except AnywireError as error:
            self._metrics.failed(kind, fields.model, stream, error)
            stream.cancel(error.message)
            error.task_id = error.task_id or stream.task_id
            error.agent_id = error.agent_id or stream.agent_id
            raise
        except BaseException as error:
            self._metrics.failed(kind, fields.model, stream, error)
            stream.cancel(f"the client went away ({error})" if str(error) else "the client went away")
            raise

    async def _stream(
        self, request: web.BaseRequest, kind: Kind, fields: Checked, stream: TaskStream
    ) -> web.StreamResponse:
        encoder = EventEncoder(kind, stream.task_id, fields.model, include_usage(fields))
        # Until these first events exist, whatever goes wrong still gets a status of its own.
        chunks = await next_chunks(stream)
        first_ns = self._metrics.now_ns()
        events = _events(encoder, chunks, stream)
        writer = EventStreamWriter(request, _headers(stream), self._write_timeout)
        fault: AnywireError | None = None
        try:
            while not encoder.ended:
                await writer.write(events)
                chunks = await next_chunks(stream)
                events = _events(encoder, chunks, stream)
        except ConnectionError:
            raise
        except Exception as error:
            fault = as_anywire(error, stream.task_id)
            stream.cancel(fault.message)
            events = error_event(fault)
        await writer.write(events, last=True)
        if fault is None:
            self._metrics.streamed(kind, fields.model, stream, first_ns, chunks[-1])
        else:
            self._metrics.failed(kind, fields.model, stream, fault)
        return WrittenResponse(writer.keep_alive)


def include_usage(fields: Checked) -> bool:
    """Whether a stream's client asks for usage at its end."""
    options = None if isinstance(fields, EmbeddingRequest) else fields.stream_options
    return options is not None and bool(options.include_usage)


async def next_chunks(stream: TaskStream) -> list[Chunk]:
    """What waits, at least one chunk. Raises `StreamCorrupted` when there is none any more."""
    chunks = await stream.take()
    if not chunks:
        raise StreamCorrupted("the stream ended without its final chunk", phase="streaming")
    return chunks


def _events(encoder: EventEncoder, chunks: list[Chunk], stream: TaskStream) -> bytes:
    return encoder.events(chunks, stream.stages.spans_ms() if chunks[-1].final else None)


def _headers(stream: TaskStream) -> list[tuple[str, str]]:
    return [
        ("x-anywire-transport", header_text(stream.transport)),
        ("x-anywire-agent", header_text(stream.agent_id)),
        ("x-anywire-task", stream.task_id),
        ("x-anywire-attempts", str(stream.attempts)),
    ]
