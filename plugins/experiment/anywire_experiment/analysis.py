"""From a record's raw data to every figure of its report, and to nothing else: the same data give the same results."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from scipy import stats

from anywire_experiment.arms import ALONE
from anywire_experiment.cautions import cautions_of
from anywire_experiment.cells import CELL, Cell, read_cell
from anywire_experiment.measures import MEANINGS, Floats, Measured, default_metrics, read_samples
from anywire_experiment.plan import Metric
from anywire_experiment.record import plan_of
from anywire_experiment.results import (
    FORMAT,
    ArmFigures,
    CellState,
    ComparisonFigures,
    FaultFigures,
    MetricFigures,
    Percentiles,
    Results,
    SameAnswers,
)
from anywire_experiment.statistics import Estimate, as_family, compare, effective_sample_size, verdict
from anywire_experiment.statistics.samples import statistic_of
from anywire_experiment.statistics.signed_rank import hodges_lehmann
from anywire_experiment.statistics.studentised import resampling_counts, studentised_mean
from anywire_experiment.storage import RecordError
from anywire_experiment.wording import headline, judged, metric_of, unjudged

RESAMPLES = 10_000
FEWEST_SAMPLES = {"p95": 20, "p99": 100}
"""Whole answers a block must have for a statistic of it to count: with fewer, p99 is the slowest and no percentile."""
FEWEST_OTHERWISE = 10

Block = dict[str, Measured]
"""By workload."""
Usable = dict[int, Floats]
"""A metric's series by block."""


class RawData:
    """A record's cells, read: what `analyse` and the figures of a report start from."""

    def __init__(self, folder: Path) -> None:
        """Raises `RecordError` or `ConfigError` when ``folder`` is no record, or one that cannot be read."""
        self.folder = folder
        self.plan = plan_of(folder)
        factors = self.plan.factors
        self.levels = {
            "+".join(labels) or ALONE: dict(zip(factors, labels, strict=True))
            for labels in itertools.product(*([each.label for each in known] for known in factors.values()))
        }
        self.arms = list(self.levels)
        self.cells: list[Cell] = []
        self._measured: dict[tuple[int, str], Block] = {}
        for path in sorted(folder.glob(f"cells/*/*/{CELL}")):
            try:
                self._read(path.parent)
            except (OSError, ValueError, pa.ArrowException, msgspec.DecodeError) as error:
                raise RecordError(f"the cell {path.parent} cannot be read: {error}") from error
        if not self.cells:
            raise RecordError(f"the record {folder} has no cells yet: nothing was measured")
        self.cells.sort(key=lambda each: (each.block, each.order))

    @property
    def expected(self) -> int:
        """Cells of the plan."""
        return self.plan.blocks * len(self.arms)

    def measured(self, arm: str, workload: str) -> dict[int, Measured]:
        """What was measured in each block whose cell is whole."""
        return {block: found[workload] for (block, of), found in sorted(self._measured.items()) if of == arm}

    def metrics(self, workload: str) -> tuple[Metric, ...]:
        return self.plan.metrics or default_metrics(self.plan.workloads[workload])

    def why_missing(self, arm: str, workload: str, metric: Metric, block: int) -> str:
        """Why a block of an arm does not count for a metric."""
        cell = next((each for each in self.cells if (each.block, each.arm) == (block, arm)), None)
        if cell is None:
            return f"{arm} did not run"
        if cell.state != "completed":
            return f"the cell of {arm} failed"
        found = self._measured[block, arm][workload]
        if metric == "notice":
            return f"{arm} never lost the agent" if found.fault() else f"{arm} had no fault"
        return f"{arm} has {found.whole.num_rows} whole answers with a {MEANINGS[metric].title}"

    def _read(self, folder: Path) -> None:
        cell = read_cell(folder)
        if cell.arm not in self.levels:
            raise ValueError(f"the plan has no arm {cell.arm!r}")
        self.cells.append(cell)
        if cell.state == "completed":
            samples = read_samples(folder)
            self._measured[cell.block, cell.arm] = {name: Measured(cell, samples, name) for name in self.plan.workloads}


def analyse(folder: Path) -> Results:
    """Every figure of the record in ``folder``. Raises `RecordError` or `ConfigError`."""
    return analysed(RawData(folder))


