"""How late the load generator was, and when that is too late for a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from anywire_experiment.analysis.arm_figures import ArmFigures
from anywire_experiment.analysis.design_figures import LatenessFigures
from anywire_experiment.analysis.measured import Measured
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import ComparisonFigures
from anywire_experiment.analysis.sample_rows import Floats, column
from anywire_experiment.analysis.wording import metric_of
from anywire_experiment.plan.metric import Metric
from anywire_experiment.record.cells import LOAD, Cell
from anywire_experiment.statistics.samples import statistic_of

BUSY = 0.8
"""Cores of the load generator, which has one thread, from which on it may be what is measured."""
FROM_INTENDED: frozenset[Metric] = frozenset({"latency", "ttft"})
"""Metrics that count from the moment a request was meant for, and so the generator's lateness with it."""


def lateness_of(record: RawData, arm: str, workload: str) -> LatenessFigures | None:
    """Of all requests that were sent; None without any."""
    blocks = record.measured(arm, workload)
    late = {block: found for block, each in blocks.items() if (found := _late_ms(each)).size}
    if not late:
        return None
    of = statistic_of(record.plan.statistic)
    typical = float(np.median([of(each) for each in late.values()]))
    latencies = [of(series) for each in blocks.values() if (series := each.series("latency")).size]
    latency = float(np.median(latencies)) if latencies else 0.0
    cells = [each for each in record.cells if each.arm == arm and each.block in late]
    return LatenessFigures(
        p50_ms=float(np.median([np.median(each) for each in late.values()])),
        p99_ms=float(np.median([np.percentile(each, 99) for each in late.values()])),
        max_ms=float(max(each.max() for each in late.values())),
        typical_ms=typical,
        share=typical / latency if latency > 0.0 else None,
        cores=_cores(cells, workload),
    )


def told(figures: Sequence[ArmFigures]) -> Iterator[str]:
    """What a reader must know, a sentence for each workload for which the generator had no time to spare."""
    for workload in dict.fromkeys(each.workload for each in figures):
        used = {each.arm: _cores_of(each) for each in figures if each.workload == workload}
        busy = [f"{cores:.2f} with {arm}" for arm, cores in used.items() if cores >= BUSY]
        if busy:
            yield (
                f"the load generator used nearly all of a core under {workload} ({', '.join(busy)}): its own work may "
                "be what is measured there"
            )


def _cores_of(arm: ArmFigures) -> float:
    return (arm.lateness.cores or 0.0) if arm.lateness is not None else 0.0


def judged_unless_late(record: RawData, each: ComparisonFigures) -> ComparisonFigures:
    """``each``, or it without a verdict where the load was sent too late for one."""
    reason = too_late(record, each.workload, metric_of(each.metric), (each.baseline, each.candidate))
    if not reason:
        return each
    sentence = f"{each.candidate} and {each.baseline}: {reason}"
    return msgspec.structs.replace(each, comparison=None, verdict=None, reason=reason, sentence=sentence)


def too_late(record: RawData, workload: str, metric: Metric, arms: Sequence[str]) -> str:
    """Why a metric is not judged, for the load was sent too late for that; empty where it was not."""
    if metric not in FROM_INTENDED:
        return ""
    bound = record.plan.max_lateness
    for arm in arms:
        share = _share(record, arm, workload, metric)
        if share is not None and share[1] > bound:
            late, part = share
            return (
                f"the load generator sent {late:.3g} ms too late to {arm} ({record.plan.statistic}), {100 * part:.0f} "
                f"% of what is compared, and {100 * bound:g} % is the bound: give it cores of its own (`cpus`), send "
                "less, or raise `max_lateness`"
            )
    return ""


def _share(record: RawData, arm: str, workload: str, metric: Metric) -> tuple[float, float] | None:
    of = statistic_of(record.plan.statistic)
    pairs = [
        (of(late), of(series))
        for each in record.measured(arm, workload).values()
        if (late := _late_ms(each)).size and (series := each.series(metric)).size
    ]
    if not pairs:
        return None
    late_ms, value = (float(np.median(each)) for each in zip(*pairs, strict=True))
    return (late_ms, late_ms / value) if value > 0.0 else None


def _late_ms(measured: Measured) -> Floats:
    sent, intended = column(measured.rows, "sent_ns"), column(measured.rows, "intended_ns")
    late: Floats = (sent - intended)[sent > 0] / 1e6
    return late


def _cores(cells: Sequence[Cell], workload: str) -> float | None:
    runs = [each.workloads[workload] for each in cells if workload in each.workloads]
    used = [
        seconds / ((each.ended_ns - each.began_ns) / 1e9)
        for each in runs
        if (seconds := _of_load(each.cpu_seconds)) is not None and each.ended_ns > each.began_ns
    ]
    return float(np.median(used)) if used else None


def _of_load(used: Mapping[str, float]) -> float | None:
    return used.get(LOAD)
