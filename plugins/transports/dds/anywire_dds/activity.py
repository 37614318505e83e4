"""What a hub tells those who observe it: the attempts it has sent, as they go, within a fixed budget.

While nobody observes, an attempt costs an entry in a dict and a chunk costs a look-up; nothing is written, and no
writer exists. While somebody does, what has changed is written at most once per interval and then no more than
`BUDGET` samples of it, however many tasks there are: the cost of being observed has a bound that does not grow with
the load. What the budget leaves out is counted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from anywire import errors
from anywire.errors import AnywireError
from anywire.messages import Cancel, Chunk, HubInfo, TaskRequest
from anywire_dds import types
from anywire_dds.cdr import Malformed
from anywire_dds.config import DdsConfig
from anywire_dds.endpoints import ALIVE, BATCH
from anywire_dds.observation import CODECS, ObservationEndpoints
from anywire_dds.writer import Writer

log = logging.getLogger(__name__)

BUDGET = 64
"""Samples of tasks written at once."""

SLOTS = 256
"""Attempts that observers can be told of at a time; others are told of when some of these have ended. Each slot is a
DDS instance, taken by one after another: Cyclone keeps something of every instance that ever was, also of those that
were unregistered, so an instance per task would grow without end."""

TEXT = 4096
"""Characters of text in one sample: of more than that, the end."""

INTERVAL_MIN_MS = 50
NO_SLOT = -1

_pack_task, _pack_hub = CODECS["task"].pack, CODECS["activity"].pack


class _Attempt:
    """One attempt under way, or just ended. ``position`` is how many deltas have come, ``first`` the number of the
    first in ``pieces``."""

    __slots__ = (
        "agent_id", "begun", "chunks", "counted", "cut", "ended", "error", "finish_reason", "first", "kind", "length",
        "model", "number", "pieces", "position", "slot", "task_id",
    )  # fmt: skip

    def __init__(self, agent_id: str, request: TaskRequest) -> None:
        self.agent_id, self.task_id, self.number = agent_id, request.task_id, request.attempt
        self.kind, self.model = request.kind, request.model
        self.begun = time.monotonic()
        self.chunks = self.first = self.position = self.length = 0
        self.pieces: list[str] = []
        self.counted = self.ended = self.cut = False
        self.slot = NO_SLOT
        self.finish_reason = self.error = ""

    def add(self, chunk: Chunk) -> None:
        """Keep the text of a chunk, or the end of it, until it is told."""
        if not self.pieces:
            self.first = chunk.seq
        self.pieces += chunk.deltas
        self.length += sum(map(len, chunk.deltas))
        if self.length > 2 * TEXT:
            self._trim()

    def _trim(self) -> None:
        self.pieces = ["".join(self.pieces)[-TEXT:]]
        self.length, self.cut = TEXT, True

    def sample(self, hub_id: str) -> bytes:
        """How it is now; the text is told with this."""
        if self.length > TEXT:
            self._trim()
        first = self.first if self.pieces else self.position
        packed = _pack_task(
            round((time.monotonic() - self.begun) * 1e3), self.slot, self.number, self.chunks, first, self.position,
            self.cut, self.ended, hub_id, self.task_id, self.agent_id, self.kind, self.model, "".join(self.pieces),
            self.finish_reason, self.error,
        )  # fmt: skip
        self.pieces, self.length, self.cut = [], 0, False
        return packed


class Activity:
    """The attempts of one hub, and what observers are told of them."""

    def __init__(self, config: DdsConfig, hub: HubInfo) -> None:
        """Raises `TransportUnavailable`."""
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._running: dict[tuple[str, int], _Attempt] = {}
        """By task and attempt: several attempts of one task may be under way."""
        self._changed: dict[_Attempt, None] = {}
        """To be told, in the order in which they changed first."""
        self._brief = 0
        """Of those, how many have begun and ended untold."""
        self._free = list(range(SLOTS))
        """Slots; the one freed last is taken first."""
        self._begun = self._ended = self._told = 0
        self._observers: dict[tuple[str, int], tuple[int, bool]] = {}
        self._interval, self._texts = 0.0, False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: Writer | None = None
        self._totals: Writer | None = None
        self.endpoints = endpoints = ObservationEndpoints(config, "agent", hub.hub_id, hub.lease_ms)
        try:
            self._take = endpoints.observe("observer", self._on_observers)
        except BaseException:
            endpoints.abandon()
            raise

    # What the hub sends and receives

    def begun(self, agent_id: str, request: TaskRequest) -> None:
        former = self._running.get((request.task_id, request.attempt))
        if former is not None:
            self._end(former, "", errors.to_wire(errors.AgentLost("it was sent again")))
        attempt = self._running[request.task_id, request.attempt] = _Attempt(agent_id, request)
        self._begun += 1
        if self._interval:
            self._change(attempt)

    def cancelled(self, cancel: Cancel) -> None:
        attempt = self._running.get((cancel.task_id, cancel.attempt))
        if attempt is not None:
            self._end(attempt, "", errors.to_wire(errors.TaskCancelled(cancel.reason)))

    def received(self, agent_id: str, chunk: Chunk) -> None:
        attempt = self._running.get((chunk.task_id, chunk.attempt))
        if attempt is None or attempt.agent_id != agent_id:
            return
        attempt.chunks += 1
        attempt.position = chunk.seq + len(chunk.deltas)
        if self._texts and chunk.deltas:
            attempt.add(chunk)
        if chunk.final:
            self._end(attempt, chunk.finish_reason, chunk.error)
        elif self._interval:
            self._change(attempt)

    def failed(self, task_id: str, number: int, error: AnywireError) -> None:
        attempt = self._running.get((task_id, number))
        if attempt is not None:
            self._end(attempt, "", errors.to_wire(error))

    def agent_lost(self, agent_id: str, reason: str) -> None:
        error = errors.to_wire(errors.AgentLost(f"agent {agent_id} was lost: {reason}"))
        for attempt in [each for each in self._running.values() if each.agent_id == agent_id]:
            self._end(attempt, "", error)

    def _end(self, attempt: _Attempt, finish_reason: str, error: str) -> None:
        del self._running[attempt.task_id, attempt.number]
        self._ended += 1
        attempt.ended, attempt.finish_reason, attempt.error = True, finish_reason, error
        if not self._interval:
            return
        if attempt.slot != NO_SLOT or self._brief < BUDGET:
            self._brief += attempt.slot == NO_SLOT
            self._change(attempt)
        else:
            self._changed.pop(attempt, None)

    # Observers

    def _on_observers(self) -> None:
        samples = self._take()
        came = False
        for data, sample in samples:
            try:
                incarnation, interval_ms, texts, observer_id = _registration(data, sample.valid_data)
            except Malformed as error:
                log.warning("unreadable registration of an observer ignored: %s", error)
                continue
            if sample.instance_state == ALIVE:
                self._observers[observer_id, incarnation] = (interval_ms, texts)
                came = True
            else:
                self._observers.pop((observer_id, incarnation), None)
        self._serve(came)
        if len(samples) == BATCH:
            self._loop.call_soon(self._on_observers)

    def _serve(self, came: bool) -> None:
        """Do as those who are there now want it. One that came is told everything there is."""
        if not self._observers:
            if self._tasks is not None:
                self._stop()
            return
        wanted = self._observers.values()
        self._interval = max(INTERVAL_MIN_MS, min(interval for interval, _ in wanted)) / 1e3
        self._texts = any(texts for _, texts in wanted)
        if not came:
            return
        if self._tasks is None:
            try:
                self._tasks, self._totals = self.endpoints.publish("task"), self.endpoints.publish("activity")
            except AnywireError as error:
                log.error("hub %s cannot be observed: %s", self._hub.hub_id, error)
                self._observers.clear()
                self._stop()
                return
        for attempt in self._running.values():
            self._changed.setdefault(attempt)
        self._tell()

    def _stop(self) -> None:
        """Nobody looks: forget what was told, and to whom."""
        self._interval, self._texts = 0.0, False
        self._rest()
        self.endpoints.retire(*(each for each in (self._tasks, self._totals) if each is not None))
        self._tasks = self._totals = None
        self._changed.clear()
        self._free = list(range(SLOTS))
        self._brief = 0
        for attempt in self._running.values():
            attempt.slot, attempt.pieces, attempt.length, attempt.cut = NO_SLOT, [], 0, False

    def _change(self, attempt: _Attempt) -> None:
        self._changed[attempt] = None
        if self._timer is None:
            self._timer = self._loop.call_later(self._interval, self._tell)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self) -> None:
        self._rest()
        tasks, totals = self._tasks, self._totals
        if tasks is None or totals is None:
            return
        try:
            more = self._tell_tasks(tasks)
            totals.write(_pack_hub(self._hub.incarnation, self._begun, self._ended, self._told, self._hub.hub_id))
        except AnywireError as error:
            log.warning("observers are not told everything: %s", error)
            more = True
        if more:
            self._timer = self._loop.call_later(self._interval, self._tell)

    def _tell_tasks(self, tasks: Writer) -> bool:
        """Whether there is more that could be told next time."""
        written = 0
        freed: list[int] = []
        try:
            for attempt in list(self._changed):
                if attempt.slot == NO_SLOT and not self._free:
                    continue  # its turn comes when another has ended
                if written == BUDGET or not self._tell_one(tasks, attempt):
                    return True
                written += 1
                if attempt.ended:
                    freed.append(attempt.slot)
        finally:
            # Only now, so that of one slot no more is written at once than its history takes.
            self._free += freed
        return bool(freed and self._changed)

    def _tell_one(self, tasks: Writer, attempt: _Attempt) -> bool:
        if attempt.slot == NO_SLOT:
            attempt.slot = self._free.pop()
            self._brief -= attempt.ended
        if not tasks.write(attempt.sample(self._hub.hub_id)):
            attempt.cut = True  # what the sample said is not said again
            return False
        del self._changed[attempt]
        self._told += not attempt.counted
        attempt.counted = True
        return True

    async def close(self) -> None:
        self._interval = 0.0
        self._rest()
        await self.endpoints.close()


def _registration(data: bytes, whole: bool) -> tuple[Any, ...]:
    if whole:
        return CODECS["observer"].unpack(data)
    key = types.ObserverRegistration.deserialize_key(data)
    return key.incarnation, 0, False, key.observer_id
