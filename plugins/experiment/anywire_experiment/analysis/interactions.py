"""Whether two levels compare alike at every level of another factor: ratios of ratios, with intervals over blocks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import msgspec

from anywire_experiment.analysis.blocks import MAY_BE_ZERO, is_told, values
from anywire_experiment.analysis.design_figures import InteractionFigures
from anywire_experiment.analysis.lateness import too_late
from anywire_experiment.analysis.places import without_place
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.wording import meaning_of, metric_of
from anywire_experiment.plan.faults import FAULT
from anywire_experiment.plan.metric import Metric
from anywire_experiment.statistics import Comparison, Estimate, Outcome, as_family, compare, verdict

SAME, DIFFERS = "same", "differs"
MOST_TOLD = 5
Ratios = dict[int, float]
"""Candidate by baseline, by block."""


def interactions_of(record: RawData) -> list[InteractionFigures]:
    """All of the plan's, judged together as one family; none with fewer than two factors of two levels."""
    made = [
        _interaction(record, workload, metric, candidate, factor, levels, others)
        for candidate, factor, levels, others in _places(record)
        for workload in record.plan.workloads
        for metric in record.metrics(workload)
        if metric not in MAY_BE_ZERO and not (metric == "notice" and FAULT in (factor, record.plan.compared))
    ]
    family = as_family({at: each.comparison for at, each in enumerate(made) if each.comparison is not None})
    for at, found in family.items():
        made[at] = _told(record, made[at], found)
    return made


def _places(record: RawData) -> Iterator[tuple[str, str, tuple[str, str], dict[str, str]]]:
    """A level of the compared factor, another factor, two levels of it, and levels of the factors beside these."""
    plan = record.plan
    labels = {factor: [each.label for each in known] for factor, known in plan.factors.items()}
    for candidate in labels.get(plan.compared, ()):
        if candidate == plan.base_level:
            continue
        for factor in labels:
            if factor == plan.compared:
                continue
            beside = [each for each in labels if each not in (factor, plan.compared)]
            for levels in itertools.combinations(labels[factor], 2):
                for chosen in itertools.product(*(labels[each] for each in beside)):
                    yield candidate, factor, levels, dict(zip(beside, chosen, strict=True))


def _interaction(
    record: RawData,
    workload: str,
    metric: Metric,
    candidate: str,
    factor: str,
    levels: tuple[str, str],
    others: dict[str, str],
) -> InteractionFigures:
    plan = record.plan
    sides = [_ratios(record, workload, metric, candidate, others | {factor: level}) for level in levels]
    common = sorted(sides[0].keys() & sides[1].keys())
    comparison, reason = None, ""
    if len(common) < 2:
        reason = f"{len(common)} of {plan.blocks} blocks count for all four arms"
    else:
        comparison = compare(
            [sides[0][block] for block in common],
            [sides[1][block] for block in common],
            margin=plan.margin,
            level=plan.confidence,
        )
    return InteractionFigures(
        workload=workload,
        metric=metric,
        baseline=plan.base_level,
        candidate=candidate,
        factor=factor,
        levels=list(levels),
        others=others,
        comparison=comparison,
        outcome="" if comparison is None else Outcome.NOT_ENOUGH_DATA.value,
        sentence="",
        reason=reason,
    )


def _ratios(record: RawData, workload: str, metric: Metric, candidate: str, levels: dict[str, str]) -> Ratios:
    """Of the blocks that count for both arms; none where a value is 0."""
    compared = record.plan.compared
    arms = tuple(
        next(arm for arm, known in record.levels.items() if known == levels | {compared: level})
        for level in (record.plan.base_level, candidate)
    )
    given = tuple(values(record, arm, workload, metric) for arm in arms)
    before, after = without_place(record, workload, metric, (arms[0], arms[1]), (given[0], given[1]))
    pairs = {block: (before[block], after[block]) for block in before.keys() & after.keys()}
    return {block: high / low for block, (low, high) in pairs.items() if low > 0.0 and high > 0.0}


def _told(record: RawData, each: InteractionFigures, found: Comparison) -> InteractionFigures:
    """As one of the family. It has taken its place in that, which must not depend on what was found."""
    if not is_told(found):
        reason = f"{found.blocks} blocks do not tell it"
        return msgspec.structs.replace(each, comparison=None, outcome="", reason=reason)
    if why := _not_judged(record, each, found):
        return msgspec.structs.replace(each, comparison=found, outcome="", reason=why)
    outcome = verdict(found).outcome
    said = {Outcome.EQUIVALENT: SAME, Outcome.BETTER: DIFFERS, Outcome.WORSE: DIFFERS}.get(outcome, outcome.value)
    return msgspec.structs.replace(each, comparison=found, outcome=said, sentence=_sentence(each, found, said))


def _not_judged(record: RawData, each: InteractionFigures, found: Comparison) -> str:
    """Why nothing is said of it; empty where something may be."""
    missing = record.plan.blocks - found.blocks
    if missing:
        # What is missing may be what was slow, in one of four arms.
        return f"{missing} of {record.plan.blocks} blocks do not count for all four arms"
    wanted = {record.plan.compared: (each.baseline, each.candidate), each.factor: tuple(each.levels)}
    arms = [
        arm
        for arm, known in record.levels.items()
        if all(known[factor] in labels for factor, labels in wanted.items())
        and all(known[factor] == label for factor, label in each.others.items())
    ]
    return too_late(record, each.workload, metric_of(each.metric), arms)


def _sentence(each: InteractionFigures, found: Comparison, outcome: str) -> str:
    first, second = (f"{each.factor} {level}" for level in each.levels)
    beside = "".join(f", {factor} {level}" for factor, level in each.others.items())
    about = (
        f"the {meaning_of(each.metric).title} of {each.candidate} by that of {each.baseline} ({each.workload}{beside})"
    )
    if outcome == SAME:
        seen = _seen(found.equivalence)
        return f"{about} is the same at {second} as at {first} within {100 * found.margin:g} %: {seen}"
    if outcome == DIFFERS:
        return (
            f"{about} is not the same at {second} as at {first}: {_seen(found.ratio)}, so no one figure holds for both"
        )
    return f"whether {about} is the same at {second} as at {first} cannot be told: {_seen(found.ratio)}"


def _seen(ratio: Estimate) -> str:
    limits = f"{100 * ratio.level:g} % interval {ratio.low:.3g} to {ratio.high:.3g}"
    return f"{ratio.value:.3g} times as large ({limits})"


def told(found: Sequence[InteractionFigures]) -> Iterator[str]:
    """What a reader must know: the ratios that are not the same at every level of another factor."""
    differing = [each for each in found if each.outcome == DIFFERS]
    yield from (each.sentence for each in differing[:MOST_TOLD])
    if len(differing) > MOST_TOLD:
        yield f"{len(differing) - MOST_TOLD} more ratios depend on the level of another factor; see the tables"
