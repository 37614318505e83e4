"""From an HTTP request to a task and back: chat completions, completions, embeddings."""

from __future__ import annotations

from aiohttp import web

from anywire.errors import AnywireError, StreamCorrupted
from anywire.gateway import Submission
from anywire.messages import Kind
from anywire.orchestrator import Orchestrator
from anywire.stream import TaskStream
from anywire_gateway_openai.answers import answer
from anywire_gateway_openai.body import read_body
from anywire_gateway_openai.errors import as_anywire
from anywire_gateway_openai.headers import header_text, stages_text, task_headers
from anywire_gateway_openai.sse import EventEncoder, error_event
from anywire_gateway_openai.text_schema import EmbeddingRequest
from anywire_gateway_openai.validation import Checked, check
from anywire_gateway_openai.wire import EventStreamWriter, WrittenResponse, write_json


class TaskHandlers:
    """What answers the POST endpoints. A client that goes away cancels its task: aiohttp cancels the handler then."""

    def __init__(
        self, orchestrator: Orchestrator, *, max_body_bytes: int, body_timeout: float, write_timeout: float
    ) -> None:
        self._orchestrator = orchestrator
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
            headers = [*_headers(stream), ("x-anywire-stages", stages_text(stream.stages.spans_ms()))]
            return await write_json(request, answer(kind, stream.task_id, fields.model, chunk), headers)
        except AnywireError as error:
            stream.cancel(error.message)
            error.task_id = error.task_id or stream.task_id
            error.agent_id = error.agent_id or stream.agent_id
            raise
        except BaseException as error:
            stream.cancel(f"the client went away ({error})" if str(error) else "the client went away")
            raise

    async def _stream(
        self, request: web.BaseRequest, kind: Kind, fields: Checked, stream: TaskStream
    ) -> web.StreamResponse:
        options = None if isinstance(fields, EmbeddingRequest) else fields.stream_options
        include_usage = options is not None and bool(options.include_usage)
        encoder = EventEncoder(kind, stream.task_id, fields.model, include_usage)
        # Until these first events exist, whatever goes wrong still gets a status of its own.
        events = await _next_events(stream, encoder)
        writer = EventStreamWriter(request, _headers(stream), self._write_timeout)
        try:
            while not encoder.ended:
                await writer.write(events)
                events = await _next_events(stream, encoder)
        except ConnectionError:
            raise
        except Exception as error:
            known = as_anywire(error, stream.task_id)
            stream.cancel(known.message)
            events = error_event(known)
        await writer.write(events, last=True)
        return WrittenResponse(writer.keep_alive)


async def _next_events(stream: TaskStream, encoder: EventEncoder) -> bytes:
    chunks = await stream.take()
    if not chunks:
        raise StreamCorrupted("the stream ended without its final chunk", phase="streaming")
    return encoder.events(chunks, stream.stages.spans_ms() if chunks[-1].final else None)


def _headers(stream: TaskStream) -> list[tuple[str, str]]:
    return [
        ("x-anywire-transport", header_text(stream.transport)),
        ("x-anywire-agent", header_text(stream.agent_id)),
        ("x-anywire-task", stream.task_id),
        ("x-anywire-attempts", str(stream.attempts)),
    ]
