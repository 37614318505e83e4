"""``POST /api/chat``, ``/api/generate``, ``/api/embed`` and ``/api/embeddings``: Ollama's API, each request a task."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, TypeVar

import msgspec
from aiohttp import web
from msgspec import Raw

from anywire.context import Context
from anywire.errors import EngineFailed, InvalidRequest, StreamCorrupted
from anywire.messages import Chunk
from anywire.submission import Submission
from anywire_gateway_openai.answers import checked_json
from anywire_gateway_openai.as_asked import embeddings_as_asked
from anywire_gateway_openai.body import BodyRoom, BodyShare, read_body
from anywire_gateway_openai.caller import Callers
from anywire_gateway_openai.first_choice import token_counts
from anywire_gateway_openai.idempotency import KeptAnswers, digest_of
from anywire_gateway_openai.notes import HEADERS, MODEL
from anywire_gateway_openai.ollama import forms
from anywire_gateway_openai.ollama.answer import CHAT, GENERATED, Form, Lines, line, whole
from anywire_gateway_openai.ollama.catalogue import not_found
from anywire_gateway_openai.ollama.error_form import error_line
from anywire_gateway_openai.ollama.messages import Object
from anywire_gateway_openai.ollama.names import served
from anywire_gateway_openai.ollama.request import (
    Asked,
    ChatRequest,
    GenerateRequest,
    asked_chat,
    asked_embed,
    asked_embeddings,
    asked_generate,
    chat_decoder,
    embed_decoder,
    embeddings_decoder,
    generate_decoder,
    unloads,
)
from anywire_gateway_openai.once import Once
from anywire_gateway_openai.openapi.form import described
from anywire_gateway_openai.opened_task import OpenedTask, headers_here, opened
from anywire_gateway_openai.request_headers import TaskHeaders
from anywire_gateway_openai.streamed_answer import StreamedAnswer
from anywire_gateway_openai.text_schema import EmbeddingRequest
from anywire_gateway_openai.translated_body import translated
from anywire_gateway_openai.validation import check_members
from anywire_gateway_openai.wire import write_json

NDJSON = "application/x-ndjson"
LOADED = "load"
"""Why an answer ends for which a model was only to be loaded."""
_PROMPT = {"messages": [{"role": "user", "content": "."}], "max_tokens": 1}
"""What is asked of a model that is only to be loaded."""

_vectors = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_vector = msgspec.json.Decoder(list[float]).decode
_index = msgspec.json.Decoder(int).decode


class _NamesModel(Protocol):
    model: str


Fields = TypeVar("Fields", bound=_NamesModel)


class _Request(NamedTuple):
    """A request as it came: ``name`` is the model's as the client writes it, ``digest`` tells what is asked for."""

    http: web.BaseRequest
    share: BodyShare
    digest: bytes
    name: str
    began_ns: int


