"""The comparisons of a plan, judged together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
import numpy as np

from anywire_experiment.analysis.blocks import PACED, RESAMPLES, is_told, mean_over_blocks, usable
from anywire_experiment.analysis.lateness import judged_unless_late
from anywire_experiment.analysis.measured import Measured
from anywire_experiment.analysis.metrics import MEANINGS
from anywire_experiment.analysis.places import caution_of, without_place
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import ComparisonFigures
from anywire_experiment.analysis.wording import judged, judged_shares, metric_of, moments, not_told, of_order, unjudged
from anywire_experiment.plan import Metric
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
from anywire_experiment.statistics.samples import statistic_of


def comparisons(record: RawData) -> list[ComparisonFigures]:
    """All of the plan's, judged together as one family."""
    made = [
        _compared(record, workload, metric, baseline, candidate)
        for workload in record.plan.workloads
        for baseline, candidate in pairs(record)
        for metric in record.metrics(workload)
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
    before, after = (usable(record, arm, workload, metric) for arm in arms)
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
            *(_failed(arms, sides) if metric != "quality" else ()),
            *_left_out(excluded, plan.blocks),
            *caution_of(record, workload, metric),
        ],
    )
    if metric in PACED and (reason := _bursts(record, workload, metric, arms)):
        sentence = f"{names[1]} and {names[0]}: {reason}"
        return msgspec.structs.replace(made, reason=reason, sentence=sentence, excluded={}, caution=[])
    if len(common) < 2:
        reason = f"a comparison needs 2 blocks or more, and {len(common)} of {plan.blocks} count for both arms"
        return msgspec.structs.replace(made, reason=reason, sentence=f"{names[1]} and {names[0]}: {reason}")
    before, after = without_place(record, workload, metric, arms, (before, after))
    of = statistic_of(plan.statistic)
    values = [np.array([of(given[block]) for block in common]) for given in (before, after)]
    if metric == "quality" and len(common) >= FEWEST_FOR_INTERVAL:
        shares = compare_shares(
            list(values[0]),
            list(values[1]),
            margin=plan.share_margin,
            level=plan.confidence,
            resamples=RESAMPLES,
            seed=plan.seed,
        )
        return msgspec.structs.replace(made, shares=shares)
    if metric in ("failures", "quality") or min(each.min() for each in values) <= 0.0:
        is_share = metric in ("failures", "quality")
        reason = "shares are compared by their difference" if is_share else "a block's value is 0, so there is no ratio"
        apart = values[1] - values[0]
        difference = mean_over_blocks(plan, list(apart)) if is_share else typical_value(apart, plan.confidence)
        if difference is None:
            count = f"{len(common)} of {plan.blocks} count for both arms"
            reason = f"an interval takes {FEWEST_FOR_INTERVAL} blocks, and {count}"
            return msgspec.structs.replace(made, reason=reason, sentence=f"{names[1]} and {names[0]}: {reason}")
        none = not any(each.any() for each in values)
        sentence = f"{MEANINGS[metric].title} is 0 in every block of both" if none else ""
        sentence = sentence or unjudged(names[0], names[1], difference, metric)
        return msgspec.structs.replace(made, difference=difference, reason=reason, sentence=sentence)
    comparison = compare(
        [before[block] for block in common],
        [after[block] for block in common],
        margin=plan.margin,
        statistic=plan.statistic,
        level=plan.confidence,
    )
    ratios = {block: float(after / before) for block, before, after in zip(common, *values, strict=True)}
    caution = [*made.caution, *of_order(names[0], names[1], comparison, MEANINGS[metric])]
    return msgspec.structs.replace(made, comparison=comparison, ratios=ratios, caution=caution)


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
    """Failures are in no figure but their own, so a figure is read beside them."""
    for arm, side in zip(arms, sides, strict=True):
        failed, requests = sum(each.failed for each in side.values()), sum(each.requests for each in side.values())
        if failed:
            yield f"{failed} of {requests} requests of {arm} failed and are not in it"
        if other := sum(each.failures.get("wrong_transport", 0) for each in side.values()):
            yield f"{other} answers of {arm} came over another transport than its own, and count as failed"


def _left_out(excluded: Mapping[int, str], blocks: int) -> Iterator[str]:
    if excluded:
        first = min(excluded)
        yield f"{len(excluded)} of {blocks} blocks are left out (block {first}: {excluded[first]})"
