"""The agent: slots around an engine, reachable over one or several transports by any number of hubs."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from anywire import errors
from anywire.access import KEY_GONE, Access, OpenAccess
from anywire.boundary import Boundary
from anywire.clock import Clock, SystemClock, Timer
from anywire.engine import Engine, EngineStatus
from anywire.errors import AnywireError
from anywire.identities.end_check import EndCheck
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Command, Credit, HubInfo, TaskRequest
from anywire.once_log import OnceLog
from anywire.pipeline.fleet.ends import Ends
from anywire.printable import printable
from anywire.roles import engine_stopper
from anywire.roles.agent_commands import AgentCommands
from anywire.roles.agent_link import AgentLink
from anywire.roles.agent_queue import AgentQueue
from anywire.roles.agent_run import Run, run_for
from anywire.roles.agent_status import StatusSource
from anywire.roles.engine_stopper import Stopper
from anywire.roles.link_callers import LinkCallers
from anywire.roles.machine_gauges import MachineGauges
from anywire.roles.remembered import Remembered
from anywire.roles.replies import send_final
from anywire.transport import AgentPort, Plane, Reply, Transport

log = logging.getLogger(__name__)

REFUSALS_WAITING = 1024
"""Refusals that may wait for room; the hub of one more finds by its own timeout that the task was not accepted."""

RunKey = tuple[int, str, str, int]
"""Link, hub, task and attempt: what comes by one link concerns nothing that came by another."""


class Agent:
    """Takes up to ``slots`` tasks at a time from all hubs together, and ``queue`` more that wait for a slot; refuses
    the rest at once. What waits when it begins to drain, or its engine fails, is refused then.

    `start` raises what the engine or the only transport raises; with several transports those that open are
    used and the others tried again. ``log_level`` is that of its lines about hubs that come and go and about an engine
    that has not failed: DEBUG where somebody else in this process says the same, or where hubs are clients. ``access``
    says who they are then (`anywire.roles.link_callers`), or ``callers``, which do without it. ``end_check`` says which
    orchestrators are let in; without it every one that the transports let in.
    """

    def __init__(
        self,
        info: AgentInfo,
        engine: Engine,
        transports: Sequence[Transport],
        *,
        slots: int = 1,
        queue: int = 0,
        plane: Plane = "agent",
        heartbeat_interval: float = 0.25,
        clock: Clock | None = None,
        log_level: int = logging.INFO,
        access: Access | None = None,
        end_check: EndCheck | None = None,
        callers: LinkCallers | None = None,
    ) -> None:
        if slots < 1:
            raise errors.ConfigError(f"an agent needs at least 1 slot, not {slots}")
        self.info, self.engine, self.slots, self.plane = info, engine, slots, plane
        self.draining = False
        self.boundary = Boundary()
        self._counts: Counter[str] = Counter()
        self._once = OnceLog(log)
        self._level = log_level
        self._interval = heartbeat_interval
        self._clock = clock or SystemClock()
        self.transports = tuple(transports)
        self._ports: Ends[AgentPort] = Ends(transports, self._open_port, self._announce, self._clock)
        self._run_for = run_for(engine)
        self._runs: dict[RunKey, Run] = {}
        self._queue = AgentQueue(queue)
        """Those of the runs that wait for a slot."""
        self._cancelled = Remembered()
        """Cancels of attempts that have not come."""
        self._fresh: set[Run] = set()
        self._older: set[Run] = set()
        """Those of the runs that came since the last heartbeat, and since the one before: they are told accepted at the
        next."""
        self._end_check = end_check
        self._links: dict[int, AgentLink] = {}
        self._stop_checking: Callable[[], None] = lambda: None
        self._status, self._gauges = StatusSource(engine, self.boundary), MachineGauges(self._clock.now)
        self._stopper = Stopper(engine.name, "run", self._clock, self.boundary)
        drain = partial(self.begin_drain, "a hub asked for it")
        self._commands = AgentCommands(info.agent_id, engine, plane, self._clock, self.boundary, drain)
        self._access = access or OpenAccess()
        self._callers = callers or LinkCallers(plane, self.transports, self._access)
        self._stop_listening: Callable[[], None] = lambda: None
        self._sending: set[asyncio.Task[None]] = set()
        self._refused_for_slots = self._checking = False
        self._told = ("", "")
        """The engine's state and detail that were logged last."""
        self._heartbeat: Timer | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> None:
        """Start the engine, then announce the agent on every transport."""
        if self._callers.needs_key:
            self._stop_listening = self._access.listen(self._end_caller)
        await self.engine.start(self._engine_changed)
        if self._end_check is not None:
            self._end_check.start()
            self._stop_checking = self._end_check.listen(self._admitted_changed)
            self._checking = True
        await self._ports.open()
        self._beat()

    def begin_drain(self, reason: str = "") -> None:
        """Refuse what comes, finish what runs."""
        if not self.draining:
            self.draining = True
            log.log(logging.INFO if reason else logging.DEBUG, "draining: %s", reason or "the process stops")
            self._give_back("draining")
            self._report()

    async def drain(self) -> None:
        """`begin_drain`, then wait until nothing runs any more."""
        self.begin_drain()
        await self._idle.wait()

    async def close(self) -> None:
        """Stop what runs, say goodbye on every transport, close the engine; idempotent."""
        self.draining = True
        self._stop_listening()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None
        self._stopper.closed = True
        for run in list(self._runs.values()):
            run.cancel("the agent closes")
        self._commands.close()
        runners = [run.runner for run in self._runs.values() if run.runner is not None] + self._commands.runners
        if runners:
            _, left = await asyncio.wait(runners, timeout=engine_stopper.ENGINE_PATIENCE)
            if left:
                log.error(
                    "engine %s has not ended %d cancelled tasks or commands; they are left alone",
                    self.engine.name,
                    len(left),
                )
        for sending in self._sending:
            sending.cancel()
        await self._ports.close()
        if self._end_check is not None and self._checking:
            self._checking = False
            self._stop_checking()
            await self._end_check.close()
        try:
            await self.engine.close()
        except Exception as error:
            self.boundary.failed(f"engine {self.engine.name}", "close", error)

    def status(self) -> AgentStatus:
        """The status as it is reported. An engine whose status cannot be had, or is none, is reported as failed."""
        engine = self._status.read()
        return AgentStatus(
            self.info.agent_id,
            self.info.incarnation,
            "draining" if self.draining else engine.state,
            self._status.text(engine.offers),
            self._slots(engine),
            len(self._runs) - len(self._queue),
            engine.queued + len(self._queue),
            self._gauges.read() | engine.resources,
            engine.detail,
        )

    def stats(self) -> dict[str, Any]:
        """Counters since the start, as plain JSON types."""
        failures = self.boundary.failures
        return {
            "tasks": {"running": len(self._runs)},
            "commands": {"running": len(self._commands.runners)},
            "events": dict(self._counts) | {"plugin_failures": failures.total()},
            "plugin_failures": dict(failures),
        }

    # What hubs send, through any transport; checked by its `AgentLink`

    def hub_joined(self, hub: HubInfo, link: int) -> None:
        self._callers.joined(hub, link)

    def task_received(self, task: TaskRequest, reply: Reply, link: int) -> None:
        key = (link, task.hub_id, task.task_id, task.attempt)
        if key in self._runs:
            return
        try:
            caller = self._callers.of_task(task, link)
        except errors.Unauthenticated as error:
            self._not_let_in(task.hub_id, link, error)
            # Once, whether there is room or not: a stranger must not take the place of the refusals of others.
            final = _refusal(task, error)
            self.boundary.call("transport", "send", reply.send, final, otherwise=None)
            return
        if self._cancelled.has(task.hub_id, key):
            self.refuse(task, reply, errors.TaskCancelled("cancelled before it arrived"))
            return
        engine = self._status.read()
        refusal = self._why_not(task, engine)
        if refusal:
            self.refuse(task, reply, errors.Refused(f"agent {self.info.agent_id}: {refusal}"))
            return
        must_wait = len(self._runs) >= self._slots(engine)
        self._runs[key] = run = Run(task, caller, reply, link, self.engine, self._run_for, self._clock, self.boundary)
        self._fresh.add(run)
        self._idle.clear()
        if must_wait:
            self._queue.add(run)
        run.runner = asyncio.get_running_loop().create_task(self._answer(key, run))

    def command_received(self, command: Command, reply: Reply, link: int) -> None:
        try:
            caller = self._callers.of_command(command, link)
        except errors.Unauthenticated as error:
            self._not_let_in(command.hub_id, link, error)
            self._commands.refuse(command, reply, error)
            return
        self._commands.received(command, caller, reply, link)

    def cancel_received(self, cancel: Cancel, link: int) -> None:
        if not self._callers.counts(cancel.hub_id, link):
            return  # nothing of it is under way, and nothing is to be remembered for it
        if not cancel.attempt:
            self._commands.cancel(cancel, link)
            return
        key = (link, cancel.hub_id, cancel.task_id, cancel.attempt)
        run = self._runs.get(key)
        if run is not None:
            self._stopper.stop(run, cancel.reason)
        else:
            # It may have overtaken its request.
            self._cancelled.add(cancel.hub_id, key)

    def credit_received(self, credit: Credit, link: int) -> None:
        if not credit.attempt:
            self._commands.credit(credit, link)
            return
        run = self._runs.get((link, credit.hub_id, credit.task_id, credit.attempt))
        if run is not None:
            run.credit(credit.chunks)

    def hub_lost(self, hub_id: str, link: int, reason: str) -> None:
        self._callers.lost(hub_id, link)
        hit = [run for key, run in self._runs.items() if key[:2] == (link, hub_id)]
        over = self.transports[link].name
        log.log(self._level, "hub %s over %s lost (%s), %d of its tasks ended", hub_id, over, reason, len(hit))
        for run in hit:
            self._stopper.stop(run, "hub lost")
        self._commands.hub_lost(hub_id, link)

    def refuse(self, task: TaskRequest, reply: Reply, error: AnywireError) -> None:
        """Answer a task that is not begun."""
        final = _refusal(task, error)
        try:
            reply.send(final)
        except Exception as failure:
            if len(self._sending) >= REFUSALS_WAITING:
                log.warning("a refusal of task %s is dropped: %d wait for room already", task.task_id, REFUSALS_WAITING)
                return
            sending = asyncio.get_running_loop().create_task(
                send_final(reply, final, self._clock, self.boundary, failure)
            )
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)

    # Inside

    def _not_let_in(self, hub_id: str, link: int, error: AnywireError) -> None:
        self._counts["unauthenticated"] += 1
        name, over = printable(hub_id[:80]), self.transports[link].name
        self._once.warn(f"unauthenticated {name}", "client %s over %s is refused: %s", name, over, error)

    def _end_caller(self, caller_id: str) -> None:
        """The key of a client counts no more: what it has under way ends, and what it sends is refused."""
        error = errors.Unauthenticated(KEY_GONE)
        for run in list(self._runs.values()):
            if run.caller.id == caller_id:
                run.ending = run.ending or error
                self._stopper.stop(run, KEY_GONE)
        self._commands.end_caller(caller_id, error)

    def _slots(self, engine: EngineStatus) -> int:
        return self.slots if engine.slots is None else engine.slots

    def _why_not(self, task: TaskRequest, engine: EngineStatus) -> str:
        if self.draining:
            return "draining"
        if engine.state != "ready":
            return f"its engine is {engine.state}"
        if not engine.any_model:
            model = task.model
            for offer in engine.offers:
                if offer.model == model:
                    break
            else:
                return f"it does not serve {model!r}"
            if not offer.takes_tasks:
                return f"its model {model!r} is {offer.state}"
        if len(self._runs) - len(self._queue) >= self._slots(engine) and self._queue.is_full:
            self._refused_for_slots = True
            return "no free slot"
        return ""

    async def _answer(self, key: RunKey, run: Run) -> None:
        if run.turn is not None:
            await self._queue.turn(run)
        final = await run.answer()
        # The engine has ended, and the slot is free before the hub can know: its next task may be on the way as soon as
        # the chunk is sent.
        self._free(key)
        # Nothing is sent at a shutdown: the hub is to see that the agent is gone, and to send the task elsewhere.
        if self._stopper.closed:
            return
        try:
            run.reply.send(final)
        except Exception as failure:
            await send_final(run.reply, final, self._clock, self.boundary, failure)

    def _free(self, key: RunKey) -> None:
        run = self._runs.pop(key)
        run.ended = True
        self._fresh.discard(run)
        self._older.discard(run)
        self._give_turns()
        if not self._runs:
            self._idle.set()
        if self._refused_for_slots:
            self._refused_for_slots = False
            self._report()

    def _give_turns(self) -> None:
        """Let what waits take the slots that are free."""
        if len(self._queue):
            running = len(self._runs) - len(self._queue)
            self._queue.give_turns(self._slots(self._status.read()) - running)

    def _give_back(self, why: str) -> None:
        """Refuse what waits: another agent may take it at once."""
        self._queue.give_back(errors.Refused(f"agent {self.info.agent_id}: {why}"))

    def _engine_changed(self) -> None:
        engine = self._status.read()
        if engine.state == "failed":
            self._give_back("its engine is failed")
        else:
            self._give_turns()
        if (engine.state, engine.detail) != self._told:
            self._told = (engine.state, engine.detail)
            level = logging.WARNING if engine.state == "failed" else self._level
            log.log(level, "engine %s is %s%s", self.engine.name, engine.state, engine.detail and f": {engine.detail}")
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
        self._links[link] = sink = AgentLink(
            self, link, self._counts, self._once, self._level, transport.name, self.plane, self._end_check
        )
        return await transport.open_agent(self.info, self.plane, sink)

    def _admitted_changed(self) -> None:
        for link in self._links.values():
            link.admitted_changed()

    def _announce(self, port: AgentPort) -> None:
        port.report(self.status())


def _refusal(task: TaskRequest, error: AnywireError) -> Chunk:
    return Chunk(task.hub_id, task.task_id, task.attempt, 0, final=True, error=errors.to_wire(error))
