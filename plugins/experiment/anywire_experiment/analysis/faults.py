"""What a fault did: how soon it was noticed and over, what was lost, and how long requests waited."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow.compute as pc

from anywire_experiment.analysis.arm_figures import FaultFigures
from anywire_experiment.analysis.blocks import median
from anywire_experiment.analysis.measured import Measured
from anywire_experiment.analysis.sample_rows import column
from anywire_experiment.analysis.survival import Waits, waiting_curve
from anywire_experiment.plan.metric import Metric
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.traffic import CANCELLED
from anywire_experiment.record.cells import Event


def fault_figures(plan: Plan, blocks: Mapping[int, Measured], counters: Mapping[str, float]) -> FaultFigures | None:
    """Of one arm under one workload; None where nothing was done to it. ``counters`` are those of all its blocks."""
    inflicted = {block: fault for block, each in blocks.items() if (fault := each.fault()) is not None}
    if not inflicted:
        return None
    after = [blocks[block].after_the_fault(fault.at_ns) for block, fault in inflicted.items()]
    failed, streams_lost, tokens_cut, retried = (sum(each) for each in zip(*after, strict=True))
    kinds = {fault.detail or fault.what for fault in inflicted.values()}
    notice, recovery = (_numbers(metric, blocks, inflicted) for metric in ("notice", "recovery"))
    told = Counter(first.what for block in inflicted if (first := blocks[block].notice()) is not None)
    in_vain = sum(
        0 if blocks[block].has_streams() else blocks[block].tokens_of_failed_attempts() for block in inflicted
    )
    return FaultFigures(
        kind=" or ".join(sorted(kinds)),
        blocks=len(inflicted),
        notice_ms=notice,
        recovery_ms=recovery,
        notice=median(plan, list(notice.values())) if notice else None,
        recovery=median(plan, list(recovery.values())) if recovery else None,
        failed=failed,
        streams_lost=streams_lost,
        retried=retried,
        noticed_by=dict(sorted(told.items())),
        tokens_cut=tokens_cut,
        resumed=int(counters.get("resumes", 0)),
        hedged=int(counters.get("hedges", 0)),
        tokens_again=in_vain + int(counters.get("hedges_wasted_tokens", 0)),
        waiting=waiting_curve([_waits(blocks[block], fault) for block, fault in inflicted.items()], plan.confidence),
    )


def _numbers(metric: Metric, blocks: Mapping[int, Measured], of: Mapping[int, object]) -> dict[int, float]:
    return {block: float(series[0]) for block in of if (series := blocks[block].series(metric)).size}


def _waits(measured: Measured, fault: Event) -> Waits:
    over = measured.mended_ns()
    rows = measured.asked
    met = (column(rows, "done_ns") >= fault.at_ns) & (column(rows, "intended_ns") <= max(over, fault.at_ns))
    from_ns = np.maximum(column(rows, "intended_ns"), fault.at_ns)
    seconds = (column(rows, "done_ns") - from_ns) / 1e9
    answered = pc.equal(rows["outcome"], "ok").to_numpy().astype(bool)
    given_up = pc.equal(rows["outcome"], CANCELLED).to_numpy().astype(bool)
    return Waits(np.maximum(seconds[met], 0.0), answered[met], given_up[met])
