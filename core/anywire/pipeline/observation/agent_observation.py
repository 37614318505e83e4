"""What the pipeline tells about agents, their links and their health: the events of it, and lines of the log for
whoever watches no events."""

from __future__ import annotations

import logging
from math import ceil

from anywire import events
from anywire.agent_health import AgentHealth
from anywire.caller import Caller
from anywire.event_bus import EventBus
from anywire.messages import AgentStatus
from anywire.offers import read_offers
from anywire.pipeline.health.failing_models import ModelAt
from anywire.pipeline.health.health import Subject
from anywire.printable import printable
from anywire.selector import AgentView

log = logging.getLogger(__name__)


class AgentObservation:
    """Each method looks first whether anybody wants to know."""

    def __init__(self, bus: EventBus) -> None:
        self._bus, self._wanted = bus, bus.wanted
        self._health: dict[Subject, str] = {}
        """What was told of those that are not well."""

    def agent_joined(self, agent: AgentView) -> None:
        if events.AgentJoined in self._wanted:
            self._bus.publish(events.AgentJoined, agent_id=agent.agent_id, info=agent.info, transport=agent.transport)

    def agent_changed(self, agent: AgentView, before: AgentStatus) -> None:
        status = agent.status
        if events.AgentChanged in self._wanted:
            self._bus.publish(
                events.AgentChanged,
                agent_id=agent.agent_id,
                state=status.state,
                slots=status.slots,
                models=tuple(agent.offers),
                detail=status.detail,
            )
        if events.OfferChanged in self._wanted and status.offers != before.offers:
            old = {offer.model: offer for offer in read_offers(before.offers)}
            for model, offer in agent.offers.items():
                earlier = old.pop(model, None)
                if earlier is None or (earlier.state, earlier.detail) != (offer.state, offer.detail):
                    self._offer_changed(agent, model, offer.state, offer.detail)
            for model in old:
                self._offer_changed(agent, model, "gone", "")

    def agent_lost(self, agent: AgentView, reason: str) -> None:
        for subject in [each for each in self._health if isinstance(each, tuple) and each[0] == agent.agent_id]:
            del self._health[subject]
        if events.AgentLost in self._wanted:
            self._bus.publish(
                events.AgentLost, agent_id=agent.agent_id, incarnation=agent.info.incarnation, reason=reason
            )

    def link_up(self, agent: AgentView, transport: str) -> None:
        if events.LinkUp in self._wanted:
            self._bus.publish(
                events.LinkUp, agent_id=agent.agent_id, incarnation=agent.info.incarnation, transport=transport
            )

    def link_lost(self, agent: AgentView, transport: str, reason: str) -> None:
        if events.LinkLost in self._wanted:
            self._bus.publish(
                events.LinkLost,
                agent_id=agent.agent_id,
                incarnation=agent.info.incarnation,
                transport=transport,
                reason=reason,
            )

    def agent_ordered(self, agent_id: str, order: str, reason: str, by: Caller) -> None:
        why = f": {reason}" if reason else ""
        log.info("agent %s is %s by %s%s", agent_id, order or "restored", by.id or "an operator", why)
        if events.AgentOrdered in self._wanted:
            self._bus.publish(
                events.AgentOrdered, agent_id=agent_id, order=order, reason=reason, caller=by.id, tenant=by.tenant
            )

    def health_changed(self, subject: Subject, transport: str, health: AgentHealth, cause: str, said: str) -> None:
        """``cause`` is the code of most of its failures, ``said`` the message of the last one."""
        state = health.state
        if self._health.get(subject, "closed") == state:
            return
        if state == "closed":
            del self._health[subject]
        else:
            self._health[subject] = state
        agent_id = subject if isinstance(subject, str) else subject[0]
        model = subject.model if isinstance(subject, ModelAt) else ""
        who = f"{printable(model)} at agent {agent_id}" if model else f"agent {agent_id}"
        _log_health(f"{who} over {transport}" if transport else who, health, said)
        if events.HealthChanged in self._wanted:
            self._bus.publish(
                events.HealthChanged,
                agent_id=agent_id,
                state=state,
                transport=transport,
                reason=cause,
                evidence=health.evidence,
                trips=health.trips,
                retry_in_ms=round(1e3 * health.retry_in_s),
                model=model,
            )

    def slow_start(self, agent: AgentView, given: int) -> None:
        if events.SlowStart in self._wanted:
            self._bus.publish(events.SlowStart, agent_id=agent.agent_id, given=given, slots=agent.status.slots)

    def _offer_changed(self, agent: AgentView, model: str, state: str, detail: str) -> None:
        self._bus.publish(events.OfferChanged, agent_id=agent.agent_id, model=model, state=state, detail=detail)


def _log_health(who: str, health: AgentHealth, said: str) -> None:
    pause, last = ceil(health.retry_in_s), f"; the last one: {said}" if said else ""
    if health.state == "quarantined":
        log.warning("%s is quarantined, and sent a probe in %d s: %s%s", who, pause, health.reason, last)
    elif health.state == "open":
        log.warning("the breaker of %s is open, for %d s: %s%s", who, pause, health.reason, last)
    elif health.state == "half_open":
        log.debug("the breaker of %s is half open: the next task tries it", who)
    else:
        log.info("the breaker of %s is closed: all is well again", who)
