"""``rerank``, ``tokenize``, ``detokenize``, ``audio/transcriptions``, ``audio/speech`` and ``images/generations``."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeVar

import msgspec
from aiohttp import web

from anywire.context import Context
from anywire.messages import WholeKind
from anywire_gateway_openai.body import BodyRoom, BodyShare, read_body
from anywire_gateway_openai.caller import Callers
from anywire_gateway_openai.default_model import DefaultModel
from anywire_gateway_openai.idempotency import KEY, KeptAnswers, digest_of
from anywire_gateway_openai.notes import MODEL
from anywire_gateway_openai.once import Once
from anywire_gateway_openai.openapi.form import described
from anywire_gateway_openai.opened_task import OpenedTask, headers_here, opened
from anywire_gateway_openai.translated_body import translated
from anywire_gateway_openai.validation import check_members
from anywire_gateway_openai.whole import answer as told
from anywire_gateway_openai.whole import forms
from anywire_gateway_openai.whole.form_data import read_form
from anywire_gateway_openai.whole.request import (
    Asked,
    Object,
    asked_image,
    asked_rerank,
    asked_tokenize,
    asked_transcription,
    detokenize_decoder,
    image_decoder,
    rerank_decoder,
    speech_decoder,
    tokenize_decoder,
)
from anywire_gateway_openai.wire import JSON, write_answer

_encode = msgspec.json.Encoder().encode
Fields = TypeVar("Fields")


class _Request(NamedTuple):
    """A request as it came; ``digest`` tells what it asks for, where it has an ``Idempotency-Key``."""

    http: web.BaseRequest
    share: BodyShare
    digest: bytes


class WholeHandlers:
    """Each answers with the whole answer of one task. A client that goes away cancels its task, as with chats."""

    def __init__(
        self,
        context: Context,
        callers: Callers,
        default_model: DefaultModel,
        *,
        max_body_bytes: int,
        body_timeout: float,
        room: BodyRoom,
        kept: KeptAnswers,
    ) -> None:
        self._context, self._callers, self._default_model = context, callers, default_model
        self._once, self._room = Once(context, callers, kept), room
        self._max_body_bytes, self._body_timeout = max_body_bytes, body_timeout

    @described(forms.RERANK)
    async def rerank(self, request: web.BaseRequest) -> web.StreamResponse:
        """Documents in the order of how well they fit a query, as Jina, Cohere and vLLM answer it."""
        with self._room.share() as share:
            came, fields, members = await self._read(request, share, rerank_decoder, "rerank")
            asked = asked_rerank(fields, members)
            del members
            with await self._opened(came, "rerank", asked) as task:
                chunk = await task.result()
                found, usage = told.read_object(chunk, "rerank"), told.usage_of(chunk)
                model = task.stream.model or request[MODEL]
                return await _write(request, task, told.reranked(task.stream.task_id, model, found, usage, fields))

    @described(forms.TOKENIZE)
    async def tokenize(self, request: web.BaseRequest) -> web.StreamResponse:
        """The tokens of a text or of a chat, in vLLM's form, or in llama.cpp's for a request with `content`."""
        with self._room.share() as share:
            came, fields, members = await self._read(request, share, tokenize_decoder, "tokenize")
            asked = asked_tokenize(fields, members)
            del members
            with await self._opened(came, "tokenize", asked) as task:
                found = told.read_object(await task.result(), "tokenize")
                context = self._longest(task.stream.model or request[MODEL])
                return await _write(request, task, told.tokenized(found, fields, context))

    @described(forms.DETOKENIZE)
    async def detokenize(self, request: web.BaseRequest) -> web.StreamResponse:
        """The text of tokens, in the forms of vLLM and llama.cpp."""
        with self._room.share() as share:
            came, fields, members = await self._read(request, share, detokenize_decoder, "detokenize")
            with await self._opened(came, "detokenize", Asked(fields.model, members)) as task:
                return await _write(
                    request, task, told.detokenized(told.read_object(await task.result(), "detokenize"))
                )

    @described(forms.TRANSCRIPTION)
    async def transcription(self, request: web.BaseRequest) -> web.StreamResponse:
        """The text of a file with speech, sent as a form."""
        with self._room.share() as share:
            body = await read_body(request, self._max_body_bytes, self._body_timeout, any_type=True, share=share)
            # A file may be large: the event loop runs between the looks at it.
            form = read_form(body, request.headers.get("Content-Type", ""))
            del body
            await asyncio.sleep(0)
            asked = asked_transcription(form)
            del form
            await asyncio.sleep(0)
            came = _Request(request, share, await self._digest(request, asked))
            with await self._opened(came, "transcription", asked) as task:
                chunk = await task.result()
                found = told.read_object(chunk, "transcription")
                return await _write(request, task, told.transcribed(found, told.usage_of(chunk)))

    @described(forms.SPEECH)
    async def speech(self, request: web.BaseRequest) -> web.StreamResponse:
        """Sound that says a text."""
        with self._room.share() as share:
            came, fields, members = await self._read(request, share, speech_decoder, "speech")
            with await self._opened(came, "speech", Asked(fields.model, members)) as task:
                return await _write(request, task, told.spoken(told.read_object(await task.result(), "speech")))

    @described(forms.IMAGE)
    async def image(self, request: web.BaseRequest) -> web.StreamResponse:
        """Images of what a prompt describes."""
        with self._room.share() as share:
            came, fields, members = await self._read(request, share, image_decoder, "image")
            with await self._opened(came, "image", asked_image(fields, members)) as task:
                chunk = await task.result()
                found = told.read_object(chunk, "image")
                return await _write(request, task, told.drawn(found, told.usage_of(chunk)))

    async def _read(
        self, request: web.BaseRequest, share: BodyShare, decoder: msgspec.json.Decoder[Fields], kind: WholeKind
    ) -> tuple[_Request, Fields, Object]:
        body = await read_body(request, self._max_body_bytes, self._body_timeout, share=share)
        fields, members = await check_members(decoder, body, self._max_body_bytes)
        digest = digest_of(kind, body, False) if KEY in request.headers else b""
        return _Request(request, share, digest), fields, members

    async def _digest(self, request: web.BaseRequest, asked: Asked) -> bytes:
        """What tells a form apart from others, whose boundaries are never the same; empty where nobody asks for it."""
        if KEY not in request.headers:
            return b""
        written = _encode(asked.body)
        await asyncio.sleep(0)
        return await asyncio.to_thread(digest_of, "transcription", written, False)

    async def _opened(self, came: _Request, kind: WholeKind, asked: Asked) -> AbstractContextManager[OpenedTask]:
        """The task, as a context; its body is let go of."""
        request = came.http
        headers = headers_here(request, f"a task of the kind {kind}")
        caller = self._callers.still(request)
        request[MODEL] = model = asked.model or self._default_model.of(kind, caller)
        body = {**asked.body, "model": model}
        asked.body.clear()
        text, outline = await translated(body, self._max_body_bytes, came.share, "for the engine")
        submission = headers.submission(kind, model, text, False, caller, outline)
        return opened(request, self._context, self._once, submission, headers, came.digest)

    def _longest(self, model: str) -> int:
        """The longest context of a model that an agent tells, 0 where none does."""
        return max((offer.context for _, offer in self._context.offers().get(model, ())), default=0)


async def _write(request: web.BaseRequest, task: OpenedTask, answer: Object | told.Bytes) -> web.StreamResponse:
    if isinstance(answer, told.Bytes):
        return await write_answer(request, answer.data, answer.content_type, task.headers())
    return await write_answer(request, _encode(answer), JSON, task.headers())
