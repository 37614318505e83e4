"""The agent: slots around an engine, reachable over one or several transports by any number of hubs."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import resource
import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import get_args

from anywire import errors
from anywire.clock import Clock, SystemClock, Timer
from anywire.engine import Engine, EngineStatus
from anywire.errors import AnywireError
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, State, TaskRequest
from anywire.pipeline.boundary import Boundary
from anywire.pipeline.claims import MAX_COUNT, MAX_DETAIL, MAX_MODELS, MAX_SLOTS, printable
from anywire.pipeline.ends import Ends
from anywire.runs import Run
from anywire.transport import AgentPort, Plane, Reply, Transport

log = logging.getLogger(__name__)

REMEMBERED_CANCELS = 1024
REFUSALS_WAITING = 1024
"""Refusals that may wait for room; the hub of one more finds by its own timeout that the task was not accepted."""
ENGINE_PATIENCE = 5.0
"""Seconds between two times that an engine is asked to stop a task, and at a shutdown until it is left alone."""
MAX_ERROR = 4096
"""Characters of an error that takes the place of a final chunk which could not be sent."""
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0
"""Seconds before a final chunk is tried again where the transport says that there is room and there is none."""

_STATES = frozenset(get_args(State))

RunKey = tuple[str, str, int]
"""Hub, task and attempt."""


class _PortSink:
    """One transport's way into the agent: what a hub says for another one is dropped."""

    def __init__(self, agent: Agent, link: int) -> None:
        self._agent, self._link = agent, link

    def task_received(self, hub_id: str, incarnation: int, task: TaskRequest, reply: Reply) -> None:
        if hub_id == task.hub_id:
            self._agent.task_received(task, reply, self._link)
        else:
            self._count_foreign(hub_id)

    def cancel_received(self, hub_id: str, incarnation: int, cancel: Cancel) -> None:
        if hub_id == cancel.hub_id:
            self._agent.cancel_received(cancel)
        else:
            self._count_foreign(hub_id)

    def credit_received(self, hub_id: str, incarnation: int, credit: Credit) -> None:
        if hub_id == credit.hub_id:
            self._agent.credit_received(credit)
        else:
            self._count_foreign(hub_id)

    def drain_requested(self, hub_id: str, incarnation: int, reason: str) -> None:
        if self._agent.plane == "client":
            log.warning("a client asked for a drain, which is not for clients to ask: ignored (%s)", printable(reason))
            return
        self._agent.begin_drain(reason)

    def hub_joined(self, hub_id: str, incarnation: int) -> None:
        log.info("hub %s joined", printable(hub_id))

    def hub_lost(self, hub_id: str, incarnation: int, reason: str) -> None:
        self._agent.hub_lost(hub_id, self._link, reason)

    def _count_foreign(self, hub_id: str) -> None:
        self._agent.foreign_messages += 1
        log.debug("hub %s sent a message of another hub; dropped", printable(hub_id))


