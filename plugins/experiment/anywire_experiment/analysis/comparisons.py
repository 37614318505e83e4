"""The comparisons of a plan, judged together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
import numpy as np

from anywire_experiment.analysis.blocks import PACED, RESAMPLES, ends, is_told, mean_over_blocks, values
from anywire_experiment.analysis.energy import ENERGY
from anywire_experiment.analysis.lateness import judged_unless_late
from anywire_experiment.analysis.measured import Measured
from anywire_experiment.analysis.metrics import JUDGED_SHARES, MEANINGS, SHARES
from anywire_experiment.analysis.places import caution_of, without_place
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import ComparisonFigures
from anywire_experiment.analysis.survivors import Sides, bounded, bounded_shares, not_held, reach, scaled, share_failed
from anywire_experiment.analysis.wording import judged, judged_shares, metric_of, moments, not_told, of_order, unjudged
from anywire_experiment.plan.metric import Metric
from anywire_experiment.statistics import (
    FEWEST_FOR_INTERVAL,
    Comparison,
    ShareComparison,
    as_family,
    compare,
    compare_shares,
    share_verdict,
    typical_value,
    verdict,
)


def comparisons(record: RawData) -> list[ComparisonFigures]:
    """All of the plan's, judged together as one family."""
    made = [
        _compared(record, workload, metric, baseline, candidate)
        for workload in record.plan.workloads
        for baseline, candidate in pairs(record)
        for metric in record.metrics(workload)
        if record.can_have(metric, baseline) and record.can_have(metric, candidate)
    ]
    family = as_family({at: found for at, each in enumerate(made) if (found := each.comparison or each.shares)})
    for at, found in family.items():
        each = made[at]
        names = (
            record.levels[each.baseline][record.plan.compared],
            record.levels[each.candidate][record.plan.compared],
        )
        # It has taken its place in the family, which must not depend on what was found.
        made[at] = judged_unless_late(record, _told(each, found, names))
    return made


def _told(each: ComparisonFigures, found: Comparison | ShareComparison, names: tuple[str, str]) -> ComparisonFigures:
    """With its comparison as one of the family, and what it comes to. ``names``: of the baseline and the candidate."""
    meaning = MEANINGS[metric_of(each.metric)]
    if each.bounds is not None and (why := not_held(found, each.bounds, names)):
        reason, remedy = why
        sentence = f"{names[1]} and {names[0]}: not judged, for {reason}; {remedy}"
        told = {"comparison": found} if isinstance(found, Comparison) else {"shares": found}
        return msgspec.structs.replace(each, **told, reason=reason, sentence=sentence)
    if isinstance(found, ShareComparison):
        said = share_verdict(found, larger_is_better=meaning.larger_is_better, words=meaning.words)
        sentence = judged_shares(*names, found, said, meaning.words)
        return msgspec.structs.replace(each, shares=found, verdict=said, sentence=sentence)
    if not is_told(found):
        # It has taken its place in the family, which must not depend on what was found.
        reason, sentence = not_told(*names, found, meaning.unit)
        return msgspec.structs.replace(each, comparison=None, reason=reason, sentence=sentence)
    said = verdict(found, larger_is_better=meaning.larger_is_better, words=meaning.words, unit=meaning.unit)
    sentence = judged(*names, found, said, meaning.words)
    return msgspec.structs.replace(each, comparison=found, verdict=said, sentence=sentence)


def pairs(record: RawData) -> Iterator[tuple[str, str]]:
    """Arms that differ in the compared factor alone, the baseline's first."""
    compared, base = record.plan.compared, record.plan.base_level
    for candidate, levels in record.levels.items():
        if compared and levels[compared] != base:
            wanted = levels | {compared: base}
            yield next(arm for arm, others in record.levels.items() if others == wanted), candidate


