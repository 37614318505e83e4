"""Starts and ends agents on demand beside one orchestrator, as `anywire.roles.on_demand.decision` decides."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from anywire.agent_health import Order
from anywire.caller import Caller
from anywire.clock import Timer
from anywire.config import Config
from anywire.errors import InvalidRequest
from anywire.events import (
    AgentOnDemand,
    Event,
    TaskAdmitted,
    TaskDispatched,
    TaskEnded,
    TaskFellBack,
    TaskPreempted,
    TaskRequeued,
)
from anywire.launcher import RunningProcess
from anywire.metric import Metric
from anywire.on_demand_settings import OnDemandConfig
from anywire.pipeline.orchestrator import Orchestrator
from anywire.roles.agent_configs import AgentSort
from anywire.roles.on_demand.decision import SortNow, decide
from anywire.roles.on_demand.extra_agent import ExtraAgent
from anywire.roles.on_demand.sort_state import FIRST_PAUSE, JOIN_TIMEOUT, SortState
from anywire.roles.on_demand.waiting_tasks import WaitingTasks
from anywire.selector import AgentView

log = logging.getLogger(__name__)

NAME = "on_demand"
"""What its numbers are told under."""
SHORTEST_LOOK = 0.05
"""Seconds between two looks at what is to be done, at least."""

OURSELVES = Caller(NAME, role="operate")
"""Who is told to have drained an agent."""

StartAgent = Callable[[str, Config], Awaitable[RunningProcess]]


class AgentsOnDemand:
    """``start_agent`` has the launcher start one with an id and a configuration; ``grace`` are the seconds that one
    gets to end. It sees every task through events, and looks again when something has changed or falls due."""

    def __init__(
        self,
        sorts: Sequence[AgentSort],
        terms: OnDemandConfig,
        orchestrator: Orchestrator,
        start_agent: StartAgent,
        grace: float,
    ) -> None:
        self._terms, self._orchestrator, self._start_agent, self._grace = terms, orchestrator, start_agent, grace
        self._clock = orchestrator.clock
        self._sorts = [SortState(each, terms) for each in sorts]
        self._tasks = WaitingTasks()
        self._extras: dict[str, ExtraAgent] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._timer: Timer | None = None
        self._due = 0.0
        self._stops: list[Callable[[], None]] = []
        self._started = self._ended = self._failed = 0

    def begin(self) -> None:
        """Watch tasks and agents from now on."""
        orchestrator, now = self._orchestrator, self._clock.now()
        for task in orchestrator.tasks():
            self._tasks.admitted(task.task_id, task.model, now - task.age_ms / 1000)
            if task.place == "running":
                self._tasks.sent(task.task_id)
        wanted = (TaskAdmitted, TaskDispatched, TaskRequeued, TaskPreempted, TaskFellBack, TaskEnded)
        self._stops.append(orchestrator.events.subscribe("agents on demand", self._told, *wanted))
        self._stops.append(orchestrator.listen(lambda: self._look_in(0.0)))
        self._look_in(0.0)

    def metrics(self) -> Iterable[Metric]:
        """See `anywire.service.Service.metrics`."""
        yield Metric("agents", "Agents on demand that there are.", len(self._extras))
        yield Metric("most_agents", "Agents on demand that there may be.", self._terms.most)
        now = self._clock.now()
        overdue = sum(each.overdue(self._tasks.waiting(each.models), now) for each in self._sorts)
        yield Metric("overdue_tasks", "Tasks that have waited for an agent longer than they should.", overdue)
        yield Metric("started", "Agents started on demand.", self._started, counter=True)
        yield Metric("ended", "Agents on demand that were ended, not being needed.", self._ended, counter=True)
        yield Metric("failed", "Agents on demand that failed, or could not be started.", self._failed, counter=True)

    async def close(self) -> None:
        """Start nothing more, and end all of them; idempotent."""
        for stop in self._stops:
            stop()
        self._stops.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await asyncio.gather(*(each.stop(self._grace) for each in self._extras.values()))
        ending = list(self._ending)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    # What happens

    def _told(self, event: Event) -> None:
        tasks, now = self._tasks, self._clock.now()
        match event:
            case TaskAdmitted():
                tasks.admitted(event.task_id, event.model, now)
                self._count(now)
                self._look_in(self._terms.after)
            case TaskDispatched():
                tasks.sent(event.task_id)
            case TaskRequeued() | TaskPreempted():
                tasks.waits_again(event.task_id, now)
                self._look_in(self._terms.after)
            case TaskFellBack():
                tasks.is_for(event.task_id, event.model)
                self._count(now)
            case TaskEnded():
                tasks.ended(event.task_id)
                self._count(now)
                if self._extras:
                    self._look_in(self._terms.idle)

    def _count(self, now: float) -> None:
        for each in self._sorts:
            each.peak.set(self._tasks.at_once(each.models), now)

    def _changed(self, extra: ExtraAgent) -> None:
        """One became ready, or is over."""
        sort = self._sorts[extra.sort]
        if extra.over:
            self._extras.pop(extra.agent_id, None)
            if extra.failure:
                self._failed += 1
                pause = sort.failed(self._clock.now())
                log.warning("agent %s on demand: %s; none like it for %g s", extra.agent_id, extra.failure, pause)
                self._tell(extra, "failed", extra.failure)
            else:
                self._tell(extra, "ended")
        else:
            sort.pause = FIRST_PAUSE
            extra.ready_since = self._clock.now()
            self._tell(extra, "ready")
        self._look_in(0.0)

    # What is done

    def _look_in(self, seconds: float) -> None:
        """Look in so many seconds, unless that is done earlier."""
        if not self._stops:
            return
        due = self._clock.now() + max(seconds, SHORTEST_LOOK)
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due
        self._timer = self._clock.call_later(due - self._clock.now(), self._look)

    def _look(self) -> None:
        self._timer = None
        if self._orchestrator.closing:
            return
        now = self._clock.now()
        views = {each.agent_id: each for each in self._orchestrator.agents()}
        found = [self._sort_now(number, views, now) for number in range(len(self._sorts))]
        decision = decide(found, self._terms.most, self._terms.idle)
        for agent_id in decision.end:
            self._end(self._extras[agent_id])
        for number, more in enumerate(decision.start):
            for _ in range(more):
                self._start(number, found[number].overdue, views)
        self._look_again(now)

    def _look_again(self, now: float) -> None:
        """Set the timer for what falls due by itself."""
        for number, each in enumerate(self._sorts):
            waiting = self._tasks.waiting(each.models)
            coming = [since + self._terms.after - now for since in waiting if since + self._terms.after > now]
            if coming:
                self._look_in(coming[0])
            if waiting and each.paused_until > now:
                self._look_in(each.paused_until - now)
            extras = [extra for extra in self._extras.values() if extra.sort == number and not extra.leaving]
            if extras:
                aged = [extra.since + self._terms.idle - now for extra in extras]
                aged += [extra.ready_since + JOIN_TIMEOUT - now for extra in extras if extra.ready_since is not None]
                falls = each.peak.falls_in(now)
                times = [each for each in (*aged, falls) if each is not None and each > 0]
                if times:
                    self._look_in(min(times))

    def _sort_now(self, number: int, views: dict[str, AgentView], now: float) -> SortNow:
        extras = [extra for extra in self._extras.values() if extra.sort == number]
        return self._sorts[number].now(extras, views, self._orchestrator.agent_health, self._tasks, now)

    def _start(self, number: int, overdue: int, views: dict[str, AgentView]) -> None:
        sort = self._sorts[number].sort
        known = {name for each in self._sorts for name in each.sort.agents}
        agent_id, config = sort.further(self._extras.keys() | known | views.keys())
        log.info("agent %s is started: %d tasks wait for a free slot of its sort", agent_id, overdue)
        extra = ExtraAgent(
            agent_id, number, lambda: self._start_agent(agent_id, config), self._clock.now(), self._changed
        )
        self._extras[agent_id] = extra
        self._started += 1
        self._tell(extra, "starting")

    def _end(self, extra: ExtraAgent) -> None:
        log.info("agent %s is ended: it was not needed for %g s", extra.agent_id, self._terms.idle)
        extra.leaving = True
        self._ended += 1
        self._tell(extra, "leaving")
        # At once, so that no task is on its way to an agent that is asked to stop.
        self._order(extra, "drained")
        ending = asyncio.get_running_loop().create_task(self._stop(extra))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _stop(self, extra: ExtraAgent) -> None:
        await extra.stop(self._grace)
        # One of this name may be started again. Until the orchestrator has seen that this one is gone, it gets no task.
        await self._orchestrator.agents_until(lambda agents: all(each.agent_id != extra.agent_id for each in agents))
        self._order(extra, "")

    def _order(self, extra: ExtraAgent, order: Order) -> None:
        reason = "it was started on demand, and is not needed" if order else ""
        try:
            self._orchestrator.order_agent(extra.agent_id, order, reason, OURSELVES)
        except InvalidRequest as error:
            log.debug("agent %s: %s", extra.agent_id, error)

    def _tell(self, extra: ExtraAgent, state: str, reason: str = "") -> None:
        waiting = len(self._tasks.waiting(self._sorts[extra.sort].models))
        self._orchestrator.events.publish(
            AgentOnDemand,
            agent_id=extra.agent_id,
            state=state,
            reason=reason,
            waiting=waiting,
            agents=len(self._extras),
        )
