"""Why a wanted replica is missing and nothing can be done, in a sentence."""

from __future__ import annotations

from anywire.sizes import shown_size
from anywire_service_placement.draft import Draft
from anywire_service_placement.places import Place

MAX_NAMED = 5
"""Agents that one sentence names."""


def why_unmet(model: str, draft: Draft) -> str:
    """What stands in the way, agent by agent."""
    wanted, having = draft.wanted[model], draft.having(model)
    if not having:
        return "no agent has this model"
    allowed = [place for place in having if wanted.allows(place.agent_id)]
    if not allowed:
        return f"none of its agents is there: {', '.join(sorted(wanted.agents)[:MAX_NAMED])}"
    told = [(place.agent_id, _why_not(place, model, draft)) for place in allowed]
    left = [(agent_id, why) for agent_id, why in told if why]
    if not left:
        return f"all {len(allowed)} agents that have it have loaded it, or load it"
    named = "; ".join(f"{agent_id} {why}" for agent_id, why in left[:MAX_NAMED])
    return named + (f"; and {len(left) - MAX_NAMED} more" if len(left) > MAX_NAMED else "")


def _why_not(place: Place, model: str, draft: Draft) -> str:
    """Empty where it is loaded."""
    if not place.counts:
        return "is out of service"
    if draft.is_loaded(place, model):
        return ""
    if not place.open:
        return "takes no commands for models"
    if draft.rests(place, model):
        return "is tried again later"
    need, budget, free = place.models[model].memory_bytes, place.budget_bytes, draft.free(place)
    most = budget - place.other_bytes
    if budget and need > most:
        return f"has {shown_size(max(0, most))} for models, and it needs {shown_size(need)}"
    if budget and need > free:
        has = shown_size(max(0, free))
        return f"has {has} free, it needs {shown_size(need)}, and what is loaded is wanted or in use"
    return "has models of another group loaded that are wanted or in use"
