"""``POST messages`` and ``POST messages/count_tokens``: Anthropic's Messages API, each message a chat to engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
from aiohttp import web
from msgspec import UNSET

from anywire.context import Context
from anywire.errors import InvalidRequest, ModelNotFound
from anywire.messages import Chunk, Progress
from anywire.native_api import BETAS, BETAS_HEADER, COUNT_TOKENS, MEMBER, MESSAGES, are_betas, marked
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire_gateway_openai.anthropic import forms
from anywire_gateway_openai.anthropic.answer import whole_message
from anywire_gateway_openai.anthropic.counting import estimated_tokens
from anywire_gateway_openai.anthropic.events import PING, MessageEvents, failed
from anywire_gateway_openai.anthropic.native import NativeEvents, is_native, is_spoken, native_count, native_message
from anywire_gateway_openai.anthropic.request import MessageRequest, asked, decoder, refuse_thread
from anywire_gateway_openai.body import BodyRoom, BodyShare, read_body
from anywire_gateway_openai.caller import Callers
from anywire_gateway_openai.catalogue import json_response
from anywire_gateway_openai.default_model import DefaultModel
from anywire_gateway_openai.headers import answer_headers
from anywire_gateway_openai.idempotency import KeptAnswers, digest_of
from anywire_gateway_openai.notes import HEADERS, MODEL, TASK
from anywire_gateway_openai.once import Once
from anywire_gateway_openai.openapi.form import described
from anywire_gateway_openai.opened_task import OpenedTask, opened
from anywire_gateway_openai.reading import ProgressReader, Read
from anywire_gateway_openai.request_headers import TaskHeaders, task_headers
from anywire_gateway_openai.sse import progress_comment
from anywire_gateway_openai.streamed_answer import StreamedAnswer
from anywire_gateway_openai.tasks import cancel_for, nothing, tell_whose
from anywire_gateway_openai.translated_body import translated
from anywire_gateway_openai.validation import CheckedFields, check_fields, members_of
from anywire_gateway_openai.whole.tokenizers import counting, is_tokenized, token_count
from anywire_gateway_openai.wire import write_json

ESTIMATED = "x-anywire-estimated"
"""The header of a count that no tokenizer has made."""

_encode = msgspec.json.Encoder().encode


class _Turn(NamedTuple):
    """A request for a message on its way. ``ignored`` are its members without effect."""

    submission: Submission
    headers: TaskHeaders
    stop_sequences: tuple[str, ...]
    ignored: tuple[str, ...]
    digest: bytes = b""


class MessageHandlers:
    """A client that goes away cancels its task, as with chats."""

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
    ) -> None:
        self._context, self._callers, self._default_model = context, callers, default_model
        self._once, self._room = Once(context, callers, kept), room
        self._max_body_bytes, self._body_timeout = max_body_bytes, body_timeout
        self._write_timeout, self._keep_alive = write_timeout, keep_alive

    @described(forms.MESSAGE)
    async def create(self, request: web.BaseRequest) -> web.StreamResponse:
        """A message in Anthropic's form; with ``"stream": true`` as events."""
        with self._room.share() as share:
            body = await read_body(request, self._max_body_bytes, self._body_timeout, share=share)
            return await self._answer(request, await self._turn(request, body, share))

    @described(forms.COUNT)
    async def count_tokens(self, request: web.BaseRequest) -> web.StreamResponse:
        """How many tokens a message's prompt has, in Anthropic's form; an estimate says that it is one."""
        with self._room.share() as share:
            body = await read_body(request, self._max_body_bytes, self._body_timeout, share=share)
            checked = await check_fields(decoder, body, self._max_body_bytes)
            headers = task_headers(request.headers)
            caller = self._callers.still(request)
            request[MODEL] = model = checked.fields.model or self._default_model.of("chat", caller)
            if not checked.fields.models and is_spoken(self._context, caller, model):
                text, outline = _left_as_it_is(request, checked, COUNT_TOKENS)
                return await self._counted(request, headers.submission("chat", model, text, False, caller, outline))
            if model not in self._context.offers(caller):
                raise ModelNotFound(f"the model {model!r} is not served by any agent", param="model")
            found = asked(*await members_of(decoder, checked), counts_alone=True)
            if is_tokenized(self._context, caller, model):
                most = self._max_body_bytes
                text, outline = await translated(counting(found.chat, model), most, share, "as a chat")
                submission = headers.submission("tokenize", model, text, False, caller, outline)
                return await self._counted(request, submission, token_count, found.ignored)
            told = [(ESTIMATED, "true")]
            if found.ignored:
                told.append(("x-anywire-ignored", ", ".join(found.ignored)))
            request[HEADERS] = (*request.get(HEADERS, ()), *told)
            return json_response({"input_tokens": estimated_tokens(found.chat), "estimated": True})

    async def _counted(
        self,
        request: web.BaseRequest,
        submission: Submission,
        count_of: Callable[[Chunk], int] = native_count,
        ignored: tuple[str, ...] = (),
    ) -> web.StreamResponse:
        """The count of a server that could answer the message."""
        request[TASK] = stream = self._context.submit(submission)
        try:
            count = count_of(await stream.result())
        except BaseException as error:
            cancel_for(stream, error)
            tell_whose(error, stream, nothing)
            raise
        return await write_json(request, _encode({"input_tokens": count}), answer_headers(stream, ignored))

    async def _turn(self, request: web.BaseRequest, body: bytes, share: BodyShare) -> _Turn:
        checked = await check_fields(decoder, body, self._max_body_bytes)
        fields = checked.fields
        headers = task_headers(request.headers)
        if headers.background:
            raise InvalidRequest(
                "a message does not run in the background: ask chat/completions, or leave the header out",
                param="x-anywire-background",
            )
        caller = self._callers.still(request)
        request[MODEL] = model = fields.model or self._default_model.of("chat", caller)
        stop_sequences: tuple[str, ...] = ()
        ignored: tuple[str, ...] = ()
        if not fields.models and is_spoken(self._context, caller, model):
            text, outline = _left_as_it_is(request, checked, MESSAGES)
        else:
            found = asked(*await members_of(decoder, checked))
            ignored, stop_sequences = found.ignored, found.stop_sequences
            chat = {"model": model, **found.chat}
            text, outline = await translated(chat, self._max_body_bytes, share, "as a chat")
        digest = digest_of("message", body, False) if headers.idempotency_key else b""
        submission = headers.submission("chat", model, text, bool(fields.stream), caller, outline)
        return _Turn(submission, headers, stop_sequences, ignored, digest)

    async def _answer(self, request: web.BaseRequest, turn: _Turn) -> web.StreamResponse:
        submission, headers = turn.submission, turn.headers
        with opened(request, self._context, self._once, submission, headers, turn.digest) as task:
            if submission.stream:
                if not headers.progress or task.reader is not None:
                    return await self._stream(request, turn, task, task.chunks)
                progress = ProgressReader(task.stream)
                try:
                    return await self._stream(request, turn, task, progress.next)
                finally:
                    progress.close()
            chunk, stream = await task.result(), task.stream
            message = _message(chunk, stream.task_id, stream.model or submission.model, turn.stop_sequences)
            return await write_json(request, message, task.headers(turn.ignored))

    async def _stream(self, request: web.BaseRequest, turn: _Turn, task: OpenedTask, read: Read) -> web.StreamResponse:
        answer = StreamedAnswer(
            request, task.stream, self._write_timeout, self._keep_alive, turn.ignored, keep_alive=PING
        )
        encoder = _Encoder(turn, task.stream)
        return await answer.write_all(read, encoder, first=task.explain, failed=failed, cancel=task.cancel)


