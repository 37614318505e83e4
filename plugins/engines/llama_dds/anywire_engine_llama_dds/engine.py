"""The engine ``llama_dds``: a server of the llama.cpp DDS service, watched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from typing import ClassVar
from uuid import UUID

from anywire.engine import Delta, Engine, EngineProgress, EngineStatus
from anywire.errors import EngineFailed, InvalidRequest
from anywire.messages import State, TaskRequest
from anywire.offers import Offer, OfferState
from anywire.once_log import OnceLog
from anywire_dds.cdr import Malformed
from anywire_dds.endpoints import BATCH
from anywire_dds.llama_ends import Endpoint, LlamaEnds
from anywire_dds.llama_text import mended_response
from anywire_dds.llama_types import (
    REQUEST_TOPIC,
    RESPONSE_TOPIC,
    ChatCompletionResponse,
    gateway_id,
    unpack,
)
from anywire_engine_llama_dds.asked import Asked
from anywire_engine_llama_dds.config import LlamaDdsEngineConfig
from anywire_engine_llama_dds.requests import wire_request
from anywire_engine_llama_dds.running import Running, last_delta
from anywire_engine_llama_dds.servers import Server, Servers

log = logging.getLogger(__name__)

FEATURES = dict.fromkeys(("audio", "json", "logprobs", "tools", "vision"), False)
"""What the wire has no place for, whatever the server's model can do."""


