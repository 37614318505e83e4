"""What an operator has ordered of agents: to get no further task, or none and to lose what runs on them."""

from __future__ import annotations

from collections import Counter, OrderedDict

import msgspec

from anywire import errors
from anywire.agent_health import AgentHealth, Order
from anywire.caller import Caller
from anywire.pipeline.agent_observation import AgentObservation
from anywire.pipeline.attempt_ends import AttemptEnds
from anywire.pipeline.health import Health
from anywire.pipeline.open_attempts import OpenAttempts
from anywire.pipeline.registry import Registry
from anywire.secrecy import without_secrets

MAX_ORDERS = 1024
"""Agents for which orders hold at once."""
MAX_REASON = 1024
"""Characters of an operator's reason."""


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
        self._orders: OrderedDict[str, tuple[Order, str]] = OrderedDict()

    def with_order(self, agent_id: str, health: AgentHealth) -> AgentHealth:
        """``health`` with what is ordered of the agent, whose reason goes before others."""
        found = self._orders.get(agent_id)
        if found is None:
            return health
        order, reason = found
        return msgspec.structs.replace(health, order=order, reason=reason or health.reason)

    def order(self, agent_id: str, order: Order, reason: str, caller: Caller) -> None:
        """See `anywire.context.Context.order_agent`."""
        if caller.role != "operate":
            raise errors.Forbidden(f"this is for the role operate, this caller has the role {caller.role}")
        before = self._orders.get(agent_id)
        if before is None and self._registry.agent(agent_id) is None and not self._health.is_quarantined(agent_id):
            raise errors.InvalidRequest(f"there is no agent {agent_id[:80]!r}", param="agent_id")
        if order and before is None and len(self._orders) >= MAX_ORDERS:
            raise errors.InvalidRequest(f"orders hold for {MAX_ORDERS} agents already: restore one first")
        reason = without_secrets(reason)[:MAX_REASON]
        if before is not None:
            self._registry.unbar(agent_id, before[0])
            del self._orders[agent_id]
        if order:
            self._orders[agent_id] = (order, reason)
            self._registry.bar(agent_id, order)
            self._counts[order] += 1
        else:
            self._health.probe_now(agent_id)
        self._observation.agent_ordered(agent_id, order, reason, caller)
        if order == "isolated":
            self._take_away(agent_id, reason)

    def _take_away(self, agent_id: str, reason: str) -> None:
        """Give up what runs on it: each task goes on elsewhere if it can."""
        for attempt in self._open.of_agent(agent_id):
            if attempt.state == "ended" or attempt.cancelled:
                continue
            attempt.is_blameless = True
            what = f"agent {agent_id} was isolated by an operator" + (f": {reason}" if reason else "")
            phase: errors.Phase = "streaming" if attempt.chunks else "maybe_sent"
            self._attempt_ends.attempt_failed(attempt, errors.AgentLost(what, phase=phase), False)