class OllamaHandlers:
    """A client that goes away cancels its task, as with chats."""

    def __init__(
        self,
        context: Context,
        callers: Callers,
        *,
        max_body_bytes: int,
        body_timeout: float,
        write_timeout: float,
        keep_alive: float,
        room: BodyRoom,
        kept: KeptAnswers,
    ) -> None:
        self._context, self._callers, self._once, self._room = context, callers, Once(context, callers, kept), room
        self._max_body_bytes, self._body_timeout = max_body_bytes, body_timeout
        self._write_timeout, self._keep_alive = write_timeout, keep_alive

    @described(forms.CHAT)
    async def chat(self, request: web.BaseRequest) -> web.StreamResponse:
        """A chat in Ollama's form, streamed as lines of JSON unless its body says ``"stream": false``."""
        with self._room.share() as share:
            came, fields, members = await self._read(request, share, chat_decoder)
            if not fields.messages:
                return await self._load(came, fields, CHAT)
            asked, streamed = asked_chat(fields, members), fields.stream is not False
            del fields, members  # they may be large, and an answer may take long
            return await self._answer(came, asked, CHAT, streamed)

    @described(forms.GENERATE)
    async def generate(self, request: web.BaseRequest) -> web.StreamResponse:
        """An answer to one prompt in Ollama's form, streamed as lines of JSON unless its body says
        ``"stream": false``."""
        with self._room.share() as share:
            came, fields, members = await self._read(request, share, generate_decoder)
            if not (fields.prompt or fields.images or fields.suffix):
                return await self._load(came, fields, GENERATED)
            asked, streamed = asked_generate(fields, members), fields.stream is not False
            del fields, members
            return await self._answer(came, asked, GENERATED, streamed)

    @described(forms.EMBED)
    async def embed(self, request: web.BaseRequest) -> web.StreamResponse:
        """Embeddings of one text or several in Ollama's form."""
        with self._room.share() as share:
            came, fields, members = await self._read(request, share, embed_decoder)
            asked, dimensions = asked_embed(fields, members), fields.dimensions
            del fields, members

            async def told(chunk: Chunk) -> Object:
                vectors = await _embeddings(chunk, dimensions)
                counts = token_counts(chunk.usage)
                return {
                    "model": came.name,
                    "embeddings": vectors,
                    "total_duration": time.monotonic_ns() - came.began_ns,
                    "load_duration": 0,
                    "prompt_eval_count": counts.given if counts is not None else 0,
                }

            return await self._embedded(came, asked, told)

    @described(forms.EMBEDDINGS)
    async def embeddings(self, request: web.BaseRequest) -> web.StreamResponse:
        """The embedding of one text in Ollama's older form."""
        with self._room.share() as share:
            came, fields, members = await self._read(request, share, embeddings_decoder)

            async def told(chunk: Chunk) -> Object:
                vectors = await _embeddings(chunk, None)
                return {"embedding": vectors[0] if vectors else []}

            return await self._embedded(came, asked_embeddings(fields, members), told)

    async def _read(
        self, request: web.BaseRequest, share: BodyShare, decoder: msgspec.json.Decoder[Fields]
    ) -> tuple[_Request, Fields, list[str]]:
        """A request, and the names of its members. Clients of Ollama send any media type."""
        began_ns = time.monotonic_ns()
        body = await read_body(request, self._max_body_bytes, self._body_timeout, any_type=True, share=share)
        fields, members = await check_members(decoder, body, self._max_body_bytes)
        name = fields.model
        if not name:
            raise InvalidRequest("model is required", param="model")
        return _Request(request, share, digest_of(request.path, body, False), name, began_ns), fields, list(members)

    async def _load(self, came: _Request, fields: ChatRequest | GenerateRequest, form: Form) -> web.StreamResponse:
        """Answer a request without a prompt: the model is loaded, by a task where it is not yet."""
        if unloads(fields.keep_alive):
            raise InvalidRequest(
                f"keep_alive: a request does not unload a model here: use `anywire models stop {came.name}`, or let "
                "its agent do it (idle_ttl)",
                param="keep_alive",
            )
        caller = self._callers.still(came.http)
        known = self._context.offers(caller)
        offers = [offer for _, offer in known.get(served(came.name, known), ())]
        if not offers:
            raise not_found(came.name)
        if not any(each.state == "ready" for each in offers):
            return await self._answer(came, Asked("chat", {**_PROMPT}, ()), form, streamed=False, is_loading=True)
        if fields.keep_alive is not None:
            came.http[HEADERS] = (*came.http.get(HEADERS, ()), ("x-anywire-ignored", "keep_alive"))
        loaded = Chunk("", "", 1, 0, final=True, finish_reason=LOADED)
        told = whole(form, came.name, loaded, time.monotonic_ns() - came.began_ns)
        return await write_json(came.http, told, ())

    async def _answer(
        self, came: _Request, asked: Asked, form: Form, streamed: bool, *, is_loading: bool = False
    ) -> web.StreamResponse:
        request, headers = came.http, headers_here(came.http, "an answer of Ollama's API")
        submission = await self._submission(came, asked, headers, streamed)
        unheard = {"x-anywire-progress": headers.progress, "x-anywire-stages": headers.stages and streamed}
        asked.body.clear()
        asked = asked._replace(ignored=(*asked.ignored, *(name for name, wanted in unheard.items() if wanted)))
        with opened(request, self._context, self._once, submission, headers, came.digest) as task:
            if streamed:
                return await self._stream(came, asked, form, task)
            chunk = await task.result()
            if is_loading:
                chunk = msgspec.structs.replace(chunk, deltas=(), extra="", finish_reason=LOADED)
            told = whole(form, came.name, chunk, time.monotonic_ns() - came.began_ns)
            return await write_json(request, told, task.headers(asked.ignored))

    async def _embedded(
        self, came: _Request, asked: Asked, told: Callable[[Chunk], Awaitable[Object]]
    ) -> web.StreamResponse:
        headers = headers_here(came.http, "an embedding of Ollama's API")
        submission = await self._submission(came, asked, headers, streamed=False)
        asked.body.clear()
        with opened(came.http, self._context, self._once, submission, headers, came.digest) as task:
            answer = await told(await task.result())
            return await write_json(came.http, line(answer), task.headers(asked.ignored))

    async def _submission(self, came: _Request, asked: Asked, headers: TaskHeaders, streamed: bool) -> Submission:
        caller = self._callers.still(came.http)
        came.http[MODEL] = model = served(came.name, self._context.models(caller))
        body = {"model": model, **asked.body}
        if streamed:
            body["stream"] = True
        text, outline = await translated(body, self._max_body_bytes, came.share, "for the engine")
        return headers.submission(asked.kind, model, text, streamed, caller, outline)

    async def _stream(self, came: _Request, asked: Asked, form: Form, task: OpenedTask) -> web.StreamResponse:
        request, lines = came.http, Lines(form, came.name, came.began_ns)
        answer = StreamedAnswer(
            request,
            task.stream,
            self._write_timeout,
            self._keep_alive,
            asked.ignored,
            keep_alive=lines.silence(),
            content_type=NDJSON,
        )

        return await answer.write_all(task.chunks, lines, first=task.explain, failed=error_line, cancel=task.cancel)


async def _embeddings(chunk: Chunk, dimensions: int | None) -> list[list[float]]:
    """The vectors of an answer, in the order of their texts. Raises `StreamCorrupted` for what is none, and
    `InvalidRequest` when they have other dimensions than were asked for."""
    if not chunk.extra:
        raise EngineFailed("the engine gave no embedding")
    checked_json(chunk.extra, "[", "embedding")
    chunk = await embeddings_as_asked(chunk, EmbeddingRequest(input=Raw(b'""'), dimensions=dimensions))
    try:
        entries = _vectors(chunk.extra)
        found = sorted((_index(each.get("index", Raw(b"0"))), at) for at, each in enumerate(entries))
        return [_vector(entries[at]["embedding"]) for _, at in found]
    except (msgspec.MsgspecError, UnicodeError, KeyError) as error:
        raise StreamCorrupted(f"the agent sent embeddings that cannot be read: {error}", phase="streaming") from error