def analysed(record: RawData) -> Results:
    plan = record.plan
    comparisons = _comparisons(record)
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
        headline=headline(comparisons, len(record.arms)),
        cautions=cautions_of(record.folder, record.cells, record.expected),
        cells=[_cell(each) for each in record.cells],
        figures=[_arm(record, arm, workload) for workload in plan.workloads for arm in record.arms],
        comparisons=comparisons,
        same_answers=[_same_answers(record, workload) for workload in plan.workloads] if len(record.arms) > 1 else [],
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
    for measured in blocks.values():
        failures.update(measured.failures)
    cells = [each for each in record.cells if each.arm == arm and each.block in blocks and workload in each.workloads]
    cpu: dict[str, list[float]] = {}
    rss: dict[str, list[float]] = {}
    for cell in cells:
        for process, seconds in cell.workloads[workload].cpu_seconds.items():
            if whole := blocks[cell.block].whole.num_rows:
                cpu.setdefault(process, []).append(seconds / whole * 1e6)
        for process, use in cell.processes.items():
            rss.setdefault(process, []).append(use.max_rss_bytes)
    spans: dict[str, list[float]] = {}
    for measured in blocks.values():
        for name, span in measured.spans_us().items():
            spans.setdefault(name, []).append(span)
    requests = sum(each.requests for each in blocks.values())
    return ArmFigures(
        arm=arm,
        levels=record.levels[arm],
        workload=workload,
        blocks=len(blocks),
        requests=requests,
        failed=failures.total(),
        failed_share=_share(failures.total(), requests, record.plan.confidence),
        failures=dict(sorted(failures.items())),
        unsteady=sum(each.workloads[workload].steady is False for each in cells),
        metrics={metric: _metric(record, metric, blocks) for metric in record.metrics(workload)},
        stages_us=_medians(spans),
        cpu_us=_medians(dict(sorted(cpu.items()))),
        max_rss_bytes={name: int(value) for name, value in _medians(dict(sorted(rss.items()))).items()},
        fault=_fault(blocks),
    )


def _medians(of: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: float(np.median(each)) for name, each in of.items()}


def _share(failed: int, requests: int, confidence: float) -> Estimate | None:
    """With the interval of Wilson 1927."""
    if not requests:
        return None
    limits = stats.binomtest(failed, requests).proportion_ci(confidence, method="wilson")
    return Estimate(failed / requests, float(limits.low), float(limits.high), confidence)


def _fault(blocks: Mapping[int, Measured]) -> FaultFigures | None:
    inflicted = {block: fault for block, each in blocks.items() if (fault := each.fault()) is not None}
    if not inflicted:
        return None
    after = [blocks[block].after_the_fault(fault.at_ns) for block, fault in inflicted.items()]
    failed, streams_lost, retried = (sum(each) for each in zip(*after, strict=True))
    kinds = {fault.what for fault in inflicted.values()}
    return FaultFigures(
        kind=" or ".join(sorted(kinds)),
        blocks=len(inflicted),
        notice_ms=_numbers("notice", blocks, inflicted),
        recovery_ms=_numbers("recovery", blocks, inflicted),
        failed=failed,
        streams_lost=streams_lost,
        retried=retried,
    )


def _numbers(metric: Metric, blocks: Mapping[int, Measured], of: Mapping[int, object]) -> dict[int, float]:
    return {block: float(series[0]) for block in of if (series := blocks[block].series(metric)).size}


def _usable(record: RawData, metric: Metric, blocks: Mapping[int, Measured]) -> Usable:
    """The series of the blocks that count for a metric."""
    fewest = 1 if MEANINGS[metric].single else FEWEST_SAMPLES.get(record.plan.statistic, FEWEST_OTHERWISE)
    return {block: series for block, each in blocks.items() if (series := each.series(metric)).size >= fewest}


