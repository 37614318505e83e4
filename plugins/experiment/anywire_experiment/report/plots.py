"""The figures of one workload, in their order."""

from __future__ import annotations

import math

from anywire_experiment.analysis.headline import main_metrics
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import Results
from anywire_experiment.plan.metric import OF_REQUESTS, Metric
from anywire_experiment.report import distributions, faults, intervals, run_order, timing
from anywire_experiment.report.drawing import MOST_ARMS, Picture
from anywire_experiment.report.quality_plot import against_cost

LATENCY: Metric = "latency"


def of_workload(record: RawData, results: Results, workload: str, name: str) -> list[Picture]:
    """``name`` begins the ids of the figures. Figures for which there are no data are left out."""
    arms = arms_drawn(results)
    sampled: list[Metric] = [each for each in record.metrics(workload) if each in OF_REQUESTS]
    by_arm = [
        *run_order.pictures(results, workload, f"{name}-order", arms),
        *(
            distributions.distribution(record, results, workload, metric, f"{name}-ecdf-{metric}", arms)
            for metric in sampled or (LATENCY,)
        ),
        distributions.percentiles(record, results, workload, f"{name}-percentiles", arms),
        timing.time_line(record, workload, f"{name}-time", arms),
        faults.waiting(results, workload, f"{name}-waiting", arms),
        timing.stages(results, workload, f"{name}-stages", arms),
    ]
    made = [intervals.picture(results, workload, f"{name}-intervals")]
    made += [against_cost(results, workload, f"{name}-quality")]
    made += [_told_of(each, results, arms) for each in by_arm]
    return [each for each in made if each is not None]


def arms_drawn(results: Results) -> list[str]:
    """The arms that figures show, in the plan's order: all, or where these could not be told apart a baseline and
    those that differ most from theirs."""
    if len(results.arms) <= MOST_ARMS:
        return results.arms
    main = main_metrics(results.comparisons)
    apart: dict[str, float] = {}
    for each in results.comparisons:
        if each.comparison is not None and main.get(each.workload) == each.metric:
            log = abs(math.log(each.comparison.ratio.value))
            apart[each.candidate] = max(log, apart.get(each.candidate, 0.0))
    baseline = next((each.baseline for each in results.comparisons), results.arms[0])
    others = sorted((each for each in results.arms if each != baseline), key=lambda arm: -apart.get(arm, 0.0))
    chosen = {baseline, *others[: MOST_ARMS - 1]}
    return [each for each in results.arms if each in chosen]


def _told_of(picture: Picture | None, results: Results, arms: list[str]) -> Picture | None:
    if picture is None or len(arms) == len(results.arms):
        return picture
    said = f" Drawn are {len(arms)} of {len(results.arms)} arms: a baseline and those that differ most from theirs."
    return picture._replace(caption=picture.caption + said)
