"""The link between two hosts, as a plan asks for it."""

from __future__ import annotations

import pydantic

from anywire_experiment.plan.section import Positive, Section


class Network(Section):
    """The link between the orchestrator's host and the agents' (network namespaces of this machine); nothing set:
    loopback and no namespace. Values hold for each direction."""

    delay_ms: float = pydantic.Field(0.0, ge=0, le=60_000, allow_inf_nan=False)
    jitter_ms: float = pydantic.Field(0.0, ge=0, le=60_000, allow_inf_nan=False)
    loss: float = pydantic.Field(0.0, ge=0, lt=1, description="share of packets lost, 0.01 is one in a hundred")
    bandwidth_mbit: Positive | None = None
