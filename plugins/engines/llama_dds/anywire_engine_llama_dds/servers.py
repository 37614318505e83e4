"""The servers of the domain, as their ServerStatus tells: who is there, and who has gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec

from anywire_dds.cdr import Malformed
from anywire_dds.llama_ends import NO_WRITERS, Endpoint, LlamaEnds
from anywire_dds.llama_types import DEADLINE, STATUS_TOPIC, ServerStatus, unpack

log = logging.getLogger(__name__)


class Server(msgspec.Struct, eq=False):
    """One life of a server. ``handle`` is that of its status writer."""

    status: Any
    handle: int
    participant: UUID | None
    silence: asyncio.TimerHandle


class Servers:
    """``changed()`` is called at every status; ``lost(server, reason)`` when a server has gone or was started anew."""

    def __init__(
        self, ends: LlamaEnds, only: str, changed: Callable[[], None], lost: Callable[[Server, str], None]
    ) -> None:
        self._only, self._changed, self._lost = only, changed, lost
        self._loop = asyncio.get_running_loop()
        self._known: dict[str, Server] = {}
        self._writers: dict[int, UUID | None] = {}
        self._look = ends.watch("writers", STATUS_TOPIC, self._writer)
        self._take = ends.read(STATUS_TOPIC, self._on_status)

    def __iter__(self) -> Any:
        return iter(self._known.values())

    def __len__(self) -> int:
        return len(self._known)

    def close(self) -> None:
        for server in self._known.values():
            server.silence.cancel()
        self._known.clear()

    def _on_status(self) -> None:
        for data, info in self._take():
            if info.valid_data:
                try:
                    status: ServerStatus = unpack(STATUS_TOPIC, data)
                except Malformed as error:
                    log.warning("unreadable server status ignored: %s", error)
                    continue
                if not self._only or status.server_id == self._only:
                    self._heard(status, info.publication_handle)
            elif info.instance_state == NO_WRITERS:
                # The topic has one instance: this tells that no server at all is alive.
                for server in list(self._known.values()):
                    self._forget(server, "it is not alive any more")

    def _heard(self, status: ServerStatus, handle: int) -> None:
        known = self._known.get(status.server_id)
        if known is not None and known.handle != handle:
            self._forget(known, "it was started anew")
            known = None
        if known is None:
            if handle not in self._writers:
                self._look()
            silence = self._loop.call_later(0, lambda: None)
            known = self._known[status.server_id] = Server(status, handle, self._writers.get(handle), silence)
            if len(self._known) > 1:
                log.warning(
                    "several servers are in this domain (%s) and each will answer every request: keep one per domain",
                    ", ".join(self._known),
                )
        known.status = status
        known.silence.cancel()
        known.silence = self._loop.call_later(DEADLINE, self._forget, known, f"no status came for {DEADLINE:g} s")
        self._changed()

    def _writer(self, endpoint: Endpoint) -> None:
        if endpoint.alive:
            self._writers[endpoint.handle] = endpoint.participant
            return
        self._writers.pop(endpoint.handle, None)
        for server in list(self._known.values()):
            if server.handle == endpoint.handle:
                self._forget(server, "it has gone")

    def _forget(self, server: Server, reason: str) -> None:
        server.silence.cancel()
        if self._known.get(server.status.server_id) is server:
            del self._known[server.status.server_id]
            self._lost(server, reason)
