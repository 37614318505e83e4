"""Where a task's time went: the stage timestamps that are every experiment's raw data."""

from __future__ import annotations

from itertools import pairwise

import msgspec
from msgspec.structs import astuple

STAGES = (
    "received",
    "admitted",
    "selected",
    "sent",
    "agent_received",
    "engine_started",
    "first_chunk",
    "last_chunk",
    "delivered",
)
SPANS = tuple([f"{before}-{after}" for before, after in pairwise(STAGES)])
"""From each stage to the next, where all were reached."""


class Stages(msgspec.Struct, gc=False):
    """CLOCK_MONOTONIC nanoseconds of each stage, 0 when not reached.

    ``received`` … ``sent`` and ``delivered`` are the orchestrator's clock; ``agent_received`` … ``last_chunk`` are the
    agent's, comparable with the others only when both have the same boot id (``comparable``). ``engine_started`` is
    after what the engine waits for: a slot of its own, a model that loads. A retried task has the times of its last
    attempt from ``selected`` on.
    """

    received: int = 0
    admitted: int = 0
    selected: int = 0
    sent: int = 0
    agent_received: int = 0
    engine_started: int = 0
    first_chunk: int = 0
    last_chunk: int = 0
    delivered: int = 0
    comparable: bool = True

    def whole(self) -> tuple[int, ...] | None:
        """The times of all stages in their order; None unless all were reached and can be compared."""
        times = astuple(self)[:-1]
        return times if self.comparable and 0 not in times else None

    def spans_ms(self) -> dict[str, float]:
        """Milliseconds from each reached stage to the next reached one, named ``from-to``; a span between two
        clocks that cannot be compared is left out."""
        whole = self.whole()
        if whole is not None:
            return {name: (at - before) / 1e6 for name, before, at in zip(SPANS, whole, whole[1:], strict=False)}
        spans: dict[str, float] = {}
        previous, previous_ns = "", 0
        for stage in STAGES:
            at: int = getattr(self, stage)
            if not at:
                continue
            crosses = previous == "sent" or (previous and stage == "delivered")
            if previous and (self.comparable or not crosses):
                spans[f"{previous}-{stage}"] = (at - previous_ns) / 1e6
            previous, previous_ns = stage, at
        return spans
