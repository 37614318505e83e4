"""What ``GET /v1/placement`` tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anywire_service_placement.config import WantedModel
from anywire_service_placement.listing import Listing
from anywire_service_placement.moves import Moved, Moves, Moving
from anywire_service_placement.places import Place, Wanted


def model_report(
    wanted: Mapping[str, WantedModel], asked: Mapping[str, Wanted], places: Sequence[Place], unmet: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Of each wanted model: what is wanted, where it is, and why replicas are missing."""
    told = []
    for model, each in wanted.items():
        by_state: dict[str, list[str]] = {"running": [], "starting": [], "crashed": []}
        for place in places:
            replica = place.models.get(model)
            if replica is not None and replica.state in by_state and (place.counts or replica.state == "crashed"):
                by_state[replica.state].append(place.agent_id)
        inside = [agent_id for agent_id in by_state["running"] if asked[model].allows(agent_id)]
        entry: dict[str, Any] = {
            "model": model,
            "replicas": each.replicas,
            "loaded": by_state["running"],
            "loading": by_state["starting"],
            "crashed": by_state["crashed"],
            "missing": max(0, each.replicas - len(inside)),
        }
        if each.agents:
            entry["agents"] = each.agents
        if model in unmet:
            entry["why"] = unmet[model]
        told.append(entry)
    return told


def agent_report(places: Sequence[Place], listings: Mapping[str, Listing], faults: Mapping[str, str]) -> list[Any]:
    """Of each agent that has a wanted model: its memory, and what its own swaps have cost."""
    told = []
    for place in places:
        entry: dict[str, Any] = {"agent_id": place.agent_id, "host": place.host, "in_service": place.counts}
        listing = listings.get(place.agent_id)
        if listing is not None:
            memory = listing.memory
            entry |= {
                "budget_bytes": memory.budget_bytes,
                "used_bytes": memory.used_bytes,
                "swaps": memory.swaps,
                "swap_s": round(memory.swap_seconds, 3),
            }
        if place.agent_id in faults:
            entry["why_not"] = faults[place.agent_id]
        told.append(entry)
    return told


def moves_report(moves: Moves, now: float) -> dict[str, Any]:
    """What is under way, what has ended lately, and what loading costs."""
    times = moves.load_times
    total = times.total
    return {
        "under_way": [_moving(each, now) for each in moves.moving.values()],
        "recent": [_moved(each) for each in reversed(moves.recent)],
        "swap_cost": {
            "loads": total.loads,
            "failed": total.failed,
            "unloads": times.unloads,
            "seconds": round(total.seconds, 3),
            "models": times.told(),
        },
    }


def _moving(moving: Moving, now: float) -> dict[str, Any]:
    step = moving.step
    return {
        "action": step.action,
        "agent_id": step.agent_id,
        "model": step.model,
        "reason": step.reason,
        "seconds": round(now - moving.began, 3),
        "progress": moving.progress,
    }


def _moved(moved: Moved) -> dict[str, Any]:
    step = moved.step
    entry: dict[str, Any] = {
        "action": step.action,
        "agent_id": step.agent_id,
        "model": step.model,
        "reason": step.reason,
        "seconds": round(moved.seconds, 3),
        "time": round(moved.time, 3),
    }
    return entry | ({"error": moved.error} if moved.error else {})
