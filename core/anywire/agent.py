"""The agent: slots around an engine, reachable over one or several transports by any number of hubs."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import sys
from collections import OrderedDict
from collections.abc import Sequence

from anywire import errors
from anywire.clock import Clock, SystemClock, Timer
from anywire.engine import Engine, EngineStatus
from anywire.errors import AnywireError
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, TaskRequest
from anywire.pipeline.ends import Ends
from anywire.runs import Run
from anywire.transport import AgentPort, Plane, Reply, Transport

log = logging.getLogger(__name__)

REMEMBERED_CANCELS = 1024


class _PortSink:
    """One transport's way into the agent."""

    def __init__(self, agent: Agent, link: int) -> None:
        self._agent, self._link = agent, link

    def task_received(self, hub_id: str, incarnation: int, task: TaskRequest, reply: Reply) -> None:
        self._agent.task_received(task, reply, self._link)

    def cancel_received(self, hub_id: str, incarnation: int, cancel: Cancel) -> None:
        self._agent.cancel_received(cancel)

    def credit_received(self, hub_id: str, incarnation: int, credit: Credit) -> None:
        self._agent.credit_received(credit)

    def drain_requested(self, hub_id: str, incarnation: int, reason: str) -> None:
        if self._agent.plane == "client":
            log.warning("a client asked for a drain, which is not for clients to ask: ignored (%s)", reason)
            return
        self._agent.begin_drain(reason)

    def hub_joined(self, hub_id: str, incarnation: int) -> None:
        log.info("hub %s joined", hub_id)

    def hub_lost(self, hub_id: str, incarnation: int, reason: str) -> None:
        self._agent.hub_lost(hub_id, self._link, reason)


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
        self._interval = heartbeat_interval
        self._clock = clock or SystemClock()
        self._ports: Ends[AgentPort] = Ends(transports, self._open_port, self._announce, self._clock)
        self._runs: dict[tuple[str, str], Run] = {}
        self._cancelled: OrderedDict[tuple[str, str], int] = OrderedDict()
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
        runners = [run.runner for run in self._runs.values() if run.runner is not None]
        for key in list(self._runs):
            self._stop(key)
        await asyncio.gather(*runners, return_exceptions=True)
        await self._ports.close()
        await self.engine.close()

    def status(self) -> AgentStatus:
        """The status as it is reported."""
        engine = self.engine.status()
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
        key = (task.hub_id, task.task_id)
        if self._cancelled.get(key, 0) >= task.attempt:
            return
        older = self._runs.get(key)
        if older is not None:
            if older.task.attempt >= task.attempt:
                return
            self._stop(key)
        refusal = self._why_not(task)
        if refusal:
            error = errors.to_wire(errors.Refused(f"agent {self.info.agent_id}: {refusal}"))
            _send_final(reply, Chunk(task.hub_id, task.task_id, task.attempt, 0, final=True, error=error))
            return
        self._runs[key] = run = Run(task, reply, link, self.engine, self._clock)
        self._idle.clear()
        run.runner = asyncio.get_running_loop().create_task(self._answer(key, run))

    def cancel_received(self, cancel: Cancel) -> None:
        key = (cancel.hub_id, cancel.task_id)
        run = self._runs.get(key)
        if run is not None and run.task.attempt <= cancel.attempt:
            self._stop(key)
        # It may have overtaken its request, or a lower attempt may still be on its way over another link.
        self._cancelled[key] = max(cancel.attempt, self._cancelled.pop(key, 0))
        if len(self._cancelled) > REMEMBERED_CANCELS:
            self._cancelled.popitem(last=False)

    def credit_received(self, credit: Credit) -> None:
        run = self._runs.get((credit.hub_id, credit.task_id))
        if run is not None and run.task.attempt == credit.attempt:
            run.credit(credit.chunks)

    def hub_lost(self, hub_id: str, link: int, reason: str) -> None:
        keys = [key for key, run in self._runs.items() if key[0] == hub_id and run.link == link]
        log.info("hub %s lost (%s), %d of its tasks ended", hub_id, reason, len(keys))
        for key in keys:
            self._stop(key)

    # Inside

    def _slots(self, engine: EngineStatus) -> int:
        return self.slots if engine.slots is None else engine.slots

    def _why_not(self, task: TaskRequest) -> str:
        if self.draining:
            return "draining"
        engine = self.engine.status()
        if engine.state != "ready":
            return f"its engine is {engine.state}"
        if task.model not in engine.models and not engine.any_model:
            return f"it does not serve {task.model!r}"
        if len(self._runs) >= self._slots(engine):
            self._refused_for_slots = True
            return "no free slot"
        return ""

    async def _answer(self, key: tuple[str, str], run: Run) -> None:
        final = await run.answer()
        # The slot is free before the hub can know: its next task may be on the way as soon as the chunk is sent.
        if self._runs.get(key) is run:
            self._free(key)
        while not _send_final(run.reply, final):
            await run.reply.drain()

    def _stop(self, key: tuple[str, str]) -> None:
        run = self._runs[key]
        if run.runner is not None:
            run.runner.cancel()
        self._free(key)

    def _free(self, key: tuple[str, str]) -> None:
        del self._runs[key]
        if not self._runs:
            self._idle.set()
        if self._refused_for_slots:
            self._refused_for_slots = False
            self._report()

    def _engine_changed(self) -> None:
        engine = self.engine.status()
        log.info("engine %s is %s %s", self.engine.name, engine.state, engine.detail)
        self._report()

    def _beat(self) -> None:
        self._report()
        self._heartbeat = self._clock.call_later(self._interval, self._beat)

    def _report(self) -> None:
        status = self.status()
        for port in self._ports.ends:
            if port is not None:
                port.report(status)

    async def _open_port(self, link: int, transport: Transport) -> AgentPort:
        return await transport.open_agent(self.info, self.plane, _PortSink(self, link))

    def _announce(self, port: AgentPort) -> None:
        port.report(self.status())


def _send_final(reply: Reply, chunk: Chunk) -> bool:
    """Send a final chunk; False when the way is congested and it must be tried again."""
    try:
        reply.send(chunk)
    except errors.Congested:
        return False
    except AnywireError as error:
        failure = Chunk(chunk.hub_id, chunk.task_id, chunk.attempt, chunk.seq, final=True, error=errors.to_wire(error))
        reply.send(failure)
    return True


def _gauges() -> dict[str, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "max_rss_bytes": usage.ru_maxrss * unit,
        "load1": round(os.getloadavg()[0], 2),
    }
