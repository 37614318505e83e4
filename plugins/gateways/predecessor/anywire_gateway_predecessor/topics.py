"""Clients of the predecessor over DDS: the topics ``client/request`` and ``client/response``."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

import msgspec
import pydantic
from msgspec import Raw

from anywire.caller import Caller
from anywire.context import Context
from anywire.errors import AnywireError, ConfigError, InvalidRequest, QueueFull
from anywire.once_log import OnceLog
from anywire_dds.cdr import Malformed
from anywire_dds.endpoints import BATCH, FINAL_MESSAGES_TIMEOUT, on_thread
from anywire_dds.llama_ends import LlamaDdsOptions, LlamaEnds
from anywire_gateway_openai.default_model import DefaultModel
from anywire_gateway_predecessor import topic_types
from anywire_gateway_predecessor.chats import text_of, usage_of
from anywire_gateway_predecessor.config import PredecessorGatewayConfig
from anywire_gateway_predecessor.requests import Members, asked
from anywire_gateway_predecessor.topic_types import (
    REQUEST_TOPIC,
    RESPONSE_TOPIC,
    ClientRequest,
    ClientResponse,
    pack,
    unpack,
)

log = logging.getLogger(__name__)

CALLER = Caller("dds")
"""The wire vouches for nobody: the least of roles."""
ACK_WAIT = 1.0
"""Seconds that a reader which acknowledges nothing is waited for before it is tried again."""
MAX_WAITING = 4096
"""Responses that wait for room in Cyclone; of requests that come then the answer is an error."""

_messages = msgspec.json.Decoder(list[Raw])
_encode = msgspec.json.Encoder().encode


class Topics:
    """Open from its making on. Raises `ConfigError` and `TransportUnavailable`."""

    def __init__(self, context: Context, config: PredecessorGatewayConfig, default: DefaultModel) -> None:
        self._context, self._default, self._limit = context, default, config.max_in_flight
        self._grace, self._max_bytes = config.shutdown_grace, config.max_body_bytes
        self._loop = asyncio.get_running_loop()
        self._once = OnceLog(log)
        self._serving: set[asyncio.Task[None]] = set()
        self._waiting: deque[bytes] = deque()
        self._retry: asyncio.Task[None] | None = None
        self._closing = False
        try:
            options = LlamaDdsOptions(**(config.dds or {}))
        except (pydantic.ValidationError, TypeError) as error:
            raise ConfigError(f"gateways.predecessor.dds: {error}") from error
        self._ends = LlamaEnds(options, topic_types)
        self._writer = self._ends.writer(RESPONSE_TOPIC)
        self._take = self._ends.read(REQUEST_TOPIC, self._on_requests)

    def finish(self) -> None:
        """Take no more requests."""
        self._closing = True

    async def close(self) -> None:
        if self._serving:
            _, late = await asyncio.wait(self._serving, timeout=self._grace + FINAL_MESSAGES_TIMEOUT)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._retry is not None:
            self._retry.cancel()
            await asyncio.gather(self._retry, return_exceptions=True)
        await on_thread(lambda: self._writer.wait_acknowledged(FINAL_MESSAGES_TIMEOUT))
        await self._ends.close()

    def _on_requests(self) -> None:
        samples = self._take()
        for data, info in samples:
            if not info.valid_data or self._closing:
                continue
            try:
                request = unpack(data)
            except Malformed as error:
                self._once.warn("unreadable", "unreadable requests are ignored: %s", error)
                continue
            task = self._loop.create_task(self._serve(request, len(self._serving)))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        if len(samples) == BATCH:
            self._loop.call_soon(self._on_requests)

    async def _serve(self, request: ClientRequest, others: int) -> None:
        began = self._loop.time()
        response = ClientResponse(request.request_id, request.client_id, "", True, 0, 0, 0, True, "")
        try:
            if others >= self._limit or len(self._waiting) >= MAX_WAITING:
                raise QueueFull(f"{others} requests are under way already (max_in_flight); try again later")
            await self._relay(request, response)
        except AnywireError as error:
            response.success, response.error_message = False, f"{error.code}: {error.message}"
        except Exception:
            log.exception("request %r failed", request.request_id)
            response.success, response.error_message = False, "internal error; the orchestrator's log has more"
        response.processing_time_ms = round((self._loop.time() - began) * 1e3)
        self._write(response)

    async def _relay(self, request: ClientRequest, response: ClientResponse) -> None:
        """Write the chunks of a stream, and make ``response`` the final one."""
        wanted = await asked(_members(request), self._default, CALLER, self._max_bytes)
        stream = self._context.submit(wanted.submission)
        try:
            if wanted.submission.stream:
                final = None
                while final is None:
                    chunks = await stream.take()
                    text = "".join(delta for chunk in chunks for delta in chunk.deltas)
                    final = next((chunk for chunk in chunks if chunk.final), None)
                    if text and final is None:
                        self._write(
                            ClientResponse(request.request_id, request.client_id, text, False, 0, 0, 0, True, "")
                        )
                response.content = text
            else:
                final = await stream.result()
                response.content = text_of(final)
            usage = usage_of(final)
            response.prompt_tokens, response.completion_tokens = usage["prompt_tokens"], usage["completion_tokens"]
        finally:
            stream.cancel("the client went away")

    def _write(self, response: ClientResponse) -> None:
        self._waiting.append(pack(response))
        self._flush()

    def _flush(self) -> None:
        while self._waiting and (self._retry is None or self._retry.done()):
            try:
                if not self._writer.write(self._waiting[0]):
                    self._retry = self._loop.create_task(self._wait())
                    return
            except AnywireError as error:
                self._once.warn("write", "a response could not be written: %s", error)
            self._waiting.popleft()

    async def _wait(self) -> None:
        await on_thread(lambda: self._writer.wait_acknowledged(ACK_WAIT))
        self._loop.call_soon(self._flush)


def _members(request: ClientRequest) -> Members:
    """The request as the same one over HTTP."""
    try:
        _messages.decode(request.messages_json)  # one JSON value, which may be put into another one
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"messages_json is no JSON list of messages: {error}") from error
    members: dict[str, Any] = {
        "priority": request.priority,
        "timeout_ms": max(request.timeout_ms, 0),
        "task_type": request.task_type[:64] or "chat",
        "stream": request.stream,
        "max_tokens": request.max_tokens,
    }
    if request.temperature >= 0:  # false for NaN too
        members["temperature"] = min(float(f"{request.temperature:.7g}"), 2.0)
    encoded = {name: Raw(_encode(value)) for name, value in members.items()}
    return encoded | {"messages": Raw(request.messages_json.strip().encode())}
