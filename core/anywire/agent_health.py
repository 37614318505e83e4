"""How an agent does, as it is told of: by ``/v1/agents``, `anywire.context.Context.agent_health` and the event
`anywire.events.HealthChanged`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

HealthState = Literal["closed", "open", "half_open", "quarantined"]
"""Of a breaker: ``closed``, all is well; ``open``, it gets no task while another agent serves the model; ``half_open``,
it is tried with few tasks. ``quarantined``: it gets no client's task at all until it has passed a probe."""
Order = Literal["", "drained", "isolated"]
"""What an operator has ordered: ``drained``, no further task; ``isolated``, none, and what ran on it was taken away."""

NO_EVIDENCE: Mapping[str, int] = {}


class AgentHealth(msgspec.Struct, frozen=True):
    """``reason`` is for a person, empty while all is well. ``evidence`` counts its failures by code since it was last
    well. ``trips`` is how often its breaker has opened lately, ``probes`` how many probes it was sent in quarantine,
    ``retry_in_s`` the time until it is tried next, 0 where that is not waited for. ``slow_start`` is how many slots it
    has been given so far while it begins slowly, 0 while it has all of them. ``links`` has the state of the breaker of
    each of its links, by transport, that is not closed, and ``models`` that of each of its models."""

    state: HealthState = "closed"
    order: Order = ""
    reason: str = ""
    evidence: Mapping[str, int] = NO_EVIDENCE
    trips: int = 0
    probes: int = 0
    retry_in_s: float = 0.0
    slow_start: int = 0
    links: Mapping[str, HealthState] = {}
    models: Mapping[str, HealthState] = {}


WELL = AgentHealth()

ORDERS: Mapping[str, Order] = {"drain": "drained", "isolate": "isolated", "restore": ""}
"""What an operator says, and what then is ordered."""


def counted(evidence: Mapping[str, int]) -> str:
    """Failures by code, for a person: ``3 × engine_failed, 1 × agent_lost``."""
    return ", ".join(f"{number} × {code}" for code, number in sorted(evidence.items(), key=lambda each: -each[1]))
