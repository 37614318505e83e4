"""How many comparisons a plan judges together, and whether its blocks are enough for so many."""

from __future__ import annotations

import math
from collections.abc import Iterator

from anywire_experiment.analysis.metrics import default_metrics, measurable
from anywire_experiment.plan import Plan
from anywire_experiment.statistics import FEWEST_BLOCKS, fewest_blocks


def family_size(plan: Plan) -> int:
    """Comparisons of the plan that are judged; shares of failed requests are told beside them."""
    if not plan.factors:
        return 0
    pairs = math.prod(len(levels) - (factor == plan.compared) for factor, levels in plan.factors.items())
    wanted = (
        tuple(each for each in plan.metrics if measurable(each, workload)) or default_metrics(workload)
        for workload in plan.workloads.values()
    )
    return pairs * sum(metric != "failures" for metrics in wanted for metric in metrics)


def too_large(plan: Plan) -> Iterator[str]:
    """A sentence, where so many comparisons can show no difference with so few blocks, whatever is measured."""
    family = family_size(plan)
    least = fewest_blocks(max(family, 1), 1.0 - plan.confidence)
    if FEWEST_BLOCKS <= plan.blocks < least:
        yield (
            f"the plan has {plan.blocks} blocks for {family} comparisons: fewer than {least} show no difference in a "
            "family so large, not even where all blocks agree"
        )
