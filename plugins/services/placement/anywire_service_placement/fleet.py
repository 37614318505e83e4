"""The fleet as the planner is told of it: what agents offer, what they have listed, what was done there just now."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from anywire.context import Context
from anywire.offers import OfferState
from anywire.selector import AgentView
from anywire_service_placement.listing import Listing
from anywire_service_placement.listings import Listings
from anywire_service_placement.moves import Moves
from anywire_service_placement.places import Pair, Place, Replica, State, Wanted

_STATES: Mapping[OfferState, State] = {
    "stopped": "stopped",
    "starting": "starting",
    "ready": "running",
    "stopping": "stopping",
    "crashed": "crashed",
}

BUDGET = "model_memory_budget_bytes"
"""The gauge by which an agent tells its budget with each report. It changes as programs on its machine come and go,
which changes no model and so brings no new listing."""


class Fleet:
    """Reads the agents that have a wanted model; keeps nothing."""

    def __init__(self, context: Context, listings: Listings, moves: Moves) -> None:
        self._context, self._listings, self._moves = context, listings, moves

    def agents(self, wanted: Collection[str]) -> list[AgentView]:
        """Those that offer one of these models, in whatever state."""
        return [agent for agent in self._context.agents() if any(model in agent.offers for model in wanted)]

    def in_service(self, agent: AgentView) -> bool:
        """Whether clients' tasks are sent to it: it is ready, and not drained, isolated or quarantined."""
        health = self._context.agent_health(agent.agent_id)
        return agent.status.state == "ready" and not health.order and health.state != "quarantined"

    def places(self, agents: Sequence[AgentView], now: float) -> list[Place]:
        return [self._place(agent, now) for agent in agents]

    def _place(self, agent: AgentView, now: float) -> Place:
        told, agent_id = self._listings.of(agent), agent.agent_id
        listing = told.listing if told is not None and told.listing is not None else None
        known = listing or Listing()
        models = {}
        for model, offer in agent.offers.items():
            replica = known.models.get(model, Replica())
            # What an agent offers is newer than its listing; what it has just answered is newer than both.
            state = self._moves.state(agent, model, offer, now) or _STATES[offer.state]
            busy = replica.busy or self._moves.is_refused((agent_id, model), now)
            models[model] = msgspec.structs.replace(replica, state=state, busy=busy)
        return Place(
            agent_id,
            agent.info.host,
            {model: replica for model, replica in known.models.items() if model not in models} | models,
            _budget(agent, known.memory.budget_bytes),
            known.other_bytes,
            counts=self.in_service(agent),
            open=listing is not None,
            moving=self._moves.is_moving(agent.agent_id),
            load=agent.load,
        )

    def faults(self, agents: Iterable[AgentView]) -> dict[str, str]:
        """Why agents take no commands for models, by id."""
        found = {agent.agent_id: told.fault for agent in agents if (told := self._listings.of(agent)) is not None}
        return {agent_id: fault for agent_id, fault in found.items() if fault}

    def listings(self, agents: Iterable[AgentView]) -> dict[str, Listing]:
        found = {agent.agent_id: told.listing for agent in agents if (told := self._listings.of(agent)) is not None}
        return {agent_id: listing for agent_id, listing in found.items() if listing is not None}


def _budget(agent: AgentView, listed: int) -> int:
    told = agent.status.resources.get(BUDGET, -1.0)
    return int(told) if 0 <= told < math.inf else listed


def counting(places: Sequence[Place], wanted: Mapping[str, Wanted]) -> set[Pair]:
    """The replicas that count among those wanted."""
    return {
        (place.agent_id, model)
        for place in places
        if place.counts
        for model, each in wanted.items()
        if each.allows(place.agent_id) and (replica := place.models.get(model)) is not None and replica.counts
    }
