"""How commands tell the state of an agent that is not well."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

BREAKER = {"open": "breaker open", "half_open": "breaker half open", "quarantined": "quarantined"}
"""By `anywire.agent_health.HealthState`."""


def agent_state(state: str, order: str, health: str, slow_start: int = 0) -> str:
    """The state that an agent reports, what is ordered of it, how its breaker is, and whether it has not been given all
    its slots yet; what says nothing is left out: ``ready``, ``drained``, ``starting, quarantined``."""
    unwell = [each for each in (order, BREAKER.get(health, "")) if each]
    words = unwell if unwell and state == "ready" else [state, *unwell]
    return ", ".join([*words, "slow start"] if slow_start else words)


def why(health: Mapping[str, Any]) -> str:
    """Why an agent is not well, of its health as JSON (`anywire.views.health_json`); empty for one that is."""
    reason, tried = str(health.get("reason", "")), tried_again(health.get("retry_in_ms", 0) / 1000)
    if health.get("state") == "half_open" and not health.get("order"):
        tried = "the next task tries it"
    unwell = links(health.get("links", {})), models(health.get("models", {}))
    return "; ".join(filter(None, (reason, tried, given(health.get("slow_start", 0)), *unwell)))


def tried_again(seconds: float) -> str:
    return f"tried again in {ceil(seconds)} s" if seconds > 0 else ""


def given(slow_start: int) -> str:
    """How many slots an agent has that begins slowly."""
    return f"{slow_start} slot{'s' if slow_start > 1 else ''} so far" if slow_start else ""


def links(states: Mapping[str, str]) -> str:
    """Links whose breaker is not closed, by transport."""
    return ", ".join(f"{BREAKER.get(state, state)} over {name}" for name, state in states.items())


def models(states: Mapping[str, str]) -> str:
    """Models whose breaker is not closed, by name."""
    return ", ".join(f"{BREAKER.get(state, state)} for {name}" for name, state in states.items())