class LlamaDdsEngine(Engine):
    """The server need not be there at start, and may go and come back."""

    name: ClassVar[str] = "llama_dds"
    Config: ClassVar[type[LlamaDdsEngineConfig]] = LlamaDdsEngineConfig
    capabilities = ("chat",)

    def __init__(self, config: LlamaDdsEngineConfig) -> None:
        super().__init__(config)
        self.config: LlamaDdsEngineConfig = config
        self._status = EngineStatus(
            "starting", (_offer(config.model, "starting"),) if config.model else (), self._nobody()
        )
        self._ends: LlamaEnds | None = None
        self._writers: dict[int, UUID | None] = {}
        self._readers: dict[int, UUID | None] = {}
        self._once = OnceLog(log)

    async def start(self, changed: Callable[[], None]) -> None:
        """Look for the server; `status` tells when it is there. Raises `TransportUnavailable`."""
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._ends = ends = LlamaEnds(self.config)
        try:
            # Before the reader of statuses: a server whose status has come knows this one, and no response is lost.
            self._take = ends.read(RESPONSE_TOPIC, self._on_responses)
            self._asked = Asked(ends, self.config.reader_pause, lambda: self._servers)
            self._servers = Servers(ends, self.config.server_id, self._told, self._lost)
            self._look = ends.watch("writers", RESPONSE_TOPIC, self._writer)
            ends.watch("readers", REQUEST_TOPIC, self._reader)
        except BaseException:
            await ends.close()
            self._ends = None
            raise
        self._patience = self._loop.call_later(self.config.startup_timeout, self._nobody_came)

    async def close(self) -> None:
        ends, self._ends = self._ends, None
        if ends is None:
            return
        self._patience.cancel()
        self._servers.close()
        self._asked.close()
        await ends.close()

    def status(self) -> EngineStatus:
        return self._status

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        busy = self._has_no_slot()
        running = self._begin(task)
        begun = False
        try:
            if busy:
                yield EngineProgress("queued", "every slot of the server is in use")
            while not (response := await running.next()).is_final:
                if response.content:
                    begun = True
                    yield Delta(response.content)
            yield last_delta(response, begun)
        finally:
            if self._asked.end(running):
                self._offer()

    def _has_no_slot(self) -> bool:
        """Whether every slot is in use: by what was asked here, or as the server told last."""
        server = self._ready_server()
        if server is None:
            return False
        idle: int = server.status.slots_idle
        slots: int = idle + server.status.slots_processing
        return slots > 0 and (idle <= 0 or len(self._asked.running) + len(self._asked.abandoned) >= slots)

    # Requests

    def _begin(self, task: TaskRequest) -> Running:
        server = self._ready_server()
        if self._ends is None or server is None:
            raise EngineFailed(self._status.detail or "no server is ready")
        if server.status.server_id == gateway_id(task.hub_id):
            raise EngineFailed(
                f"the server of DDS domain {self.config.domain} is the llama_dds gateway of the very orchestrator that "
                "sent this task: give gateway and engine different domains"
            )
        model = server.status.model_loaded if self.config.model else task.model
        running = Running(wire_request(task, "", model, self.config.temperature, self.config.max_tokens))
        try:
            self._asked.ask(running)
        except ValueError as error:
            raise InvalidRequest(str(error), status=400) from error
        return running

    # Responses

    def _on_responses(self) -> None:
        samples = self._take()
        for data, info in samples:
            if not info.valid_data:
                continue
            try:
                response, content = _read(data)
            except (Malformed, ValueError) as error:
                self._once.warn("unreadable", "unreadable responses are ignored: %s", error)
                continue
            self._received(response, content, info.publication_handle)
        if len(samples) == BATCH:
            self._loop.call_soon(self._on_responses)

    def _received(self, response: ChatCompletionResponse, content: bytes, writer: int) -> None:
        request_id = response.request_id
        participant = self._participant(writer)
        self._servers.answered(participant)
        if not self._asked.is_own(request_id):
            return  # to somebody else
        running = self._asked.running.get(request_id)
        if running is None:
            if response.is_final and request_id in self._asked.abandoned:
                self._asked.abandoned.discard(request_id)
                self._offer()
        elif not running.ended and self._is_of(response, running, writer):
            if not running.owner:
                running.owner = writer
                self._asked.answered(running, request_id)
            running.push(response, content)
        only = participant is not None and len(self._servers) == 1 and self._is_server(participant)
        self._asked.was_read(request_id, only)

    def _is_of(self, response: ChatCompletionResponse, running: Running, writer: int) -> bool:
        if running.owner:
            return running.owner == writer and running.answered_as == response.request_id
        return not self.config.server_id or self._is_server(self._participant(writer))

    def _is_server(self, participant: UUID | None) -> bool:
        return any(server.participant == participant for server in self._servers)

    def _participant(self, writer: int) -> UUID | None:
        if writer not in self._writers:
            self._look()
        return self._writers.get(writer)

    def _writer(self, endpoint: Endpoint) -> None:
        if endpoint.alive:
            self._writers[endpoint.handle] = endpoint.participant
            self._offer()
        else:
            self._writers.pop(endpoint.handle, None)
            for running in self._asked.running.values():
                if running.owner == endpoint.handle and not running.ended:
                    running.fail(EngineFailed("the server that was answering has gone"))

    # Servers

    def _reader(self, endpoint: Endpoint) -> None:
        if endpoint.alive:
            self._readers[endpoint.handle] = endpoint.participant
            self._offer()
        else:
            self._readers.pop(endpoint.handle, None)

    def _ready_server(self) -> Server | None:
        """One that says so, and whose reader of requests and writer of responses are known here: they may be heard of
        later than its status, and the first responses of a writer that is not known yet would be lost."""
        if self._ends is None:
            return None
        return next((each for each in self._servers if each.status.ready and self._is_known(each)), None)

    def _is_known(self, server: Server) -> bool:
        if server.participant is None:
            return bool(self._readers and self._writers)
        return all(server.participant in ends.values() for ends in (self._readers, self._writers))

    def _told(self) -> None:
        """A status came."""
        if not any(server.status.slots_processing for server in self._servers):
            self._asked.abandoned.clear()
        self._offer()
        self._asked.compare()

    def _offer(self) -> None:
        """Say what the ready server has to offer."""
        ready = self._ready_server()
        if ready is None:
            known = next(iter(self._servers), None)
            if known is not None:
                self._set(self._without(f"{known.status.server_id} is not ready yet", "starting", "starting"))
            return
        self._patience.cancel()
        told = ready.status
        slots = told.slots_idle + told.slots_processing
        left = max(slots - len(self._asked.abandoned), 0) if slots else None
        offer = _offer(self.config.model or told.model_loaded)
        self._set(EngineStatus("ready", (offer,) if offer.model else (), slots=left))

    def _lost(self, server: Server, reason: str) -> None:
        name = server.status.server_id
        log.warning("server %s of DDS domain %d is lost: %s", name, self.config.domain, reason)
        others = self._ready_server() is not None
        for running in self._asked.running.values():
            owner = self._writers.get(running.owner)
            if not others or (owner is not None and owner == server.participant):
                running.fail(EngineFailed(f"server {name} was lost: {reason}"))
        if others:
            self._offer()
            return
        if self._ends is not None:
            self._asked.forget()
        self._set(self._without(f"server {name} was lost: {reason}", "failed", "crashed"))

    def _nobody(self) -> str:
        who = f"server {self.config.server_id!r}" if self.config.server_id else "no server"
        return f"{who} has not been heard of in DDS domain {self.config.domain}"

    def _nobody_came(self) -> None:
        if self._status.state == "starting":
            self._set(self._without(self._status.detail, "failed", "crashed"))

    def _without(self, detail: str, state: State, offer_state: OfferState) -> EngineStatus:
        """The status while no server is ready: what it offered is not there now."""
        return EngineStatus(state, tuple([_offer(each, offer_state, detail) for each in self._status.models]), detail)

    def _set(self, status: EngineStatus) -> None:
        if status != self._status:
            self._status = status
            self._changed()


def _read(data: bytes) -> tuple[ChatCompletionResponse, bytes]:
    """A response, and the bytes of its content where they are no text. Raises `Malformed` or `ValueError`."""
    try:
        return unpack(RESPONSE_TOPIC, data), b""
    except Malformed:
        mended, content = mended_response(data)
        return unpack(RESPONSE_TOPIC, mended), content


def _offer(model: str, state: OfferState = "ready", detail: str = "") -> Offer:
    return Offer(model, ("chat",), FEATURES, state, detail)
