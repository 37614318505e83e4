"""``POST chat`` and ``generate``: a task for each, answered whole or as server-sent events."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from aiohttp import web

from anywire.context import Context
from anywire.errors import AnywireError
from anywire.messages import Chunk
from anywire.task_stream import TaskStream
from anywire_gateway_openai.answers import split
from anywire_gateway_openai.body import read_body
from anywire_gateway_openai.caller import Callers
from anywire_gateway_openai.default_model import DefaultModel
from anywire_gateway_openai.errors import as_anywire
from anywire_gateway_openai.reading import next_chunks
from anywire_gateway_openai.sse import EventEncoder
from anywire_gateway_openai.streamed_answer import StreamedAnswer
from anywire_gateway_predecessor.config import PredecessorGatewayConfig
from anywire_gateway_predecessor.finished import Finished, Record
from anywire_gateway_predecessor.replies import as_failed, error_json, reply
from anywire_gateway_predecessor.requests import Asked, Members, asked, members_of, with_prompt

_encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, Any])


class Chats:
    """``finished`` gets every task that has ended."""

    def __init__(
        self,
        context: Context,
        callers: Callers,
        config: PredecessorGatewayConfig,
        default: DefaultModel,
        finished: Finished,
    ) -> None:
        self._context, self._callers, self._config = context, callers, config
        self._default, self._finished = default, finished

    async def chat(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._answer(request, await self._members(request), _chat_answer)

    async def generate(self, request: web.BaseRequest) -> web.StreamResponse:
        """A prompt, which is asked as the one message of a chat."""
        return await self._answer(request, with_prompt(await self._members(request)), _generate_answer)

    async def _members(self, request: web.BaseRequest) -> Members:
        # Existing clients name no media type, or another one.
        return members_of(
            await read_body(request, self._config.max_body_bytes, self._config.body_timeout, any_type=True)
        )

    async def _answer(self, request: web.BaseRequest, members: Members, form: Any) -> web.StreamResponse:
        caller = self._callers.still(request)
        wanted = await asked(members, self._default, caller, self._config.max_body_bytes)
        began = time.monotonic()
        stream = self._context.submit(wanted.submission)
        record = Record(stream.task_id, wanted.task_type, wanted.submission.caller)
        texts: list[str] = []
        try:
            if wanted.submission.stream:
                return await self._stream(request, wanted, stream, record, texts)
            chunk = await stream.result()
            text = text_of(chunk)
            self._finished.add(record, "completed", text)
            took_ms = round((time.monotonic() - began) * 1e3)
            return reply(form(stream, wanted, chunk, text, took_ms))
        except AnywireError as error:
            stream.cancel(error.message)
            self._finished.add(record, "failed", "".join(texts), error.message)
            raise
        except BaseException as error:
            stream.cancel(f"the client went away ({error})" if str(error) else "the client went away")
            self._finished.add(record, "cancelled", "".join(texts))
            raise

    async def _stream(
        self, request: web.BaseRequest, wanted: Asked, stream: TaskStream, record: Record, texts: list[str]
    ) -> web.StreamResponse:
        answer = StreamedAnswer(request, stream, self._config.write_timeout, self._config.keep_alive)
        try:
            chunks = await next_chunks(stream)
            events = EventEncoder("chat", stream.task_id, stream.model or wanted.model, include_usage=False)
            while True:
                texts.extend(text for chunk in chunks for text in chunk.deltas)
                data = events.events(chunks)
                if events.ended:
                    break
                await answer.write(data)
                chunks = await next_chunks(stream)
            self._finished.add(record, "completed", "".join(texts))
        except ConnectionError:
            raise
        except Exception as error:
            if not answer.begun:
                raise  # it gets a status of its own
            fault = as_anywire(error, stream.task_id)
            stream.cancel(fault.message)
            self._finished.add(record, "failed", "".join(texts), fault.message)
            data = b"data: " + _encode(error_json(as_failed(fault))) + b"\n\n"
        finally:
            answer.close()
        await answer.write(data, last=True)
        return answer.response()


class _Message(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message = _Message()


_said = msgspec.json.Decoder(list[_Choice])


def text_of(chunk: Chunk) -> str:
    """The text of a whole answer; of one with several choices the first."""
    text = "".join(chunk.deltas)
    if not text and chunk.extra:
        try:
            text = _said.decode(split(chunk.extra)[0])[0].message.content or ""
        except (AnywireError, msgspec.MsgspecError, LookupError, RecursionError):
            text = ""
    return text.encode(errors="replace").decode() if isinstance(text, str) else ""


def usage_of(chunk: Chunk) -> dict[str, int]:
    try:
        told = _object.decode(chunk.usage) if chunk.usage else {}
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        told = {}
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {name: told[name] if isinstance(told.get(name), int) else 0 for name in names}


def _chat_answer(stream: TaskStream, wanted: Asked, chunk: Chunk, text: str, took_ms: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": stream.task_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": stream.model or wanted.model,
        "choices": [{"index": 0, "message": message, "finish_reason": chunk.finish_reason or "stop"}],
        "usage": usage_of(chunk),
        "agent_id": stream.agent_id,
        "processing_time_ms": took_ms,
    }


def _generate_answer(stream: TaskStream, wanted: Asked, chunk: Chunk, text: str, took_ms: int) -> dict[str, Any]:
    return {
        "response": text,
        "success": True,
        "task_id": stream.task_id,
        "model": stream.model or wanted.model,
        "agent_id": stream.agent_id,
        "processing_time_ms": took_ms,
    } | usage_of(chunk)
