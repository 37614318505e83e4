"""What the pipeline tells about agents, their links and their health: the events of it."""

from __future__ import annotations

from collections.abc import Mapping

from anywire import events
from anywire.caller import Caller
from anywire.event_bus import EventBus
from anywire.messages import AgentStatus
from anywire.offers import read_offers
from anywire.pipeline.health import Subject
from anywire.selector import AgentView


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
        if events.AgentOrdered in self._wanted:
            self._bus.publish(
                events.AgentOrdered, agent_id=agent_id, order=order, reason=reason, caller=by.id, tenant=by.tenant
            )

    def health_changed(
        self, subject: Subject, transport: str, state: str, reason: str, evidence: Mapping[str, int]
    ) -> None:
        if self._health.get(subject, "closed") == state:
            return
        if state == "closed":
            del self._health[subject]
        else:
            self._health[subject] = state
        if events.HealthChanged in self._wanted:
            agent_id = subject if isinstance(subject, str) else subject[0]
            self._bus.publish(
                events.HealthChanged,
                agent_id=agent_id,
                state=state,
                transport=transport,
                reason=reason,
                evidence=evidence,
            )

    def _offer_changed(self, agent: AgentView, model: str, state: str, detail: str) -> None:
        self._bus.publish(events.OfferChanged, agent_id=agent.agent_id, model=model, state=state, detail=detail)