def _compared(record: RawData, workload: str, metric: Metric, baseline: str, candidate: str) -> ComparisonFigures:
    plan = record.plan
    arms = (baseline, candidate)
    names = [record.levels[arm][plan.compared] for arm in arms]
    sides = [record.measured(arm, workload) for arm in arms]
    before, after = (values(record, arm, workload, metric) for arm in arms)
    common = sorted(before.keys() & after.keys())
    excluded = {
        block: "; ".join(
            record.why_missing(arm, workload, metric, block)
            for arm, given in zip(arms, (before, after), strict=True)
            if block not in given
        )
        for block in range(1, plan.blocks + 1)
        if block not in common
    }
    made = ComparisonFigures(
        workload=workload,
        metric=metric,
        baseline=baseline,
        candidate=candidate,
        levels={factor: label for factor, label in record.levels[candidate].items() if factor != plan.compared},
        comparison=None,
        verdict=None,
        difference=None,
        reason="",
        excluded=excluded,
        sentence="",
        # A failed request is in the share that was answered right: it was not.
        caution=[
            *(_failed(arms, sides) if metric not in SHARES else ()),
            *_left_out(excluded, plan.blocks),
            *caution_of(record, workload, metric),
        ],
    )
    if metric in PACED and (reason := _bursts(record, workload, metric, arms)):
        sentence = f"{names[1]} and {names[0]}: {reason}"
        return msgspec.structs.replace(made, reason=reason, sentence=sentence, excluded={}, caution=[])
    if metric in ENERGY and not common and excluded:
        reason = f"there is no energy to compare: {excluded[min(excluded)]}"
        sentence = f"{names[1]} and {names[0]}: {reason}"
        return msgspec.structs.replace(made, reason=reason, sentence=sentence, excluded={}, caution=[])
    if len(common) < 2:
        reason = f"a comparison needs 2 blocks or more, and {len(common)} of {plan.blocks} count for both arms"
        return msgspec.structs.replace(made, reason=reason, sentence=f"{names[1]} and {names[0]}: {reason}")
    found = (before, after)
    before, after = without_place(record, workload, metric, arms, found)
    paired = [np.array([given[block] for block in common]) for given in (before, after)]
    if metric in JUDGED_SHARES and len(common) >= FEWEST_FOR_INTERVAL:

        def judge_shares(first: list[float], second: list[float]) -> ShareComparison:
            return compare_shares(
                first,
                second,
                margin=plan.share_margin,
                level=plan.confidence,
                resamples=RESAMPLES,
                seed=plan.seed,
            )

        shares = judge_shares(paired[0].tolist(), paired[1].tolist())
        shares, bounds = bounded_shares(shares, judge_shares, before, after, range(1, plan.blocks + 1))
        return msgspec.structs.replace(made, shares=shares, bounds=bounds)
    if metric in SHARES or min(each.min() for each in paired) <= 0.0:
        reason = (
            "shares are compared by their difference"
            if metric in SHARES
            else "a block's value is 0, so there is no ratio"
        )
        apart = paired[1] - paired[0]
        is_share = metric in SHARES
        difference = mean_over_blocks(plan, list(apart)) if is_share else typical_value(apart, plan.confidence)
        if difference is None:
            count = f"{len(common)} of {plan.blocks} count for both arms"
            reason = f"an interval takes {FEWEST_FOR_INTERVAL} blocks, and {count}"
            return msgspec.structs.replace(made, reason=reason, sentence=f"{names[1]} and {names[0]}: {reason}")
        none = not any(each.any() for each in paired)
        sentence = f"{MEANINGS[metric].title} is 0 in every block of both" if none else ""
        sentence = sentence or unjudged(names[0], names[1], difference, metric)
        return msgspec.structs.replace(made, difference=difference, reason=reason, sentence=sentence)

    def judge(first: list[float], second: list[float]) -> Comparison:
        return compare(first, second, margin=plan.margin, statistic=plan.statistic, level=plan.confidence)

    comparison = judge(paired[0].tolist(), paired[1].tolist())
    of_run = of_order(names[0], names[1], comparison, MEANINGS[metric])
    failed = (share_failed(sides[0], metric), share_failed(sides[1], metric))
    may_be = Sides(
        scaled(ends(record, baseline, workload, metric), found[0], before),
        scaled(ends(record, candidate, workload, metric), found[1], after),
        failed,
    )
    every = range(1, plan.blocks + 1)
    comparison, bounds = bounded(comparison, lambda ratios: judge([1.0] * len(ratios), ratios), may_be, every)
    ratios = {block: float(high / low) for block, low, high in zip(common, *paired, strict=True)}
    caution = [*made.caution, *reach(bounds), *of_run]
    return msgspec.structs.replace(made, comparison=comparison, bounds=bounds, ratios=ratios, caution=caution)


def _bursts(record: RawData, workload: str, metric: Metric, arms: tuple[str, str]) -> str:
    """Why the pace of streams is not judged; empty when they had one."""
    told = [
        f"the {shape.tokens:g} tokens of an answer came at {moments(shape.moments)} over {arm}"
        for arm in arms
        if (shape := record.stream_shape(arm, workload)) is not None and shape.burst
    ]
    what = "time between tokens" if metric == "itl" else "rate of tokens"
    return f"{' and '.join(told)}: a burst has no {what}" if told else ""


def _failed(arms: tuple[str, str], sides: list[dict[int, Measured]]) -> Iterator[str]:
    """What a figure is read beside: a failed request has no latency of its own."""
    for arm, side in zip(arms, sides, strict=True):
        failed, requests = sum(each.failed for each in side.values()), sum(each.requests for each in side.values())
        if failed:
            yield f"{failed} of {requests} requests of {arm} failed, and count as slower than every answer"
        if gone := sum(each.cancelled for each in side.values()):
            yield f"{gone} requests of {arm} were given up by their clients, as was planned, and are not in it"
        if other := sum(each.failures.get("wrong_transport", 0) for each in side.values()):
            yield f"{other} answers of {arm} came over another transport than its own, and count as failed"


def _left_out(excluded: Mapping[int, str], blocks: int) -> Iterator[str]:
    if excluded:
        first = min(excluded)
        are = "is" if len(excluded) == 1 else "are"
        yield f"{len(excluded)} of {blocks} blocks {are} left out (block {first}: {excluded[first]})"
