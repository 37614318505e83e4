"""What was asked of the server: requests that wait for room on the wire, and those that it has not answered to the end.

Existing servers keep the last `anywire_dds.llama_types.HISTORY` requests that they have not read. So no more than that
are written before the server shows that it has read them: by an answer, or by the number that it says it processes. One
that is lost all the same, pushed out by those of others, is asked again, with another id: two answers with one id could
not be told apart.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections import deque
from collections.abc import Callable

from anywire.errors import AnywireError, EngineFailed
from anywire_dds.llama_ends import LlamaEnds
from anywire_dds.llama_flow import Flow
from anywire_dds.llama_types import REQUEST_TOPIC, pack
from anywire_engine_llama_dds.running import Running
from anywire_engine_llama_dds.servers import Servers

log = logging.getLogger(__name__)

ACK_WAIT = 1.0
QUIET = 2.0
"""Seconds for which a server tells that it does nothing before that is believed: it may be away from its reader."""
TIMES = 3
"""How often a request is written that the server loses, before its task fails: not while the server may still be away
from its reader."""


class Asked:
    """``running`` are the requests that somebody reads, by each of their ids; ``abandoned`` the ids of those that
    nobody reads any more, while the server goes on with them. ``reader_pause`` is for `Flow`."""

    def __init__(self, ends: LlamaEnds, reader_pause: float, servers: Callable[[], Servers]) -> None:
        self.running: dict[str, Running] = {}
        self.abandoned: set[str] = set()
        self._ends, self._pause, self._servers = ends, reader_pause, servers
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._prefix = f"anywire-{secrets.token_hex(5)}-"
        self._numbers = itertools.count(1)
        self._flow = self._open()

    def close(self) -> None:
        self._flow.close()
        for running in self.running.values():
            running.fail(EngineFailed("the engine is closed"))

    def is_own(self, request_id: str) -> bool:
        """Whether it is an id of this engine."""
        return request_id.startswith(self._prefix)

    def ask(self, running: Running) -> None:
        """Write it as soon as there is room. Raises `ValueError` when it does not fit on the wire."""
        request_id = running.request.request_id = f"{self._prefix}{next(self._numbers)}"
        self._waiting.append((request_id, pack(running.request)))
        self.running[request_id] = running
        running.request_ids.append(request_id)
        running.is_written = False
        self._write_waiting()

    def end(self, running: Running) -> bool:
        """Nobody reads it any more. True when the server goes on with it: the wire has no cancel."""
        for each in running.request_ids:
            del self.running[each]
        if self._forget_waiting(running) or running.ended or not len(self._servers()):
            return False
        self.abandoned.add(running.answered_as or running.request_ids[-1])
        return True

    def answered(self, running: Running, request_id: str) -> None:
        """The first response to it came, to this one of its ids: it is not asked again."""
        running.answered_as = request_id
        running.is_written = True
        self._forget_waiting(running)

    def was_read(self, request_id: str, by_the_only_server: bool) -> None:
        """A response to it came."""
        if by_the_only_server:
            self._flow.settle_up_to(request_id)
        else:
            self._flow.settle(request_id)

    def compare(self) -> None:
        """See by what the server says that it processes whether it has read what was asked of it, or has lost it."""
        servers = list(self._servers())
        asked = [each for each in dict.fromkeys(self.running.values()) if each.is_written and not each.ended]
        silent = [each for each in asked if not each.answered_as]
        if not silent or not servers:
            return
        if len(servers) == 1 and servers[0].status.slots_processing >= len(asked) + len(self.abandoned):
            self._flow.settle_all()
            return
        quiet = min(server.quiet_for for server in servers)
        if lost := [each for each in silent if quiet >= self._patience(each)]:
            log.warning("server %s has lost %d requests", servers[0].status.server_id, len(lost))
            self._flow.settle_all()
            for running in lost:
                if len(running.request_ids) == TIMES:
                    running.fail(EngineFailed(f"the server has lost this request {TIMES} times"))
                else:
                    self.ask(running)

    def forget(self) -> None:
        """All servers have gone. One that comes back finds nothing of what was asked before: nobody would read it."""
        self._waiting.clear()
        self.abandoned.clear()
        self._flow.close()
        self._ends.retire(self._flow.writer)
        self._flow = self._open()

    def _forget_waiting(self, running: Running) -> bool:
        """Whether it waited to be written; it does no more."""
        before = len(self._waiting)
        self._waiting = deque(each for each in self._waiting if each[0] not in running.request_ids)
        return len(self._waiting) < before

    def _patience(self, running: Running) -> float:
        """Seconds for which a server that tells that it does nothing may still take the request."""
        return QUIET if len(running.request_ids) < TIMES else max(QUIET, self._pause)

    def _open(self) -> Flow:
        writer = self._ends.writer(REQUEST_TOPIC)
        return Flow(writer, self._pause, ACK_WAIT, self._write_waiting, lambda: len(self._servers()) <= 1)

    def _write_waiting(self) -> None:
        while self._waiting and self._flow.free:
            request_id, sample = self._waiting[0]
            running = self.running[request_id]
            try:
                if not self._flow.write(sample, request_id):
                    return
                running.is_written = True
                self._servers().asked()
            except AnywireError as error:
                running.fail(EngineFailed(f"the request could not be written: {error}"))
            self._waiting.popleft()
