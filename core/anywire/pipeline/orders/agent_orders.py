"""What an operator has ordered of agents: to get no further task, or none and to lose what runs on them."""

from __future__ import annotations

import math
from collections import Counter

import msgspec

from anywire import errors
from anywire.agent_health import ORDERS, AgentHealth, Order
from anywire.caller import Caller
from anywire.pipeline.attempts.attempt_ends import AttemptEnds
from anywire.pipeline.attempts.open_attempts import OpenAttempts
from anywire.pipeline.fleet.registry import Registry
from anywire.pipeline.health.health import Health
from anywire.pipeline.observation.agent_observation import AgentObservation
from anywire.printable import printable
from anywire.scheduler import QueueKey
from anywire.secrecy import without_secrets
from anywire.selector import AgentView

MAX_ORDERS = 1024
"""Agents for which orders hold at once."""
MAX_REASON = 1024
"""Characters of an operator's reason."""
MAX_NAMED = 5
"""Agents that one error names."""


class AgentOrders:
    """They hold for an agent's id over all its lives, until they are ended or this process ends."""

    def __init__(
        self,
        registry: Registry,
        health: Health,
        open_attempts: OpenAttempts,
        attempt_ends: AttemptEnds,
        observation: AgentObservation,
        counts: Counter[str],
    ) -> None:
        self._registry, self._health, self._open = registry, health, open_attempts
        self._attempt_ends, self._observation, self._counts = attempt_ends, observation, counts
        self._orders: dict[str, tuple[Order, str]] = {}

    def report(self, agent_id: str) -> AgentHealth:
        """How an agent does, with what is ordered of it. The reason of an order goes before others."""
        health, found = self._health.report(agent_id), self._orders.get(agent_id)
        if found is None:
            return health
        order, reason = found
        return msgspec.structs.replace(health, order=order, reason=reason or health.reason)

    def order(self, agent_id: str, order: Order, reason: str, caller: Caller) -> None:
        """See `anywire.context.Context.order_agent`. An order takes the place of an earlier one."""
        if caller.role != "operate":
            raise errors.Forbidden(f"this is for the role operate, this caller has the role {caller.role}")
        if order not in ORDERS.values():
            raise errors.InvalidRequest(f"there is no order {str(order)[:80]!r}", param="order")
        before = self._orders.get(agent_id)
        is_known = self._registry.knows(agent_id) or self._health.is_quarantined(agent_id)
        if before is None and not is_known:
            raise errors.InvalidRequest(f"there is no agent {agent_id[:80]!r}", param="agent_id")
        if order and before is None and len(self._orders) >= MAX_ORDERS:
            raise errors.InvalidRequest(f"orders hold for {MAX_ORDERS} agents already: restore one first")
        # Clients read it in errors, and people on terminals.
        reason = printable(without_secrets(reason), MAX_REASON)
        ends = before[0] if before is not None and before[0] != order else ""
        if order:
            self._orders[agent_id] = (order, reason)
            self._registry.bar(agent_id, order)
            self._counts[order] += 1
        else:
            self._orders.pop(agent_id, None)
        if ends:
            # After the new one is there: in between it would serve.
            self._registry.unbar(agent_id, ends)
        if not order:
            self._health.probe_now(agent_id)
        self._observation.agent_ordered(agent_id, order, reason, caller)
        if order == "isolated":
            self._take_away(agent_id, reason)

    def why_absent(self, key: QueueKey) -> tuple[str, float]:
        """Of the agents that serve ``key`` and get no task: which they are and why, and in how many seconds the first
        of them is tried again, 0 where nobody knows. Empty where there are none."""
        agents = self._registry.barred(key)
        told = [self._why(agent) for agent in agents[:MAX_NAMED]]
        if len(agents) > MAX_NAMED:
            told.append(f"and {len(agents) - MAX_NAMED} more")
        pauses = [self._health.report(agent.agent_id).retry_in_s for agent in agents]
        return "; ".join(told), min((pause for pause in pauses if pause), default=0.0)

    def _why(self, agent: AgentView) -> str:
        agent_id = agent.agent_id
        health, found = self._health.report(agent_id), self._orders.get(agent_id)
        if found is not None:
            order, reason = found
            return f"agent {agent_id} is {order} by an operator" + (f": {reason}" if reason else "")
        pause = math.ceil(health.retry_in_s)
        when = f"tried again in {pause} s" if pause else "being tried"
        return f"agent {agent_id} is {health.state}: {health.reason}, it is {when}"

    def _take_away(self, agent_id: str, reason: str) -> None:
        """Give up what runs on it: each task goes on elsewhere if it can."""
        for attempt in self._open.of_agent(agent_id):
            if attempt.state == "ended" or attempt.cancelled:
                continue
            attempt.is_blameless = True
            what = f"agent {agent_id} was isolated by an operator" + (f": {reason}" if reason else "")
            phase: errors.Phase = "streaming" if attempt.chunks else "maybe_sent"
            self._attempt_ends.attempt_failed(attempt, errors.AgentLost(what, phase=phase), False)
