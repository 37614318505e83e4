"""What is known of the agents of one sort, and how they are now."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from anywire.agent_health import AgentHealth
from anywire.on_demand_settings import OnDemandConfig
from anywire.roles.agent_configs import AgentSort
from anywire.roles.on_demand.decision import Member, MemberState, SortNow
from anywire.roles.on_demand.extra_agent import ExtraAgent
from anywire.roles.on_demand.waiting_tasks import Peak, WaitingTasks
from anywire.selector import AgentView

log = logging.getLogger(__name__)

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0
"""Seconds in which no agent of a sort is started after one could not be: doubled from the first to the longest."""
JOIN_TIMEOUT = 30.0
"""Seconds after which an agent whose process is ready is not waited for any more, where it has not joined."""

Health = Callable[[str], AgentHealth]


class SortState:
    """One sort through the life of its orchestrator."""

    def __init__(self, sort: AgentSort, terms: OnDemandConfig) -> None:
        self.sort, self._terms, self.peak = sort, terms, Peak(terms.idle)
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

    def overdue(self, waiting: Iterable[float], now: float) -> int:
        """How many of those that wait since these times have waited too long."""
        return sum(since + self._terms.after <= now for since in waiting)

    def now(
        self,
        extras: Sequence[ExtraAgent],
        views: Mapping[str, AgentView],
        health: Health,
        tasks: WaitingTasks,
        now: float,
    ) -> SortNow:
        """How it is, with its ``extras`` on demand, where the orchestrator knows the agents of ``views``."""
        members = [self._always(agent_id, views.get(agent_id), health) for agent_id in self.sort.agents]
        members += [self._extra(each, views.get(each.agent_id), health, now) for each in extras]
        seen = [views[each.agent_id] for each in members if each.state == "serving"]
        if seen:
            models = frozenset(name for view in seen for name, offer in view.offers.items() if offer.takes_tasks)
            if models and models != self.models:
                self.models = models
                self.peak.set(tasks.at_once(models), now)
            self.slots = seen[-1].status.slots
        waiting = tasks.waiting(self.models)
        return SortNow(
            members,
            self.sort.most,
            self.slots,
            len(waiting),
            self.overdue(waiting, now),
            self.peak.highest(now),
            self.paused_until <= now,
            self.models,
        )

    def _always(self, agent_id: str, view: AgentView | None, health: Health) -> Member:
        if view is None:
            # Nobody knows whether it comes.
            return Member(agent_id, "away")
        state, slots = self._seen(view, health)
        return Member(agent_id, state, False, slots, view.in_flight)

    def _extra(self, extra: ExtraAgent, view: AgentView | None, health: Health, now: float) -> Member:
        state: MemberState = "starting"
        slots, running = self.slots, 0
        if view is None:
            if extra.has_served or _does_not_join(extra, now):
                state = "away"
        else:
            running = view.in_flight
            state, slots = self._seen(view, health)
            if state == "serving" and not extra.has_served:
                extra.has_served, extra.since = True, now
        return Member(extra.agent_id, "leaving" if extra.leaving else state, True, slots, running, now - extra.since)

    def _seen(self, view: AgentView, health: Health) -> tuple[MemberState, int]:
        """How an agent is that has joined, and its slots."""
        # One that is starting may not know yet how many it will have.
        slots = view.status.slots or self.slots
        if view.status.state == "starting":
            return "starting", slots
        told = health(view.agent_id)
        if view.status.state == "ready" and not view.unavailable and told.state == "closed":
            return "serving", told.slow_start or slots
        return "away", slots


def _does_not_join(extra: ExtraAgent, now: float) -> bool:
    """Whether its process runs, and it is not coming. It is said once."""
    if extra.ready_since is None or now - extra.ready_since < JOIN_TIMEOUT:
        return False
    if not extra.is_missed:
        extra.is_missed = True
        log.warning("agent %s on demand runs but has not joined; `anywire doctor` tells why", extra.agent_id)
    return True
