"""How commands tell the state of an agent that is not well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BREAKER = {"open": "breaker open", "half_open": "breaker half open", "quarantined": "quarantined"}
"""By `anywire.agent_health.HealthState`."""


def agent_state(state: str, order: str, health: str) -> str:
    """The state that an agent reports, what is ordered of it, and how its breaker is; what says nothing is left out:
    ``ready``, ``drained``, ``starting, quarantined``."""
    unwell = [each for each in (order, BREAKER.get(health, "")) if each]
    return ", ".join(unwell if unwell and state == "ready" else [state, *unwell])


def why(health: Mapping[str, Any]) -> str:
    """Why an agent is not well, of its health as JSON (`anywire.views.health_json`); empty for one that is."""
    reason, pause = str(health.get("reason", "")), health.get("retry_in_ms", 0)
    tried = f"tried again in {pause / 1000:.0f} s" if pause else ""
    return "; ".join(filter(None, (reason, tried)))
