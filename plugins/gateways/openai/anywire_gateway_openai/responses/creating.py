"""``POST responses``: a response to new items and all that was said before, whole or as typed events.

The history comes from the service ``conversations`` (`anywire.conversations`), and goes to the engine as the messages
of one chat. What was answered is kept there before the client is told that it is whole.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from functools import partial
from time import perf_counter

import msgspec
from aiohttp import web

from anywire.background import key_reused
from anywire.context import Context
from anywire.conversations import SERVICE, Conversations, KeptResponse
from anywire.errors import InvalidRequest
from anywire.messages import Progress
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire_gateway_openai.answers import task_id_of
from anywire_gateway_openai.body import BodyRoom, BodyShare, read_body
from anywire_gateway_openai.caller import Callers
from anywire_gateway_openai.catalogue import json_response
from anywire_gateway_openai.default_model import DefaultModel
from anywire_gateway_openai.errors import as_anywire, error_code
from anywire_gateway_openai.headers import answer_headers, stages_text
from anywire_gateway_openai.notes import ERROR, FIRST, HEADERS, MODEL, TASK
from anywire_gateway_openai.openapi import answer_types
from anywire_gateway_openai.openapi.form import Form, described
from anywire_gateway_openai.reading import ProgressReader, Read, next_chunks
from anywire_gateway_openai.request_headers import task_headers
from anywire_gateway_openai.responses.answer import answered
from anywire_gateway_openai.responses.background import BackgroundResponses
from anywire_gateway_openai.responses.events import ResponseEvents
from anywire_gateway_openai.responses.replay import replayed
from anywire_gateway_openai.responses.request import (
    REFUSED,
    Object,
    ResponseRequest,
    asked,
    check_references,
    decoder,
    referred,
)
from anywire_gateway_openai.responses.turn import NOTHING_BEFORE, Turn
from anywire_gateway_openai.sse import progress_comment, stages_comment
from anywire_gateway_openai.streamed_answer import StreamedAnswer
from anywire_gateway_openai.tasks import cancel_for, nothing, tell_whose, telling_decision
from anywire_gateway_openai.validation import check_members
from anywire_gateway_openai.wire import EventStreamWriter, WrittenResponse, write_json

_encode = msgspec.json.Encoder().encode
_FORM = Form(
    takes=ResponseRequest,
    refuses=REFUSED,
    gives=answer_types.Response,
    events=answer_types.ResponseEvent,
    is_task=True,
)


class ResponseHandler:
    """What creates responses. A client that goes away cancels its task, and nothing of it is kept."""

    def __init__(
        self,
        context: Context,
        callers: Callers,
        default_model: DefaultModel,
        background: BackgroundResponses,
        *,
        max_body_bytes: int,
        body_timeout: float,
        write_timeout: float,
        keep_alive: float,
        room: BodyRoom,
    ) -> None:
        self._context, self._callers, self._default_model = context, callers, default_model
        self._background, self._room = background, room
        self._max_body_bytes, self._body_timeout = max_body_bytes, body_timeout
        self._write_timeout, self._keep_alive = write_timeout, keep_alive
        self._keys: set[str] = set()
        """Of the requests with an ``Idempotency-Key`` that are under way."""

    @described(_FORM)
    async def create(self, request: web.BaseRequest) -> web.StreamResponse:
        """A response to `input`, after a conversation or an earlier response; with ``"stream": true`` as events."""
        with self._room.share() as share:
            body = await read_body(request, self._max_body_bytes, self._body_timeout, share=share)
            fields, members = await check_members(decoder, body, self._max_body_bytes)
            headers = task_headers(request.headers)
            if headers.background:
                raise InvalidRequest(
                    "a response runs in the background with `background: true` in its body: leave the header "
                    "x-anywire-background out",
                    param="x-anywire-background",
                )
            caller = self._callers.still(request)
            conversations = self._conversations(fields)
            names = referred(fields)
            references = await conversations.items(names, caller) if conversations is not None and names else {}
            check_references(names, references, self._max_body_bytes)
            checked = asked(fields, members, references)
            stores = conversations is not None and fields.store is not False
            if headers.idempotency_key and (conversations is None or not stores):
                raise InvalidRequest(
                    "a response that is not kept cannot be repeated: leave Idempotency-Key out, or store it",
                    param="idempotency-key",
                )
            turn = Turn(checked, caller, headers, conversations, stores)
            if headers.idempotency_key:
                who = caller.id or self._callers.client(request).address
                key = "\n".join((who, caller.tenant, headers.idempotency_key))
                turn = turn._replace(key=key, digest=hashlib.sha256(body).digest())
            if turn.key and conversations is not None:
                return await self._once(request, turn, conversations, share)
            return await self._occupied(request, turn, share)

    def _conversations(self, fields: ResponseRequest) -> Conversations | None:
        found: Conversations | None = self._context.services.get(SERVICE)
        if found is not None:
            return found
        needing: dict[str, object] = {
            "previous_response_id": fields.previous_response_id,
            "conversation": fields.conversation_id,
            "background": fields.background,
            "store": fields.store,
        }
        for name, value in needing.items():
            if value:
                raise InvalidRequest(
                    f"{name}: no conversations are kept here: configure the service conversations "
                    "(services: [conversations])",
                    param=name,
                )
        return None

    async def _once(
        self, request: web.BaseRequest, turn: Turn, conversations: Conversations, share: BodyShare
    ) -> web.StreamResponse:
        """Answer a request with an ``Idempotency-Key``: with the response that an earlier one got, if there is one."""
        found = await conversations.by_key(turn.key)
        if found is not None:
            kept, digest = found
            if not hmac.compare_digest(digest, turn.digest):
                raise key_reused()
            request[HEADERS] = (*request.get(HEADERS, ()), ("x-anywire-replayed", "true"))
            response = self._background.as_it_is(kept)
            if turn.asked.fields.stream:
                return await write_events(request, replayed(response), self._write_timeout)
            return json_response(response)
        if turn.key in self._keys:
            raise InvalidRequest(
                "an earlier request with this Idempotency-Key is being answered: try again",
                param="idempotency-key",
                status=409,
                detail_code="idempotency_key_in_use",
                retry_after=1.0,
            )
        self._keys.add(turn.key)
        try:
            return await self._occupied(request, turn, share)
        finally:
            self._keys.discard(turn.key)

    async def _occupied(self, request: web.BaseRequest, turn: Turn, share: BodyShare) -> web.StreamResponse:
        """Answer a request after its history, while nobody else goes on with its conversation."""
        fields, conversations = turn.asked.fields, turn.conversations
        previous, conversation = fields.previous_response_id or "", fields.conversation_id
        release: Callable[[], None] = nothing
        if conversation and conversations is not None:
            await conversations.check_conversation(conversation, turn.caller)
            release = conversations.occupy(conversation)
        try:
            if conversations is not None and (previous or conversation):
                history = await conversations.history(turn.caller, previous=previous, conversation=conversation)
                turn = turn._replace(history=history)
            request[MODEL] = model = fields.model or self._default_model.of("chat", turn.caller)
            turn = turn._replace(model=model)
            submission = await turn.submission(self._max_body_bytes, share)
            turn = turn._replace(history=NOTHING_BEFORE)  # it may be large, and an answer may take long
            if fields.background:
                taken, release = release, nothing
                response = await self._taken(turn, submission, taken)
                told = [("x-anywire-task", task_id_of(response["id"]))]
                if turn.asked.ignored:
                    told.append(("x-anywire-ignored", ", ".join(turn.asked.ignored)))
                request[HEADERS] = (*request.get(HEADERS, ()), *told)
                return json_response(response)
            return await self._answer(request, turn, submission)
        finally:
            release()

    async def _taken(self, turn: Turn, submission: Submission, release: Callable[[], None]) -> Object:
        """A response that runs in the background, once it is kept. ``release`` is called when it has ended."""

        def begun(task_id: str) -> KeptResponse:
            return turn.kept(turn.head(task_id), ended=False)

        return await self._background.take(submission, begun, turn.key, turn.digest, release)

    async def _answer(self, request: web.BaseRequest, turn: Turn, submission: Submission) -> web.StreamResponse:
        stream = self._context.submit(submission)
        request[TASK] = stream
        explain = telling_decision(self._context, request, stream, turn.caller) if turn.headers.explain else nothing
        try:
            if submission.stream:
                events = ResponseEvents(turn.head(stream.task_id), stream.task_id)
                if not turn.headers.progress:
                    return await self._stream(request, turn, events, stream, partial(next_chunks, stream), explain)
                progress = ProgressReader(stream)
                try:
                    return await self._stream(request, turn, events, stream, progress.next, explain)
                finally:
                    progress.close()
            chunk = await stream.result()
            explain()
            model = stream.model or turn.model
            response = answered(turn.head(stream.task_id), stream.task_id, model, chunk)
            await turn.keep(response)
            stages = ("x-anywire-stages", stages_text(stream.stages))
            headers = [*answer_headers(stream, turn.asked.ignored), stages]
            return await write_json(request, _encode(response), headers)
        except BaseException as error:
            cancel_for(stream, error)
            tell_whose(error, stream, explain)
            raise

    async def _stream(
        self,
        request: web.BaseRequest,
        turn: Turn,
        events: ResponseEvents,
        stream: TaskStream,
        read: Read,
        explain: Callable[[], None],
    ) -> web.StreamResponse:
        answer = StreamedAnswer(request, stream, self._write_timeout, self._keep_alive, turn.asked.ignored)
        try:
            while events.response is None:
                step = await read()
                if isinstance(step, Progress):
                    data = progress_comment(step)
                else:
                    data = events.events(step, stream.model or turn.model)
                    if FIRST not in request:
                        request[FIRST] = perf_counter()
                        explain()
                await answer.write(data)
            await turn.keep(events.response)
            data = events.completed()
            if turn.headers.stages:
                data = stages_comment(stream.stages.spans_ms()) + data
        except ConnectionError:
            raise
        except Exception as error:
            if not answer.begun:
                raise  # it gets a status of its own
            fault = as_anywire(error, stream.task_id)
            stream.cancel(fault.message)
            request[ERROR] = error_code(fault)
            data = events.failed(fault)
            del fault  # it refers to this frame
        finally:
            answer.close()
        await answer.write(data, last=True)
        return answer.response()


async def write_events(request: web.BaseRequest, events: bytes, timeout: float) -> web.StreamResponse:
    """Answer with events that are there already."""
    writer = EventStreamWriter(request, (), timeout)
    if not writer.wants_events:
        return writer.end_head()
    await writer.write(events, last=True)
    return WrittenResponse(writer.keep_alive)
