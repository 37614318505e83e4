"""What can be said of one arm, workload and metric: limits of a ratio, or of a difference of shares, for any level."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from anywire_experiment.analysis.blocks import ends
from anywire_experiment.analysis.lateness import too_late
from anywire_experiment.analysis.metrics import SHARES
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import ComparisonFigures, Results
from anywire_experiment.analysis.survivors import ANYTHING, Ends
from anywire_experiment.analysis.wording import metric_of
from anywire_experiment.plan.metric import Metric
from anywire_experiment.statistics import FEWEST_BLOCKS
from anywire_experiment.statistics.median import median_over_blocks
from anywire_experiment.statistics.run_order import without_drift
from anywire_experiment.statistics.unpaired import Side, difference, median_side, share_side

Counts = tuple[list[int], list[int]]
"""How many requests of each block have what a share is of, and of how many; in the order of the blocks."""


class Evidence(NamedTuple):
    """``limits`` gives value and limits for a level: of the logarithm of the ratio candidate / baseline, or of the
    difference of two shares. Everything that is missing is taken for what speaks against a finding: the low limit is
    that of the least it may be, the high one of the most. None where nothing can be said, and ``reason`` says why."""

    about: str
    workload: str
    metric: Metric
    arm: str
    limits: Callable[[float], Side] | None
    reason: str = ""


def of_two(first: RawData, second: RawData) -> Iterator[Evidence]:
    """The second record beside the first: each arm against itself. Blocks of different runs are no pairs."""
    for workload in first.plan.workloads:
        if workload not in second.plan.workloads:
            continue
        for arm in first.arms:
            if arm not in second.arms:
                continue
            for metric in first.metrics(workload):
                if metric in second.metrics(workload):
                    yield _unpaired(first, second, workload, arm, metric)


def _unpaired(first: RawData, second: RawData, workload: str, arm: str, metric: Metric) -> Evidence:
    said = Evidence(f"{arm}, {workload}", workload, metric, arm, None)
    if metric in SHARES:
        return _shares(said, [_counts(each, arm, workload, metric) for each in (first, second)])
    if late := next(filter(None, (too_late(each, workload, metric, (arm,)) for each in (first, second))), ""):
        return said._replace(reason=late)
    before, after = (ends(each, arm, workload, metric) for each in (first, second))
    if min(len(before), len(after)) < FEWEST_BLOCKS:
        return said._replace(reason=_few([len(before), len(after)]))
    if any(each.low <= 0.0 for side in (before, after) for each in side.values()):
        return said._replace(reason="a block's value is 0, so there is no ratio")
    low, high = (
        (_logs(first, before, at, missing), _logs(second, after, at, missing))
        for at, missing in (("low", 1 / ANYTHING), ("high", ANYTHING))
    )

    def limits(level: float) -> Side:
        least = difference(median_side(high[0], level), median_side(low[1], level))
        most = difference(median_side(low[0], level), median_side(high[1], level))
        return Side(np.asarray((least.value + most.value) / 2.0), least.low, most.high)

    return said._replace(limits=limits)


def _logs(record: RawData, side: Mapping[int, Ends], at: str, missing: float) -> list[float]:
    """By block; one that is missing may have had any value."""
    blocks = range(1, record.plan.blocks + 1)
    return [math.log(getattr(side[each], at) if each in side else missing) for each in blocks]


def of_one(raw: RawData, results: Results) -> Iterator[Evidence]:
    """The comparisons that the record's own plan makes, paired by block."""
    for each in results.comparisons:
        metric = metric_of(each.metric)
        names = [raw.levels[arm][results.compared] for arm in (each.candidate, each.baseline)]
        about = f"{names[0]} beside {names[1]}, {', '.join([each.workload, *each.levels.values()])}"
        said = Evidence(about, each.workload, metric, each.candidate, None)
        if metric in SHARES:
            # Without regard to the pairs, which can only make the limits wider.
            yield _shares(said, [_counts(raw, arm, each.workload, metric) for arm in (each.baseline, each.candidate)])
        elif each.verdict is None or each.comparison is None:
            yield said._replace(reason=each.reason)
        elif each.comparison.blocks < FEWEST_BLOCKS or each.comparison.order.too_dependent:
            yield said._replace(reason=each.sentence)
        else:
            yield said._replace(limits=_paired(raw, each, metric))


def _paired(raw: RawData, each: ComparisonFigures, metric: Metric) -> Callable[[float], Side]:
    before, after = (ends(raw, arm, each.workload, metric) for arm in (each.baseline, each.candidate))

    def ratio(block: int, of: str, to: str, missing: float) -> float:
        if block not in before or block not in after:
            return missing
        found: float = getattr(after[block], of) / getattr(before[block], to)
        seen, base = after[block].value, before[block].value
        # What the plan's own comparison has taken out of a block, such as the effect of its place.
        return found * each.ratios[block] * base / seen if block in each.ratios and seen and base else found

    low, high = (
        without_drift(np.log([ratio(block, of, to, missing) for block in range(1, raw.plan.blocks + 1)]))[0]
        for of, to, missing in (("low", "high", 1 / ANYTHING), ("high", "low", ANYTHING))
    )

    def limits(level: float) -> Side:
        least, most = median_over_blocks(low), median_over_blocks(high)
        middle = np.asarray((least.median + most.median) / 2.0)
        return Side(middle, least.interval(level)[0], most.interval(level)[1])

    return limits


def _shares(said: Evidence, sides: Sequence[Counts]) -> Evidence:
    if any(len(of) < FEWEST_BLOCKS for _, of in sides):
        return said._replace(reason=_few([len(of) for _, of in sides]))

    def limits(level: float) -> Side:
        return difference(*(share_side(counted, of, level) for counted, of in sides))

    return said._replace(limits=limits)


def _counts(record: RawData, arm: str, workload: str, metric: Metric) -> Counts:
    counted, of = [], []
    for measured in record.measured(arm, workload).values():
        series = measured.series(metric)
        if series.size:
            asked = measured.exercises().num_rows if metric == "quality" else measured.requests
            counted.append(round(float(series[0]) * asked))
            of.append(asked)
    return counted, of


def _few(blocks: Sequence[int]) -> str:
    return f"{min(blocks)} blocks are too few to be judged: {FEWEST_BLOCKS} are needed on either side"
