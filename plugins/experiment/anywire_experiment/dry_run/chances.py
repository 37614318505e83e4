"""What so many blocks can show: the power of each comparison, by the spread that an earlier record or pilot had."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from anywire_experiment.analysis.metrics import JUDGED_SHARES, OF_FAULTS, SHARES, can_have, metrics_of
from anywire_experiment.analysis.results import Results
from anywire_experiment.analysis.wording import meaning_of, metric_of, place
from anywire_experiment.plan.arms import Arm
from anywire_experiment.plan.metric import Metric
from anywire_experiment.plan.plan import Plan
from anywire_experiment.statistics import FEWEST_FOR_INTERVAL, blocks_needed, power, share_over_blocks
from anywire_experiment.statistics.samples import ROUNDING

SPREADS = (0.02, 0.05, 0.10, 0.20)
"""Spreads of the log ratio between blocks for which power is told where none is known."""
SHARE_SPREADS = (0.01, 0.02, 0.05, 0.10)
"""The same of the difference of two shares."""
WANTED = 0.8
MOST_TOLD = 1000
"""Blocks from which on a comparison is called hopeless."""


class Chance(NamedTuple):
    """``equivalent``: the chance to show that arms which are alike are equivalent; ``different``: to show that arms
    which are as far apart as the margin differ. ``needed``: the blocks with which both are 80 %. ``of_share``: spread
    and margin are those of the difference of two shares. ``is_known``: the spread is an earlier record's."""

    about: str
    spread: float
    equivalent: float
    different: float
    needed: int
    of_share: bool = False
    is_known: bool = False


class Pair(NamedTuple):
    """A comparison that the plan will make."""

    workload: str
    metric: Metric
    baseline: Arm
    candidate: Arm


def compared(plan: Plan, arms: Sequence[Arm]) -> list[Pair]:
    """Every comparison of the plan, those too that are told and not judged."""
    return [
        Pair(workload, metric, baseline, candidate)
        for workload in plan.workloads
        for baseline, candidate in _arms(plan, arms)
        for metric in metrics_of(plan, workload)
        if can_have(plan, metric, baseline.levels) and can_have(plan, metric, candidate.levels)
    ]


def pairs(plan: Plan, arms: Sequence[Arm]) -> list[Pair]:
    """Every comparison of the plan that is judged: all of them together, as one family."""
    return [each for each in compared(plan, arms) if each.metric in JUDGED_SHARES or each.metric not in SHARES]


def _arms(plan: Plan, arms: Sequence[Arm]) -> Iterator[tuple[Arm, Arm]]:
    for candidate in arms:
        if plan.compared and candidate.levels[plan.compared] != plan.base_level:
            wanted = {**candidate.levels, plan.compared: plan.base_level}
            yield next(each for each in arms if dict(each.levels) == wanted), candidate


def chances(plan: Plan, arms: Sequence[Arm], earlier: Results | None = None) -> list[Chance]:
    """Of each comparison that is judged and whose spread ``earlier`` tells, by names of workload, metric and arms, or
    else by workload and metric. Of ratios and of shares of which none is told: of each of `SPREADS`, and of
    `SHARE_SPREADS`."""
    judged = pairs(plan, arms)
    family = len(judged)
    known = _known(earlier) if earlier is not None else {}
    made = []
    for each in judged:
        found = known.get((each.workload, each.metric, each.candidate.name)) or known.get(
            (each.workload, each.metric, "")
        )
        if found is not None:
            others = {factor: level for factor, level in each.candidate.levels.items() if factor != plan.compared}
            names = f"{each.candidate.levels[plan.compared]} beside {each.baseline.levels[plan.compared]}"
            about = f"{each.workload}, {place(each.metric, others)}: {names}"
            made.append(_chance(plan, about, found[0], family, found[1], of_share=each.metric in SHARES))
    for of_share, spreads in ((False, SPREADS), (True, SHARE_SPREADS)):
        if any((each.metric in SHARES) == of_share for each in judged) and of_share not in (c.of_share for c in made):
            made += [_chance(plan, "", each, family, None, of_share=of_share) for each in spreads]
    return made


def untold(plan: Plan, arms: Sequence[Arm], told: Sequence[Chance]) -> list[str]:
    """What no chance is told of, or not for sure, a sentence each."""
    metrics = dict.fromkeys(each.metric for each in compared(plan, arms))
    said = []
    if shares := [meaning_of(each).title for each in metrics if each in SHARES - JUDGED_SHARES]:
        said.append(f"{', '.join(shares)}: told and not judged; {_of_rare(plan)}")
    times = [meaning_of(each).title for each in metrics if each in OF_FAULTS]
    if times and not all(any(title in each.about for each in told if each.is_known) for title in times):
        said.append(
            f"{', '.join(times)}: judged as ratios where no block has 0; each block gives one number, whose spread "
            "only a record of the same fault tells"
        )
    return said


def _of_rare(plan: Plan) -> str:
    """What the plan's blocks leave open where nothing fails."""
    if plan.blocks < FEWEST_FOR_INTERVAL:
        return f"an interval takes {FEWEST_FOR_INTERVAL} blocks"
    none = share_over_blocks([0] * plan.blocks, [1] * plan.blocks, plan.confidence)
    assert none is not None
    return (
        f"where none fails in {plan.blocks} blocks, the interval of {100 * plan.confidence:g} % reaches to "
        f"{100 * none.high:.2g} %"
    )


def _known(earlier: Results) -> Mapping[tuple[str, str, str], tuple[float, int]]:
    """Spreads and the blocks that told them; without a candidate the widest of the workload's."""
    found: dict[tuple[str, str, str], tuple[float, int]] = {}
    for each in earlier.comparisons:
        of = each.comparison or each.shares
        # Where no block of either differs from the other nothing tells how much one may.
        if of is not None and (each.shares is None or of.spread > ROUNDING):
            told = (of.spread, of.blocks)
            found[each.workload, metric_of(each.metric), each.candidate] = told
            key = (each.workload, metric_of(each.metric), "")
            found[key] = max(found.get(key, told), told)
    return found


def _chance(
    plan: Plan, about: str, spread: float, family: int, known_from: int | None, *, of_share: bool = False
) -> Chance:
    alpha = 1.0 - plan.confidence
    # `power` counts in logarithms of ratios.
    margin = math.expm1(plan.share_margin) if of_share else plan.margin

    def of(true_ratio: float) -> tuple[float, float]:
        return power(
            spread,
            plan.blocks,
            margin,
            true_ratio=true_ratio,
            alpha=alpha,
            family=family,
            known_from=known_from,
            of_mean=of_share,
        )

    needed = blocks_needed(
        spread, margin, power=WANTED, alpha=alpha, family=family, known_from=known_from, of_mean=of_share
    )
    return Chance(about, spread, of(1.0)[0], of(1.0 + margin)[1], needed, of_share, known_from is not None)