class Agent:
    """Takes up to ``slots`` tasks at a time from all hubs together, refuses the rest at once.

    `start` raises what the engine or the only transport raises; with several transports those that open are
    used and the others tried again.
    """

    def __init__(
        self,
        info: AgentInfo,
        engine: Engine,
        transports: Sequence[Transport],
        *,
        slots: int = 1,
        plane: Plane = "agent",
        heartbeat_interval: float = 0.25,
        clock: Clock | None = None,
    ) -> None:
        if slots < 1:
            raise errors.ConfigError(f"an agent needs at least 1 slot, not {slots}")
        self.info, self.engine, self.slots, self.plane = info, engine, slots, plane
        self.draining = False
        self.boundary = Boundary()
        self.foreign_messages = 0
        """Messages dropped because a hub sent them in another one's name."""
        self._interval = heartbeat_interval
        self._clock = clock or SystemClock()
        self._ports: Ends[AgentPort] = Ends(transports, self._open_port, self._announce, self._clock)
        self._runs: dict[RunKey, Run] = {}
        self._cancelled: OrderedDict[RunKey, None] = OrderedDict()
        self._fresh: set[Run] = set()
        self._older: set[Run] = set()
        """Those of the runs that came since the last heartbeat, and since the one before: they are told accepted at the
        next."""
        self._checked: EngineStatus | None = None
        """The newest status of the engine that was checked, and nothing is wrong with it."""
        self._closing = False
        self._sending: set[asyncio.Task[None]] = set()
        self._refused_for_slots = False
        self._heartbeat: Timer | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> None:
        """Start the engine, then announce the agent on every transport."""
        await self.engine.start(self._engine_changed)
        await self._ports.open()
        self._beat()

    def begin_drain(self, reason: str = "") -> None:
        """Refuse what comes, finish what runs."""
        if not self.draining:
            self.draining = True
            log.info("draining: %s", reason or "asked to")
            self._report()

    async def drain(self) -> None:
        """`begin_drain`, then wait until nothing runs any more."""
        self.begin_drain()
        await self._idle.wait()

    async def close(self) -> None:
        """Stop what runs, say goodbye on every transport, close the engine; idempotent."""
        self.draining = True
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None
        self._closing = True
        runners = [run.runner for run in self._runs.values() if run.runner is not None]
        for run in list(self._runs.values()):
            run.cancel("the agent closes")
        if runners:
            _, left = await asyncio.wait(runners, timeout=ENGINE_PATIENCE)
            if left:
                log.error(
                    "engine %s has not ended %d cancelled tasks; they are left alone", self.engine.name, len(left)
                )
        for sending in self._sending:
            sending.cancel()
        await self._ports.close()
        try:
            await self.engine.close()
        except Exception as error:
            self.boundary.failed(f"engine {self.engine.name}", "close", error)

    def status(self) -> AgentStatus:
        """The status as it is reported. An engine whose status cannot be had, or is none, is reported as failed."""
        engine = self._engine_status()
        return AgentStatus(
            self.info.agent_id,
            self.info.incarnation,
            "draining" if self.draining else engine.state,
            engine.models,
            self._slots(engine),
            len(self._runs),
            engine.queued,
            _gauges() | engine.resources,
            engine.detail,
        )

    # What hubs send, through any transport

    def task_received(self, task: TaskRequest, reply: Reply, link: int) -> None:
        key = (task.hub_id, task.task_id, task.attempt)
        if key in self._runs:
            return
        if self._cancelled and key in self._cancelled:
            self._refuse(task, reply, errors.TaskCancelled("cancelled before it arrived"))
            return
        refusal = self._why_not(task)
        if refusal:
            self._refuse(task, reply, errors.Refused(f"agent {self.info.agent_id}: {refusal}"))
            return
        self._runs[key] = run = Run(task, reply, link, self.engine, self._clock, self.boundary)
        self._fresh.add(run)
        self._idle.clear()
        run.runner = asyncio.get_running_loop().create_task(self._answer(key, run))

    def cancel_received(self, cancel: Cancel) -> None:
        key = (cancel.hub_id, cancel.task_id, cancel.attempt)
        run = self._runs.get(key)
        if run is not None:
            self._stop(key, run, cancel.reason)
            return
        # It may have overtaken its request.
        self._cancelled[key] = None
        if len(self._cancelled) > REMEMBERED_CANCELS:
            self._cancelled.popitem(last=False)

    def credit_received(self, credit: Credit) -> None:
        run = self._runs.get((credit.hub_id, credit.task_id, credit.attempt))
        if run is not None and 0 < credit.chunks <= MAX_COUNT:
            run.credit(credit.chunks)

    def hub_lost(self, hub_id: str, link: int, reason: str) -> None:
        hit = [(key, run) for key, run in self._runs.items() if key[0] == hub_id and run.link == link]
        log.info("hub %s lost (%s), %d of its tasks ended", printable(hub_id), printable(reason), len(hit))
        for key, run in hit:
            self._stop(key, run, "hub lost")

    # Inside

    def _engine_status(self) -> EngineStatus:
        """The engine's status; one that cannot be had, or is none, as state ``failed``."""
        try:
            engine = self.engine.status()
            if engine is self._checked:
                return engine
            fault = _status_fault(engine)
        except Exception as error:
            self.boundary.failed(f"engine {self.engine.name}", "status", error)
            return EngineStatus("failed", detail=f"its status raised {type(error).__name__}: {error}"[:MAX_DETAIL])
        if fault:
            name = f"engine {self.engine.name}"
            self.boundary.failed(name, "status", fault)
            return EngineStatus("failed", detail=f"{name}: {fault}")
        self._checked = engine
        return engine

    def _slots(self, engine: EngineStatus) -> int:
        return self.slots if engine.slots is None else engine.slots

    def _why_not(self, task: TaskRequest) -> str:
        if self.draining:
            return "draining"
        engine = self._engine_status()
        if engine.state != "ready":
            return f"its engine is {engine.state}"
        if task.model not in engine.models and not engine.any_model:
            return f"it does not serve {task.model!r}"
        if len(self._runs) >= self._slots(engine):
            self._refused_for_slots = True
            return "no free slot"
        return ""

    def _refuse(self, task: TaskRequest, reply: Reply, error: AnywireError) -> None:
        final = Chunk(task.hub_id, task.task_id, task.attempt, 0, final=True, error=errors.to_wire(error))
        try:
            reply.send(final)
        except Exception as failure:
            if len(self._sending) >= REFUSALS_WAITING:
                log.warning("a refusal of task %s is dropped: %d wait for room already", task.task_id, REFUSALS_WAITING)
                return
            sending = asyncio.get_running_loop().create_task(self._send_otherwise(reply, final, failure))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)

    async def _answer(self, key: RunKey, run: Run) -> None:
        final = await run.answer()
        # The engine has ended, and the slot is free before the hub can know: its next task may be on the way as soon as
        # the chunk is sent.
        self._free(key)
        # Nothing is sent at a shutdown: the hub is to see that the agent is gone, and to send the task elsewhere.
        if self._closing:
            return
        try:
            run.reply.send(final)
        except Exception as failure:
            await self._send_otherwise(run.reply, final, failure)

    async def _send_otherwise(self, reply: Reply, final: Chunk, failure: Exception | None) -> None:
        """Send a final chunk at which ``send`` raised ``failure``: as soon as there is room, when there was none. One
        that cannot be sent is replaced by an error, once."""
        fruitless, replaced = 0, False
        while failure is not None:
            if isinstance(failure, errors.Congested):
                await reply.drain()
                if fruitless:
                    await self._clock.sleep(min(FIRST_PAUSE * 2**fruitless, LONGEST_PAUSE))
                fruitless += 1
            else:
                if not isinstance(failure, AnywireError):
                    self.boundary.failed("transport", "send", failure, final.task_id)
                if replaced:
                    log.error("the end of task %s cannot be sent: %s", final.task_id, failure)
                    return
                replaced = True
                final = _in_its_place(final, failure)
            try:
                reply.send(final)
                failure = None
            except Exception as error:
                failure = error

    def _stop(self, key: RunKey, run: Run, reason: str) -> None:
        """Ask the engine to end a task, once: a second request would break into its cleaning up. The slot stays taken
        until it has ended; an engine that does not is asked again."""
        if not run.cancelled:
            run.cancel(reason)
            self._clock.call_later(ENGINE_PATIENCE, self._stop_again, key, run)

    def _stop_again(self, key: RunKey, run: Run) -> None:
        if self._runs.get(key) is run and not self._closing:
            self.boundary.failed(f"engine {self.engine.name}", "run", "does not end after a cancel", run.task.task_id)
            run.cancel(run.cancelled)
            self._clock.call_later(ENGINE_PATIENCE, self._stop_again, key, run)

    def _free(self, key: RunKey) -> None:
        run = self._runs.pop(key)
        self._fresh.discard(run)
        self._older.discard(run)
        if not self._runs:
            self._idle.set()
        if self._refused_for_slots:
            self._refused_for_slots = False
            self._report()

    def _engine_changed(self) -> None:
        engine = self._engine_status()
        log.info("engine %s is %s %s", self.engine.name, engine.state, printable(engine.detail))
        self._report()

    def _beat(self) -> None:
        self._heartbeat = self._clock.call_later(self._interval, self._beat)
        self._report()
        due, self._older, self._fresh = self._older, self._fresh, set()
        for run in due:
            if run.runner is not None and not run.runner.done():
                run.tell_accepted()

    def _report(self) -> None:
        status = self.status()
        for port in self._ports.ends:
            if port is not None:
                self.boundary.call("transport", "report", port.report, status, otherwise=None)

    async def _open_port(self, link: int, transport: Transport) -> AgentPort:
        return await transport.open_agent(self.info, self.plane, _PortSink(self, link))

    def _announce(self, port: AgentPort) -> None:
        port.report(self.status())


