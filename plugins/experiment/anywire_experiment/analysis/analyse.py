"""From a record's raw data to every figure of its report, and to nothing else: the same data give the same results."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from anywire_experiment.analysis import interactions, lateness, places, steadiness
from anywire_experiment.analysis.arm_figures import (
    ArmFigures,
    BandFigures,
    MetricFigures,
    Percentiles,
    ServedFigures,
    Valued,
)
from anywire_experiment.analysis.blocks import Usable, median, usable, values
from anywire_experiment.analysis.cautions import cautions_of
from anywire_experiment.analysis.comparisons import comparisons, pairs
from anywire_experiment.analysis.energy import energy_of
from anywire_experiment.analysis.faults import fault_figures
from anywire_experiment.analysis.goodput import ObjectiveFigures, objective_figures
from anywire_experiment.analysis.headline import headline
from anywire_experiment.analysis.interactions import interactions_of
from anywire_experiment.analysis.lateness import lateness_of
from anywire_experiment.analysis.measured import Measured
from anywire_experiment.analysis.metrics import MEANINGS
from anywire_experiment.analysis.places import design_of
from anywire_experiment.analysis.quality import paired, quality_of
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.resources import medians, resources
from anywire_experiment.analysis.results import FORMAT, CellState, PairedAnswers, Results, SameAnswers
from anywire_experiment.analysis.spans import spans_us
from anywire_experiment.analysis.steadiness import judged_together, steadiness_of
from anywire_experiment.analysis.tenants import TenantRows, jain, tenants_of
from anywire_experiment.analysis.traffic import searches_of, traffic_of
from anywire_experiment.plan.arms import is_of_requests
from anywire_experiment.plan.metric import OF_REQUESTS, Metric, fewest_samples
from anywire_experiment.plan.plan import Plan
from anywire_experiment.record.cells import Cell
from anywire_experiment.statistics import FEWEST_FOR_INTERVAL, effective_sample_size, share_over_blocks

__all__ = ["RawData", "analyse", "analysed", "differences"]


def analyse(folder: Path) -> Results:
    """Every figure of the record in ``folder``. Raises `RecordError` or `ConfigError`."""
    return analysed(RawData(folder))


def analysed(record: RawData) -> Results:
    plan = record.plan
    judged = comparisons(record)
    design, between = design_of(record), interactions_of(record)
    figures = judged_together([_arm(record, arm, workload) for workload in plan.workloads for arm in record.arms])
    return Results(
        format=FORMAT,
        name=plan.name,
        question=plan.question,
        compared=plan.compared,
        baseline=plan.base_level,
        blocks=plan.blocks,
        margin=plan.margin,
        confidence=plan.confidence,
        statistic=plan.statistic,
        arms=record.arms,
        workloads=list(plan.workloads),
        headline=headline(judged, record.arms, plan.compared, plan.base_level, record.levels),
        cautions=[
            *cautions_of(record),
            *places.told(design),
            *interactions.told(between),
            *lateness.told(figures),
            *steadiness.told(figures),
        ],
        cells=[_cell(each) for each in record.cells],
        figures=figures,
        comparisons=judged,
        same_answers=_same_answers_of(record),
        paired_answers=_paired_answers(record),
        objective=plan.objective.told() if plan.objective is not None else "",
        design=design,
        interactions=between,
    )


def _cell(cell: Cell) -> CellState:
    return CellState(
        cell.block,
        cell.arm,
        cell.order,
        cell.state,
        cell.reason,
        requests=sum(each.requests for each in cell.workloads.values()),
        failed=sum(each.failed for each in cell.workloads.values()),
        unsteady=[name for name, each in cell.workloads.items() if each.steady is False],
        load_average=cell.load_average_before[0] if cell.load_average_before else None,
    )


def _arm(record: RawData, arm: str, workload: str) -> ArmFigures:
    blocks = record.measured(arm, workload)
    failures: Counter[str] = Counter()
    origins: Counter[str] = Counter()
    for measured in blocks.values():
        failures.update(measured.failures)
        origins.update(measured.origins)
    cells = [each for each in record.cells if each.arm == arm and each.block in blocks and workload in each.workloads]
    used = resources(cells, blocks, workload)
    spans: dict[str, list[float]] = {}
    for measured in blocks.values():
        for name, span in spans_us(measured.whole).items():
            spans.setdefault(name, []).append(span)
    requests = sum(each.requests for each in blocks.values())
    failed_share = _share(blocks.values(), record.plan.confidence)
    quality, objective = quality_of(blocks, record.plan.confidence), _objective(record.plan, blocks)
    shares: dict[Metric, Valued | None] = {
        "failures": failed_share,
        "quality": quality.share if quality else None,
        "attainment": Valued(objective.share, objective.interval) if objective else None,
    }
    return ArmFigures(
        arm=arm,
        levels=record.levels[arm],
        workload=workload,
        blocks=len(blocks),
        requests=requests,
        failed=failures.total(),
        failed_share=failed_share,
        failures=dict(sorted(failures.items())),
        unsteady=sum(each.workloads[workload].steady is False for each in cells),
        metrics={
            metric: _metric(record, arm, workload, metric, shares)
            for metric in record.metrics(workload)
            if record.can_have(metric, arm)
        },
        stages_us=medians(spans),
        cpu_us=used.cpu_us,
        max_rss_bytes=used.max_rss_bytes,
        fault=fault_figures(record.plan, blocks, _counters(cells, workload)),
        wire=next((each.wire for each in cells), ""),
        wire_bytes=used.wire_bytes,
        stream=record.stream_shape(arm, workload),
        served=_served(blocks.values()),
        counters=_counters(cells, workload),
        origins=dict(sorted(origins.items())),
        quality=quality,
        objective=objective,
        energy=energy_of(cells, blocks, workload),
        traffic=traffic_of(record.plan, blocks),
        search=searches_of(record, blocks, workload),
        lateness=lateness_of(record, arm, workload),
        steady=steadiness_of(record, arm, workload),
    )


def _objective(plan: Plan, blocks: Mapping[int, Measured]) -> ObjectiveFigures | None:
    if plan.objective is None:
        return None
    return objective_figures({block: (each.held(), each.failed) for block, each in blocks.items()}, plan.confidence)


def _counters(cells: Sequence[Cell], workload: str) -> dict[str, float]:
    counted: dict[str, float] = {}
    for cell in cells:
        for name, number in cell.workloads[workload].counters.items():
            counted[name] = counted.get(name, 0) + number
    return dict(sorted(counted.items()))


def _served(blocks: Collection[Measured]) -> ServedFigures | None:
    found: dict[tuple[str, int], list[TenantRows]] = {}
    for measured in blocks:
        for each in tenants_of(measured.rows):
            found.setdefault((each.tenant, each.priority), []).append(each)
    if len(found) < 2:
        return None
    indices = [index for measured in blocks if (index := jain(measured.rows)) is not None]
    bands = []
    for (tenant, priority), rows in sorted(found.items()):
        waits = np.concatenate([each.waits_s for each in rows])
        bands.append(
            BandFigures(
                tenant,
                priority,
                requests=sum(each.requests for each in rows),
                in_time=sum(each.in_time for each in rows),
                tokens=sum(each.tokens for each in rows),
                mean_wait_s=float(waits.mean()) if waits.size else None,
                longest_wait_s=float(waits.max()) if waits.size else None,
            )
        )
    return ServedFigures(bands, sum(indices) / len(indices) if indices else None)


def _share(blocks: Collection[Measured], confidence: float) -> Valued | None:
    failed, requests = [each.failed for each in blocks], [each.requests for each in blocks]
    if not sum(requests):
        return None
    share = share_over_blocks(failed, requests, confidence) if len(blocks) >= FEWEST_FOR_INTERVAL else None
    return Valued(sum(failed) / sum(requests), share)


def _metric(
    record: RawData, arm: str, workload: str, metric: Metric, shares: Mapping[Metric, Valued | None]
) -> MetricFigures:
    """``shares`` are those of all requests."""
    given = usable(record, arm, workload, metric)
    by_block = values(record, arm, workload, metric)
    single = metric not in OF_REQUESTS
    percentiles, typical = None, None
    if by_block:
        typical = shares[metric] if metric in shares else median(record.plan, list(by_block.values()))
    if len(given) > 1 and not single and all(series.min() > 0 for series in given.values()):
        of_all = {name: values(record, arm, workload, metric, name) for name in Percentiles.__struct_fields__}
        percentiles = Percentiles(**{name: _percentile(record, given, name, found) for name, found in of_all.items()})
    return MetricFigures(
        unit=MEANINGS[metric].unit,
        values=by_block,
        samples=sum(series.size for series in given.values()),
        effective=sum(1.0 if single else effective_sample_size(series) for series in given.values()),
        typical=typical,
        percentiles=percentiles,
    )


def _percentile(record: RawData, given: Usable, name: str, of_all: Mapping[int, float]) -> Valued | None:
    """None where one of the blocks that count has too few answers for it, or so many failures that it is one."""
    if min(series.size for series in given.values()) < fewest_samples(name) or of_all.keys() != given.keys():
        return None
    return median(record.plan, list(of_all.values()))


def _same_answers_of(record: RawData) -> list[SameAnswers]:
    """None where arms send other requests: their answers are meant to differ."""
    if len(record.arms) < 2 or any(is_of_requests(each) for each in record.plan.factors):
        return []
    return [_same_answers(record, workload) for workload in record.plan.workloads]


def _paired_answers(record: RawData) -> list[PairedAnswers]:
    made = [
        paired(workload, arms, *(record.measured(arm, workload) for arm in arms))
        for workload in record.plan.workloads
        for arms in pairs(record)
    ]
    return [each for each in made if each is not None]


def _same_answers(record: RawData, workload: str) -> SameAnswers:
    texts: dict[tuple[int, int], list[str]] = {}
    for arm in record.arms:
        for block, measured in record.measured(arm, workload).items():
            whole = measured.whole
            for index, text in zip(whole["index"].to_pylist(), whole["text_hash"].to_pylist(), strict=True):
                texts.setdefault((block, index), []).append(text)
    several = [each for each in texts.values() if len(each) > 1]
    return SameAnswers(workload, len(several), sum(len(set(each)) == 1 for each in several))


def differences(recorded: Results | Any, recomputed: Results | Any) -> list[str]:
    """The figures in which two results (or the trees read from their files) differ by more than rounding, a sentence
    each with the figure's name; empty when they agree."""
    one, other = (msgspec.to_builtins(each, str_keys=True) for each in (recorded, recomputed))
    return list(_differing(one, other, ""))


def _differing(one: Any, other: Any, where: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            inner = f"{where}.{key}".lstrip(".")
            if key not in one or key not in other:
                yield f"{inner} is {'not recorded' if key not in one else 'not found again'}"
            else:
                yield from _differing(one[key], other[key], inner)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for at, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from _differing(left, right, f"{where}[{_named(left) or at}]")
    elif not _same(one, other):
        yield f"{where}: it says {one!r}, the raw data give {other!r}"


def _named(entry: Any) -> str:
    """What an entry of a list is about, which says more than its number."""
    keys = ("workload", "arm", "candidate", "metric", "block")
    return ", ".join(str(entry[key]) for key in keys if key in entry) if isinstance(entry, dict) else ""


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        # Another machine's vector instructions may add in another order.
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return bool(one == other)