class _Encoder:
    """Encodes what is read of a stream. How that is to be done is known with its first chunks, and so is the model that
    answers."""

    def __init__(self, turn: _Turn, stream: TaskStream) -> None:
        self._turn, self._stream = turn, stream
        self._events: MessageEvents | NativeEvents | None = None

    @property
    def ended(self) -> bool:
        """Whether the final chunk is encoded."""
        return self._events is not None and self._events.ended

    def encode(self, step: list[Chunk] | Progress) -> bytes:
        if isinstance(step, Progress):
            return progress_comment(step)
        stream, turn = self._stream, self._turn
        if self._events is None:
            if is_native(step[0]):
                self._events = NativeEvents(stream.task_id)
            else:
                self._events = MessageEvents(stream.task_id, turn.stop_sequences)
        spans = stream.stages.spans_ms() if turn.headers.stages and step[-1].final else None
        return self._events.events(step, stream.model or turn.submission.model, spans)


def _message(chunk: Chunk, task_id: str, model: str, stop_sequences: tuple[str, ...]) -> bytes:
    if is_native(chunk):
        return native_message(chunk, task_id, model)
    return _encode(whole_message(task_id, model, chunk, stop_sequences))


def _left_as_it_is(request: web.BaseRequest, checked: CheckedFields[MessageRequest], endpoint: str) -> tuple[str, str]:
    """The body of a task that an engine passes on, and its outline. Raises `InvalidRequest`."""
    for name in (MEMBER, BETAS):
        if getattr(checked.fields, name) is not UNSET:  # it would stand there twice
            raise InvalidRequest(f"{name} must be left out", param=name)
    refuse_thread(checked.fields)  # ids of messages are the gateway's: the server would not know the one to go on from
    betas = ",".join(request.headers.getall(BETAS_HEADER, ()))
    if betas and not are_betas(betas):
        raise InvalidRequest(
            f"header {BETAS_HEADER} must be names of letters, digits, dots and dashes, separated by commas",
            param=BETAS_HEADER,
        )
    outline = marked(checked.outline, endpoint, betas) if checked.outline else ""
    return marked(checked.text, endpoint, betas), outline
