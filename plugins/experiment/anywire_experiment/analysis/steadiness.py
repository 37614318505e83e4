"""Whether latencies were steady while they were measured: in each block, and over all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np
from scipy import stats

from anywire_experiment.analysis.blocks import mean_over_blocks
from anywire_experiment.analysis.design_figures import SteadyFigures
from anywire_experiment.analysis.measured import Measured
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import ArmFigures
from anywire_experiment.analysis.sample_rows import Floats
from anywire_experiment.plan import Plan
from anywire_experiment.statistics import Estimate, holm
from anywire_experiment.statistics.steady import FEWEST_SAMPLES, batch_medians, step_in
from anywire_experiment.workload import Closed, Poisson, Workload

BY_CHANCE = 0.05
"""Share of steady runs in which a step is seen, at most (`anywire_experiment.statistics.steady_calibration`)."""
FIRST, LAST = 0.2, 0.5
"""Parts of a run that are compared over the blocks."""


def is_even(workload: Workload) -> bool:
    """Whether the load is meant to be the same from the start to the end, so that latencies could be steady."""
    return workload.fault is None and isinstance(workload.arrivals, Closed | Poisson)


def steadiness_of(record: RawData, arm: str, workload: str) -> SteadyFigures | None:
    """Of one arm, not yet judged with the others (`judged_together`); None where the load is not even, or no block has
    100 whole answers."""
    if not is_even(record.plan.workloads[workload]):
        return None
    blocks = {
        block: series
        for block, each in record.measured(arm, workload).items()
        if (series := _in_order(each)).size >= FEWEST_SAMPLES and series.min() > 0.0
    }
    if not blocks:
        return None
    stepped = sum(step_in(each).shown for each in blocks.values())
    start, p_start = _start(record.plan, blocks)
    p_steps = float(stats.binom.sf(stepped - 1, len(blocks), BY_CHANCE))
    p = min(1.0, 2.0 * min(p_start, p_steps))
    return SteadyFigures(len(blocks), stepped, start, p, p, False)


def judged_together(figures: list[ArmFigures]) -> list[ArmFigures]:
    """With their p-values adjusted for each other."""
    known = [at for at, each in enumerate(figures) if each.steady is not None]
    if not known:
        return figures
    adjusted = holm([found.p for at in known if (found := figures[at].steady) is not None])
    made = list(figures)
    for at, p in zip(known, adjusted, strict=True):
        if (found := made[at].steady) is not None:
            judged = msgspec.structs.replace(found, p_adjusted=float(p), shown=bool(p <= BY_CHANCE))
            made[at] = msgspec.structs.replace(made[at], steady=judged)
    return made


def told(each: ArmFigures) -> str:
    """What a reader must know, in a sentence; empty where nothing was shown."""
    found = each.steady
    if found is None or not found.shown:
        return ""
    start = ""
    if found.start is not None and not found.start.low <= 1.0 <= found.start.high:
        word = "larger" if found.start.value > 1.0 else "smaller"
        start = (
            f"; its first fifth is {100 * abs(found.start.value - 1.0):.1f} % {word} than its last half "
            f"({100 * found.start.level:g} % interval {100 * (found.start.low - 1):+.1f} to "
            f"{100 * (found.start.high - 1):+.1f} %)"
        )
    return (
        f"the latency of {each.arm} under {each.workload} was not steady while it was measured: a step in "
        f"{found.stepped} of {found.blocks} blocks, and {100 * BY_CHANCE:g} % have one by chance{start}: a longer "
        "warm-up helps where the start differs; a load that is more than the system can do never gets steady"
    )


def _in_order(measured: Measured) -> Floats:
    return measured.series("latency")


def _start(plan: Plan, blocks: Mapping[int, Floats]) -> tuple[Estimate | None, float]:
    """The first fifth by the last half, and its p-value: Student's, over the blocks."""
    logs = []
    for series in blocks.values():
        batches = np.log(batch_medians(series))
        first, last = batches[: int(FIRST * batches.size)], batches[-int(LAST * batches.size) :]
        logs.append(float(first.mean() - last.mean()))
    found = mean_over_blocks(plan, logs)
    if found is None or np.ptp(logs) == 0.0:
        return None, 1.0
    p = float(stats.ttest_1samp(logs, 0.0).pvalue)
    return Estimate(math.exp(found.value), math.exp(found.low), math.exp(found.high), found.level), p
