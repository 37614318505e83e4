"""The servers of the domain, as their ServerStatus tells: who is there, and who has gone.

That a server is dead tells DDS: its writer has gone, or is not alive any more. Silence tells it only when it lasts for
several of the intervals in which this server told its status before. Existing servers take 5 s between two, whatever
deadline they offer, and tell nothing in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec

from anywire_dds.cdr import Malformed
from anywire_dds.llama_ends import NO_WRITERS, Endpoint, LlamaEnds
from anywire_dds.llama_types import STATUS_TOPIC, ServerStatus, unpack

log = logging.getLogger(__name__)

MISSED = 4
"""Intervals without a sign of life after which a server counts as lost."""
OBSERVED = 8
"""Times between two statuses that are remembered; the longest of them is the interval."""
SHORTEST_INTERVAL = 0.5
"""Seconds; a server that tells its status more often than that may pause for a moment."""


class Server(msgspec.Struct, eq=False):
    """One life of a server. ``handle`` is that of its status writer, ``missed`` the intervals since it gave a sign of
    life. ``counts``: it has told once that it processes something. ``quiet_since`` is when it told that it processes
    nothing, for the first time since it was asked last; None once it answers or tells otherwise."""

    status: Any
    handle: int
    participant: UUID | None
    told_at: float
    gaps: deque[float] = msgspec.field(default_factory=lambda: deque(maxlen=OBSERVED))
    missed: int = 0
    silence: asyncio.TimerHandle | None = None
    counts: bool = False
    quiet_since: float | None = None

    @property
    def quiet_for(self) -> float:
        """Seconds for which it has told that it does nothing; 0 for one that does not count."""
        return self.told_at - self.quiet_since if self.counts and self.quiet_since is not None else 0.0


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
            _stop(server)
        self._known.clear()

    def answered(self, participant: UUID | None) -> None:
        """A response came, from this participant: its server is alive, whatever its status does."""
        for server in self._known.values():
            if server.participant == participant is not None:
                server.missed = 0
                server.quiet_since = None

    def asked(self) -> None:
        """A request was written."""
        for server in self._known.values():
            server.quiet_since = None

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
            known = Server(status, handle, self._writers.get(handle), self._loop.time())
            self._known[status.server_id] = known
            if len(self._known) > 1:
                log.warning(
                    "several servers are in this domain (%s) and each will answer every request: keep one per domain",
                    ", ".join(self._known),
                )
        else:
            now = self._loop.time()
            known.gaps.append(now - known.told_at)
            known.told_at = now
            known.status = status
            self._expect(known)
        if status.slots_processing > 0:
            known.counts, known.quiet_since = True, None
        elif known.quiet_since is None:
            known.quiet_since = known.told_at
        self._changed()

    def _expect(self, server: Server) -> None:
        """Count the intervals from now on. Each is a timer of its own: a pause of this process is one of them."""
        _stop(server)
        server.missed = 0
        interval = max(SHORTEST_INTERVAL, *server.gaps)
        server.silence = self._loop.call_later(interval, self._missed, server, interval)

    def _missed(self, server: Server, interval: float) -> None:
        server.missed += 1
        if server.missed < MISSED:
            server.silence = self._loop.call_later(interval, self._missed, server, interval)
        else:
            self._forget(server, f"no status and no answer came for {MISSED * interval:.3g} s")

    def _writer(self, endpoint: Endpoint) -> None:
        if endpoint.alive:
            self._writers[endpoint.handle] = endpoint.participant
            return
        self._writers.pop(endpoint.handle, None)
        for server in list(self._known.values()):
            if server.handle == endpoint.handle:
                self._forget(server, "it has gone")

    def _forget(self, server: Server, reason: str) -> None:
        _stop(server)
        if self._known.get(server.status.server_id) is server:
            del self._known[server.status.server_id]
            self._lost(server, reason)


def _stop(server: Server) -> None:
    if server.silence is not None:
        server.silence.cancel()