def _in_its_place(final: Chunk, failure: Exception) -> Chunk:
    """The error that is sent for a final chunk which cannot be sent."""
    if isinstance(failure, errors.PayloadTooLarge):
        error = errors.EngineFailed(str(failure)[:MAX_ERROR], detail_code=failure.code)
    else:
        error = errors.EngineFailed(f"the answer cannot be sent: {failure}"[:MAX_ERROR])
    return Chunk(final.hub_id, final.task_id, final.attempt, final.seq, final=True, error=errors.to_wire(error))


def _status_fault(status: object) -> str:
    """What is wrong with what an engine gave as its status; empty when nothing is."""
    if not isinstance(status, EngineStatus):
        return f"is no EngineStatus: {str(status)[:80]!r}"
    if status.state not in _STATES or not isinstance(status.models, tuple):
        return f"state {status.state!r} or models {str(status.models)[:80]} are not as they must be"
    slots = 0 if status.slots is None else status.slots
    if type(slots) is not int or not 0 <= slots <= MAX_SLOTS or len(status.models) > MAX_MODELS:
        return f"slots {str(slots)[:20]} or {len(status.models)} models are out of bounds"
    if type(status.queued) is not int or not isinstance(status.resources, dict) or not isinstance(status.detail, str):
        return "queued, resources or detail are not of their types"
    if not all(issubclass(each, str) for each in set(map(type, status.models))):
        return "models are no texts"
    if not 0 <= status.queued <= MAX_COUNT or not all(
        isinstance(name, str) and isinstance(value, int | float) and math.isfinite(value)
        for name, value in status.resources.items()
    ):
        return "queued is out of bounds, or resources are no finite numbers"
    return ""


def _gauges() -> dict[str, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "max_rss_bytes": usage.ru_maxrss * unit,
        "load1": round(os.getloadavg()[0], 2),
    }
