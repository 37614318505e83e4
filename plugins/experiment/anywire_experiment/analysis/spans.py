"""The parts of a task's way, from one stage to the next, and how long each of them takes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from anywire.stages import STAGES
from anywire_experiment.analysis.sample_rows import column

SPANS = {
    "gateway to orchestrator": ("received", "admitted"),
    "queue and choice": ("admitted", "selected"),
    "serialization and send": ("selected", "sent"),
    "wire and wake-up of the agent": ("sent", "agent_received"),
    "start of the engine": ("agent_received", "engine_started"),
    "engine, first piece": ("engine_started", "first_chunk"),
    "engine, further pieces": ("first_chunk", "last_chunk"),
    "way back": ("last_chunk", "delivered"),
}
"""A task's way, from one stage to another; what the client waited beside it is ``gateway and client``."""

CROSSING = ("wire and wake-up of the agent", "way back")
"""Spans between two processes' clocks, which compare under one boot only."""


def spans_us(whole: pa.Table) -> dict[str, float]:
    """Median µs of each part of the way of whole answers, where both its ends are known and comparable."""
    comparable = column(whole, "stages_comparable").astype(bool)
    at = {stage: column(whole, f"stage_{stage}_ns") for stage in STAGES}
    found: dict[str, float] = {}
    for name, (start, end) in SPANS.items():
        usable = (at[start] > 0) & (at[end] > 0) & (comparable | (name not in CROSSING))
        if usable.any():
            found[name] = float(np.median((at[end] - at[start])[usable])) / 1e3
    known = (at["received"] > 0) & (at["delivered"] > 0)
    if known.any():
        total = column(whole, "done_ns") - column(whole, "intended_ns")
        rest = total - (at["delivered"] - at["received"])
        found["gateway and client"] = float(np.median(rest[known])) / 1e3
    return found
