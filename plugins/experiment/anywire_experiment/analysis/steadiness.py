"""Whether latencies were steady while they were measured: in each block, and over all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from anywire_experiment.analysis.arm_figures import ArmFigures
from anywire_experiment.analysis.blocks import mean_over_blocks
from anywire_experiment.analysis.design_figures import SteadyFigures
from anywire_experiment.analysis.measured import Measured
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.sample_rows import Floats
from anywire_experiment.analysis.wording import percent
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.workload import Closed, Poisson, Workload
from anywire_experiment.statistics import Estimate, holm
from anywire_experiment.statistics.probability import binomial_above, student_above
from anywire_experiment.statistics.steady import batch_medians, step_in

FEWEST_FOR_STEP, FEWEST_FOR_START = 200, 50
"""Whole answers in a block from which on a step can be told from chance, and from which on its start counts."""
BY_CHANCE = 0.05
"""Share of steady runs of 200 in which a step is seen, at most (`anywire_experiment.statistics.steady_calibration`)."""
FIRST, LAST = 0.2, 0.5
"""Parts of a run that are compared over the blocks."""


def is_even(workload: Workload) -> bool:
    """Whether the load is meant to be the same from the start to the end, so that latencies could be steady. Sessions
    begin with short histories, and go on with long ones."""
    alike = workload.fault is None and workload.conversation is None
    return alike and isinstance(workload.arrivals, Closed | Poisson)


def steadiness_of(record: RawData, arm: str, workload: str) -> SteadyFigures | None:
    """Of one arm, not yet judged with the others (`judged_together`); None where the load is not even, or no block has
    enough whole answers."""
    measured = record.measured(arm, workload)
    if not is_even(record.plan.workloads[workload]) or any(each.fault() for each in measured.values()):
        return None
    blocks = {
        block: series
        for block, each in measured.items()
        if (series := _in_order(each)).size >= FEWEST_FOR_START and series.min() > 0.0
    }
    if not blocks:
        return None
    long = [each for each in blocks.values() if each.size >= FEWEST_FOR_STEP]
    stepped = sum(step_in(each).shown for each in long)
    start, p_start = _start(record.plan, blocks)
    p_steps = float(binomial_above(stepped - 1, len(long), BY_CHANCE))
    p = min(1.0, 2.0 * min(p_start, p_steps))
    return SteadyFigures(len(long), stepped, start, p, p, False)


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


def told(figures: Sequence[ArmFigures]) -> Iterator[str]:
    """What a reader must know, a sentence for each workload in which an arm was not steady."""
    for workload in dict.fromkeys(each.workload for each in figures):
        found = [each for each in figures if each.workload == workload and each.steady and each.steady.shown]
        if not found:
            continue
        arms = ", ".join(_seen(each.arm, each.steady) for each in found if each.steady)
        slow = any(each.steady and each.steady.start and each.steady.start.low > 1.0 for each in found)
        why = (
            "where the start is slower, raise `warm_up.requests`" if slow else "the machine was used by others, perhaps"
        )
        yield (
            f"under {workload} latency was not steady while it was measured: {arms}; {100 * BY_CHANCE:g} % of steady "
            f"blocks have a step by chance; {why}, or the load is more than the system can do"
        )


def _seen(arm: str, found: SteadyFigures) -> str:
    said = f"{arm}, a step in {found.stepped} of {found.blocks} blocks" if found.blocks else arm
    if found.start is None or found.start.low <= 1.0 <= found.start.high:
        return said
    low, high = (percent(each - 1.0, signed=True) for each in (found.start.low, found.start.high))
    change = percent(found.start.value - 1.0, signed=True)
    limits = f"{100 * found.start.level:g} % interval {low} to {high}"
    return f"{said}, the first fifth {change} by the last half ({limits})"


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
    count = len(logs)
    variance = float(np.var(logs)) * (count / (count - 1))
    t = float(np.mean(logs)) / math.sqrt(variance / count)
    p = 2.0 * float(student_above(abs(t), count - 1))
    return Estimate(math.exp(found.value), math.exp(found.low), math.exp(found.high), found.level), p
