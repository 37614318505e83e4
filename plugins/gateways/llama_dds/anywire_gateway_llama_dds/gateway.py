"""The gateway as the framework sees it: requests taken, tasks submitted, its status told, its life."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, ClassVar

import msgspec

from anywire.access import check_keyless
from anywire.caller import ANYBODY, Caller
from anywire.context import Context
from anywire.errors import AnywireError, NoAgent, QueueFull
from anywire.gateway import Gateway
from anywire.messages import Chunk
from anywire.once_log import OnceLog
from anywire_dds.cdr import Malformed
from anywire_dds.endpoints import BATCH, FINAL_MESSAGES_TIMEOUT, on_thread
from anywire_dds.llama_ends import LlamaEnds
from anywire_dds.llama_text import mended_request
from anywire_dds.llama_types import (
    ERROR,
    REQUEST_TOPIC,
    RESPONSE_TOPIC,
    STATUS_TOPIC,
    ChatCompletionRequest,
    ServerStatus,
    error_text,
    gateway_id,
    pack,
    unpack,
)
from anywire_gateway_llama_dds.answers import Answer, Answers
from anywire_gateway_llama_dds.clients import Clients
from anywire_gateway_llama_dds.config import LlamaDdsGatewayConfig
from anywire_gateway_llama_dds.requests import submission

log = logging.getLogger(__name__)

REMEMBERED = 65536
"""Requests that are known again when they come a second time."""
ANY = "*"
"""In the setting ``models``: every name that is neither listed nor served."""
READER_WAIT = 2.0
"""Seconds in which the reader of responses of a client that has asked is to be heard of; then it may be that
another participant reads them for it."""


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


_usage = msgspec.json.Decoder(_Usage)


class LlamaDdsGateway(Gateway):
    name: ClassVar[str] = "llama_dds"
    Config = LlamaDdsGatewayConfig
    config: LlamaDdsGatewayConfig

    def __init__(self, config: LlamaDdsGatewayConfig) -> None:
        super().__init__(config)
        self._ends: LlamaEnds | None = None
        self._closing = False
        self._once = OnceLog(log)
        self._seen: OrderedDict[tuple[Hashable, str | bytes], None] = OrderedDict()
        self._serving: dict[asyncio.Task[None], Hashable] = {}
        self._beat: asyncio.TimerHandle | None = None

    async def start(self, context: Context) -> None:
        config = self.config
        check_keyless(context.access, self.name, "DDS", config.keyless)
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._server_id = config.server_id or gateway_id(context.info.hub_id)
        self._ends = ends = LlamaEnds(config)
        try:
            self._clients = Clients(ends, self._gone)
            self._responses = ends.writer(RESPONSE_TOPIC)
            self._answers = Answers(
                self._responses,
                config.reader_pause,
                config.ack_wait,
                config.chunk_interval,
                lambda: self._clients.count <= 1,
            )
            self._status = ends.writer(STATUS_TOPIC)
            self._take = ends.read(REQUEST_TOPIC, self._on_requests)
        except BaseException:
            await ends.close()
            raise
        self._stop_listening = context.listen(self._tell)
        self._heartbeat()

    @property
    def is_local(self) -> bool:
        return self.config.is_local

    async def close(self) -> None:
        """Take no more requests, give running ones ``shutdown_grace`` seconds, then end them."""
        if self._ends is None or self._closing:
            return
        self._closing = True
        self._stop_listening()
        self._tell()
        if self._serving:
            _, late = await asyncio.wait(self._serving, timeout=self.config.shutdown_grace + FINAL_MESSAGES_TIMEOUT)
            if late:
                log.warning("%d requests still run after %g s and are ended", len(late), self.config.shutdown_grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._beat is not None:
            self._beat.cancel()
        self._answers.close()
        await on_thread(lambda: self._responses.wait_acknowledged(FINAL_MESSAGES_TIMEOUT))
        await self._ends.close()

    @property
    def address(self) -> str:
        return f"dds://{self.config.domain}/{REQUEST_TOPIC}"

    # Requests

    def _on_requests(self) -> None:
        samples = self._take()
        for data, info in samples:
            if info.valid_data:
                self._received(data, info)
        if len(samples) == BATCH:
            self._loop.call_soon(self._on_requests)

    def _received(self, data: bytes, info: Any) -> None:
        try:
            request, raw_id = _read(data)
        except (Malformed, ValueError) as error:
            self._once.warn("unreadable", "unreadable requests are ignored: %s", error)
            return
        writer, client = self._clients.writer(info.publication_handle)
        key = (writer, raw_id or request.request_id)
        if key in self._seen:
            log.warning("request %r came again from the same client and is not answered twice", request.request_id)
            return
        self._seen[key] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        age = time.time() - info.source_timestamp / 1e9
        if age > self.config.max_age:
            log.warning(
                "request %r is %.0f s old and is not answered (max_age; do the clocks of both hosts agree?)",
                request.request_id,
                age,
            )
            return
        if self._closing:
            log.warning("request %r came while the gateway closes and is not answered", request.request_id)
            return
        if client is not None and self._clients.readers(client) == 1 and client not in self._serving.values():
            self._answers.settle(client)  # who asks again has read the last answer
        answer = Answer(request.request_id, request.model or self._model(), client, raw_id)
        task = self._loop.create_task(self._serve(request, answer, client, len(self._serving)))
        self._serving[task] = client
        task.add_done_callback(self._serving.pop)

    async def _serve(
        self, request: ChatCompletionRequest, answer: Answer, client: uuid.UUID | None, others: int
    ) -> None:
        try:
            if client is not None and not self._clients.readers(client):
                await self._reader(client)
            try:
                if others >= self.config.max_in_flight:
                    raise QueueFull(f"{others} requests are under way already (max_in_flight); try again later")
                # The wire vouches for nobody: a client is its participant, with the least of roles.
                caller = Caller(f"dds {client}") if client is not None else ANYBODY
                await self._relay(submission(request, self._served(answer.model), caller), answer)
            except AnywireError as error:
                self._fail(answer, error)
            except Exception:
                log.exception("request %r failed", request.request_id)
                self._fail(answer, AnywireError("internal error; the orchestrator's log has more"))
            await self._answers.written(answer)
        finally:
            self._answers.drop(answer)

    async def _relay(self, task: Any, answer: Answer) -> None:
        stream = self._context.submit(task)
        try:
            if not task.stream:
                self._finish(answer, await stream.result())
                return
            while answer.final is None:
                for chunk in await stream.take():
                    if chunk.final:
                        self._finish(answer, chunk)
                    else:
                        self._answers.add(answer, "".join(chunk.deltas))
                await self._answers.room(answer)
        finally:
            stream.cancel("the client went away")

    async def _reader(self, client: uuid.UUID) -> None:
        try:
            async with asyncio.timeout(READER_WAIT):
                await self._clients.reading(client)
        except TimeoutError:
            log.warning("a client that has asked reads no responses (none of its participant): answered all the same")

    def _finish(self, answer: Answer, chunk: Chunk) -> None:
        usage = _Usage()
        if chunk.usage:
            try:
                usage = _usage.decode(chunk.usage)
            except msgspec.DecodeError as error:
                log.warning("the usage of request %r is unreadable: %s", answer.request_id, error)
        tokens = (usage.prompt_tokens, usage.completion_tokens)
        reason = "length" if chunk.finish_reason == "length" else "stop"
        self._answers.finish(answer, "".join(chunk.deltas), reason, tokens)

    def _fail(self, answer: Answer, error: AnywireError) -> None:
        """An error is a final response: a text of no tokens."""
        log.info("request %r ends with %s: %s", answer.request_id, error.code, error)
        new_line = "\n" if answer.begun or answer.texts else ""
        self._answers.finish(answer, new_line + error_text(error.code, error.message), ERROR)

    def _gone(self, client: uuid.UUID) -> None:
        self._answers.settle(client)
        for task, owner in self._serving.items():
            if owner == client:
                task.cancel()

    # Models and status

    def _model(self) -> str:
        """The model told to clients, and used for requests that name none; empty when there is none."""
        return self.config.model or next(iter(self._context.models()), "")

    def _served(self, model: str) -> str:
        if not model:
            raise NoAgent("the request names no model, and none is served yet")
        names = self.config.models
        if model in names:
            model = names[model]
        elif ANY in names and model not in self._context.models():
            model = names[ANY]
        return model or self._model()

    def _heartbeat(self) -> None:
        self._tell()
        self._beat = self._loop.call_later(self.config.status_interval, self._heartbeat)

    def _tell(self) -> None:
        agents = [agent for agent in self._context.agents() if agent.status.state == "ready"]
        slots = sum(agent.status.slots for agent in agents)
        busy = sum(min(max(agent.in_flight, agent.status.active), agent.status.slots) for agent in agents)
        model = self._model()
        ready = bool(agents and model) and not self._closing
        try:
            self._status.write(pack(ServerStatus(self._server_id, slots - busy, busy, model, ready)))
        except AnywireError as error:
            log.error("the status cannot be told: %s", error)


def _read(data: bytes) -> tuple[ChatCompletionRequest, bytes]:
    """A request, and the bytes of its request_id where they are not what its text says: it had bytes that are no UTF-8.
    Raises `Malformed` or `ValueError`."""
    try:
        return unpack(REQUEST_TOPIC, data), b""
    except Malformed:
        mended, raw_id = mended_request(data)
        return unpack(REQUEST_TOPIC, mended), raw_id
