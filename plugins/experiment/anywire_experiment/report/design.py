"""The design of an experiment as tables: places in a block, interactions, lateness of the load, steadiness."""

from __future__ import annotations

import math

from anywire_experiment.analysis.arm_figures import ArmFigures
from anywire_experiment.analysis.design_figures import InteractionFigures, PlaceFigures
from anywire_experiment.analysis.interactions import DIFFERS, SAME
from anywire_experiment.analysis.results import Results
from anywire_experiment.analysis.steadiness import BY_CHANCE, FEWEST_FOR_STEP, FIRST, LAST
from anywire_experiment.analysis.wording import meaning_of, percent
from anywire_experiment.report.numbers import NONE, number, p_value, percent_change
from anywire_experiment.report.tables import Table
from anywire_experiment.statistics import Estimate

MOST_PLACES = 4
"""Places that have a column of their own; of more, the first and the last have one."""
MOST_INTERACTIONS = 40


def places(results: Results, workload: str) -> Table:
    """What the place in a block did to each metric."""
    design = results.design
    found = [each for each in design.places if each.workload == workload] if design is not None else []
    count = max((len(each.effects.effects) for each in found if each.effects is not None), default=0)
    shown = list(range(count)) if count <= MOST_PLACES else [0, count - 1]
    note = f" In this run {design.told}." if design is not None else ""
    return Table(
        "Place in a block",
        ["Metric", *(f"Place {at + 1}" for at in shown), "Most apart", "p", "p of what ran before", "Effect"],
        [_place(each, shown) for each in found],
        "Geometric mean at a place by that at the others, less 1, over all arms; it is taken to be the same for each "
        "arm. An effect with p of 0.05 or less is taken out of the values before arms are compared. What ran before: "
        "whether the arm that ran directly before makes a difference beside the place; with two arms that cannot be "
        f"told.{note}",
        frozenset({len(shown) + 1, len(shown) + 4}),
    )


def _place(each: PlaceFigures, shown: list[int]) -> list[str]:
    title = meaning_of(each.metric).title
    if each.effects is None:
        return [title, *[NONE] * (len(shown) + 3), each.reason]
    effects, carried = each.effects.effects, each.effects.p_carry_over
    most = max(range(len(effects)), key=lambda at: abs(math.log(effects[at].value)))
    return [
        title,
        *(percent_change(effects[at]) if at < len(effects) else NONE for at in shown),
        f"place {most + 1}: {percent_change(effects[most])}",
        p_value(each.effects.p),
        NONE if carried is None else p_value(carried),
        "taken out" if each.removed else "not shown",
    ]


def interactions(results: Results, workload: str) -> Table:
    """Those that differ first."""
    found = [each for each in results.interactions if each.workload == workload]
    found.sort(key=lambda each: each.outcome != DIFFERS)
    left = len(found) - MOST_INTERACTIONS
    more = f" {left} more are in results.json; none of those that differ is." if left > 0 else ""
    if left > 0 and found[MOST_INTERACTIONS].outcome == DIFFERS:
        more = f" {left} more are in results.json."
    return Table(
        "Interactions",
        ["Ratio of", "Metric", "Factor", "Levels", "Change of the ratio", "p adjusted", "The ratio"],
        [_interaction(each) for each in found[:MOST_INTERACTIONS]],
        "Whether two levels compare alike at two levels of another factor: the ratio at the second by the ratio at the "
        f"first, less 1, with its interval. Same: within {100 * results.margin:g} %. Adjusted for all interactions of "
        f"this experiment (Holm).{more}",
        frozenset({1, 2, 3, 6}),
    )


def _interaction(each: InteractionFigures) -> list[str]:
    beside = "".join(f", {factor} {level}" for factor, level in each.others.items())
    ratio: Estimate | None = None if each.comparison is None else each.comparison.ratio
    return [
        f"{each.candidate} to {each.baseline}{beside}",
        meaning_of(each.metric).title,
        each.factor,
        f"{each.levels[1]} by {each.levels[0]}",
        NONE if ratio is None else percent_change(ratio),
        NONE if each.comparison is None else p_value(each.comparison.adjusted_different),
        each.reason or {SAME: "is the same", DIFFERS: "differs"}.get(each.outcome, each.outcome),
    ]


def lateness(results: Results, arms: list[ArmFigures]) -> Table:
    return Table(
        "Load generator",
        ["Arm", "Late, p50", "Late, p99", "Late, most", f"Share of {results.statistic} latency", "Cores used"],
        [
            [
                each.arm,
                f"{number(found.p50_ms)} ms",
                f"{number(found.p99_ms)} ms",
                f"{number(found.max_ms)} ms",
                NONE if found.share is None else percent(found.share),
                NONE if found.cores is None else number(found.cores, 2),
            ]
            for each in arms
            if (found := each.lateness) is not None
        ],
        "How late requests were sent, after the moment each was meant for; a new connection is in it. Latency and time "
        "to first token count from that moment, so the share of them that is lateness is the generator's and not the "
        "arm's. Medians over the blocks, the most of all. Cores used: processor time of the generator by the "
        "time that passed; near to 1 core the generator itself is what is measured.",
    )


def steadiness(arms: list[ArmFigures]) -> Table:
    return Table(
        "Steady while measured",
        ["Arm", "Blocks with a step", "First fifth by last half", "p adjusted", "Steady"],
        [
            [
                each.arm,
                f"{found.stepped} of {found.blocks}" if found.blocks else NONE,
                NONE if found.start is None else percent_change(found.start),
                p_value(found.p_adjusted),
                "no" if found.shown else "no change shown",
            ]
            for each in arms
            if (found := each.steady) is not None
        ],
        f"A step: the latency of a block changes its level by more than chance; {100 * BY_CHANCE:g} % of steady blocks "
        f"seem to, and blocks of fewer than {FEWEST_FOR_STEP} answers are not looked at. First {100 * FIRST:g} % of "
        f"each block by its last {100 * LAST:g} %, less 1, over the blocks: it is above 0 where the warm-up was too "
        "short. Adjusted for all arms and workloads (Holm).",
        frozenset({4}),
    )