def _metric(record: RawData, metric: Metric, blocks: Mapping[int, Measured]) -> MetricFigures:
    usable = _usable(record, metric, blocks)
    of = statistic_of(record.plan.statistic)
    values = {block: of(series) for block, series in usable.items()}
    single = MEANINGS[metric].single
    percentiles = None
    if len(usable) > 1 and not single and all(series.min() > 0 for series in usable.values()):
        percentiles = Percentiles(**{name: _percentile(record, usable, name) for name in Percentiles.__struct_fields__})
    return MetricFigures(
        unit=MEANINGS[metric].unit,
        values=values,
        samples=sum(series.size for series in usable.values()),
        effective=sum(1.0 if single else effective_sample_size(series) for series in usable.values()),
        mean=_over_blocks(record, list(values.values())) if len(values) > 1 else None,
        percentiles=percentiles,
    )


def _percentile(record: RawData, usable: Usable, name: str) -> Estimate | None:
    if min(series.size for series in usable.values()) < FEWEST_SAMPLES.get(name, FEWEST_OTHERWISE):
        return None
    return _over_blocks(record, [statistic_of(name)(series) for series in usable.values()], logs=True)


@cache
def _counts(blocks: int, seed: int) -> Floats:
    return resampling_counts(blocks, RESAMPLES, seed)


def _over_blocks(record: RawData, values: list[float], logs: bool = False) -> Estimate:
    """The mean of the blocks' values with its studentised interval; of their logarithms for the geometric mean."""
    given = np.log(values) if logs else np.array(values)
    found = studentised_mean(given, _counts(len(values), record.plan.seed))
    limits = [float(found.mean), *map(float, found.interval(record.plan.confidence))]
    value, low, high = map(math.exp, limits) if logs else limits
    return Estimate(value, low, high, record.plan.confidence)


def _comparisons(record: RawData) -> list[ComparisonFigures]:
    """All of the plan's, judged together as one family."""
    made = [
        _compared(record, workload, metric, baseline, candidate)
        for workload in record.plan.workloads
        for baseline, candidate in _pairs(record)
        for metric in record.metrics(workload)
    ]
    family = as_family({at: each.comparison for at, each in enumerate(made) if each.comparison is not None})
    for at, comparison in family.items():
        each = made[at]
        meaning = MEANINGS[metric_of(each.metric)]
        said = verdict(comparison, larger_is_better=meaning.larger_is_better, words=meaning.words, unit=meaning.unit)
        names = [record.levels[arm][record.plan.compared] for arm in (each.baseline, each.candidate)]
        sentence = judged(names[0], names[1], comparison, said, meaning.words)
        made[at] = msgspec.structs.replace(each, comparison=comparison, verdict=said, sentence=sentence)
    return made


def _pairs(record: RawData) -> Iterator[tuple[str, str]]:
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
    before, after = (_usable(record, metric, side) for side in sides)
    common = sorted(before.keys() & after.keys())
    excluded = {
        block: "; ".join(
            record.why_missing(arm, workload, metric, block)
            for arm, usable in zip(arms, (before, after), strict=True)
            if block not in usable
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
        shift=None,
        reason="",
        excluded=excluded,
        sentence="",
        caution=[*_failed(arms, sides), *_left_out(excluded, plan.blocks)],
    )
    if len(common) < 2:
        reason = f"a comparison needs 2 blocks or more, and {len(common)} of {plan.blocks} count for both arms"
        return msgspec.structs.replace(made, reason=reason, sentence=f"{names[1]} and {names[0]}: {reason}")
    of = statistic_of(plan.statistic)
    values = [np.array([of(usable[block]) for block in common]) for usable in (before, after)]
    if metric == "failures" or min(each.min() for each in values) <= 0.0:
        shares = metric == "failures"
        reason = "shares are compared by their difference" if shares else "a block's value is 0, so there is no ratio"
        difference = _over_blocks(record, list(values[1] - values[0]))
        shift = hodges_lehmann(values[1] - values[0], plan.confidence)
        none = not any(each.any() for each in values)
        sentence = f"{MEANINGS[metric].title} is 0 in every block of both" if none else ""
        sentence = sentence or unjudged(names[0], names[1], difference, metric)
        return msgspec.structs.replace(made, difference=difference, shift=shift, reason=reason, sentence=sentence)
    comparison = compare(
        [before[block] for block in common],
        [after[block] for block in common],
        margin=plan.margin,
        statistic=plan.statistic,
        level=plan.confidence,
        resamples=RESAMPLES,
        seed=plan.seed,
    )
    return msgspec.structs.replace(made, comparison=comparison)


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
