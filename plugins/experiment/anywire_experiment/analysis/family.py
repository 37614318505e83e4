"""How many comparisons are judged together, and whether the blocks are enough for so many."""

from __future__ import annotations

from collections.abc import Iterator

from anywire_experiment.analysis.comparisons import pairs
from anywire_experiment.analysis.metrics import JUDGED_SHARES, SHARES
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.plan.plan import Plan
from anywire_experiment.statistics import FEWEST_BLOCKS, fewest_blocks


def family_size(record: RawData) -> int:
    """Comparisons of a record's plan that are judged; shares of failed requests are told beside them."""
    return sum(
        record.can_have(metric, baseline) and record.can_have(metric, candidate)
        for baseline, candidate in pairs(record)
        for workload in record.plan.workloads
        for metric in record.metrics(workload)
        if metric not in SHARES or metric in JUDGED_SHARES
    )


def too_large(plan: Plan, family: int) -> Iterator[str]:
    """A sentence, where so many comparisons can show no difference with the plan's blocks, whatever is measured."""
    least = fewest_blocks(max(family, 1), 1.0 - plan.confidence)
    if FEWEST_BLOCKS <= plan.blocks < least:
        yield (
            f"the plan has {plan.blocks} blocks for {family} comparisons: fewer than {least} show no difference in a "
            "family so large, not even where all blocks agree"
        )
