"""Whether the system kept up with an open loop at a given rate: what a record tells of saturation without a search."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from anywire_experiment.analysis.measured import Measured
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.sample_rows import column
from anywire_experiment.analysis.wording import percent
from anywire_experiment.plan.workload import Bursts, Poisson, Workload

FEWEST = 40
"""Whole answers of a block without which nothing is told of it."""
BEHIND = 0.05
"""Share of the time by which latency may grow: above the capacity it grows by 1 − capacity/rate."""


def is_at_a_rate(workload: Workload) -> bool:
    """Whether requests come at one rate all the time, whatever the system does."""
    alike = workload.fault is None and workload.conversation is None
    return alike and isinstance(workload.arrivals, Poisson | Bursts)


def growth_of(measured: Measured) -> float | None:
    """By which share of the time latency grew, from the first quarter of a block to its last; None with few answers."""
    whole = measured.whole
    if whole.num_rows < FEWEST:
        return None
    at = column(whole, "intended_ns")
    took = column(whole, "done_ns") - at
    asked = column(measured.rows, "intended_ns")
    begin, span = int(asked.min()), int(asked.max() - asked.min())
    first, last = took[at <= begin + span / 4], took[at >= begin + 3 * span / 4]
    if not span or not first.size or not last.size:
        return None
    return float((np.median(last) - np.median(first)) / (0.75 * span))


def told(record: RawData) -> Iterator[str]:
    """What a reader must know, a sentence for each workload that was more than the system could do with an arm: in
    most blocks, and by their median."""
    for name, workload in record.plan.workloads.items():
        if not is_at_a_rate(workload):
            continue
        behind = []
        for arm in record.arms:
            blocks = [each for of in record.measured(arm, name).values() if (each := growth_of(of)) is not None]
            if blocks and np.median(blocks) > BEHIND and 2 * sum(each > BEHIND for each in blocks) > len(blocks):
                behind.append(f"{arm} (by {percent(float(np.median(blocks)))} of the time)")
        if behind:
            yield (
                f"{name} was more than the system could do with {', '.join(behind)}: latency grew as long as it was "
                "measured, so its figures depend on how long that was; lower the rate, or search the one that is borne "
                "(`arrivals: {kind: search}`)"
            )
