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
from anywire.roles.on_demand.decision import Member, MemberState, SortNow, decide
from anywire.roles.on_demand.extra_agent import ExtraAgent
from anywire.roles.on_demand.waiting_tasks import Peak, WaitingTasks
from anywire.selector import AgentView

log = logging.getLogger(__name__)

NAME = "on_demand"
"""What its numbers are told under."""
SHORTEST_LOOK = 0.05
"""Seconds between two looks at what is to be done, at least."""
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0
"""Seconds in which no agent of a sort is started after one could not be: doubled from the first to the longest."""

OURSELVES = Caller(NAME, role="operate")
"""Who is told to have drained an agent."""

StartAgent = Callable[[str, Config], Awaitable[RunningProcess]]


class _Sort:
    """What is known of the agents of one sort."""

    def __init__(self, sort: AgentSort, idle: float) -> None:
        self.sort, self.peak = sort, Peak(idle)
        self.models: frozenset[str] = frozenset()
        """Those that its agents offered when they last offered any."""
        self.slots = sort.config.agent.slots
        """Of the agent that was seen last."""
        self.pause, self.paused_until = FIRST_PAUSE, 0.0

    def failed(self, now: float) -> float:
        """Start none for a while; how long."""
        pause, self.paused_until = self.pause, now + self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE)
        return pause


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
        self._sorts = [_Sort(each, terms.idle) for each in sorts]
        self._tasks = WaitingTasks()
        self._extras: dict[str, ExtraAgent] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._timer: Timer | None = None
        self._due = 0.0
        self._stops: list[Callable[[], None]] = []
        self._started = self._ended = self._failed = self._overdue = 0

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
        yield Metric("overdue_tasks", "Tasks that have waited for an agent longer than they should.", self._overdue)
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
        await asyncio.gather(*(each.stop(self._grace) for each in self._extras.values()), *self._ending)

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
        elif extra.is_ready:
            sort.pause = FIRST_PAUSE
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
        found = [self._sort_now(number, each, views, now) for number, each in enumerate(self._sorts)]
        self._overdue = sum(each.overdue for each in found)
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
                falls = each.peak.falls_in(now)
                times = [each for each in (*aged, falls) if each is not None and each > 0]
                if times:
                    self._look_in(min(times))

    def _sort_now(self, number: int, sort: _Sort, views: dict[str, AgentView], now: float) -> SortNow:
        members = [self._member(agent_id, None, views.get(agent_id), now) for agent_id in sort.sort.agents]
        extras = [extra for extra in self._extras.values() if extra.sort == number]
        members += [self._member(extra.agent_id, extra, views.get(extra.agent_id), now) for extra in extras]
        seen = [views[each.agent_id] for each in members if each.state == "serving"]
        if seen:
            models = frozenset(name for view in seen for name, offer in view.offers.items() if offer.takes_tasks)
            if models and models != sort.models:
                sort.models = models
                sort.peak.set(self._tasks.at_once(models), now)
            sort.slots = seen[-1].status.slots
        waiting = self._tasks.waiting(sort.models)
        return SortNow(
            members,
            sort.sort.most,
            sort.slots,
            len(waiting),
            sum(since + self._terms.after <= now for since in waiting),
            sort.peak.highest(now),
            sort.paused_until <= now,
        )

    def _member(self, agent_id: str, extra: ExtraAgent | None, view: AgentView | None, now: float) -> Member:
        state: MemberState = "starting" if view is None or view.status.state == "starting" else "away"
        usual = self._sorts[extra.sort].slots if extra is not None else 0
        slots, running = usual, 0
        if view is not None:
            # One that is starting may not know yet how many it will have.
            slots, running = view.status.slots or usual, view.in_flight
            health = self._orchestrator.agent_health(agent_id)
            if view.status.state == "ready" and not view.unavailable and health.state == "closed":
                state = "serving"
                slots = health.slow_start or slots
                if extra is not None and not extra.has_served:
                    extra.has_served, extra.since = True, now
        if extra is None:
            if view is None:
                # Where it is not there, nobody knows whether it comes.
                state = "away"
            return Member(agent_id, state, False, slots, running)
        if extra.leaving:
            state = "leaving"
        elif view is None and extra.has_served:
            state = "away"
        return Member(agent_id, state, True, slots, running, now - extra.since)

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
        try:
            await extra.stop(self._grace)
        finally:
            # One of this name may be started again.
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
