"""What became of sessions, of requests that their clients were meant to give up, and of searches for a rate."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np
import pyarrow.compute as pc

from anywire_experiment.analysis.arm_figures import SearchFigures, TrafficFigures
from anywire_experiment.analysis.blocks import median
from anywire_experiment.analysis.capacity import bracket_of, steps_of
from anywire_experiment.analysis.measured import Measured
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.sample_rows import Floats, column
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.saturation import Search
from anywire_experiment.plan.traffic import NOT_ASKED


class Sessions(msgspec.Struct, frozen=True):
    """Those of one block: how many there were, the requests of each, and the milliseconds that each whole one took,
    from when its first request was meant to be sent to its last answer, pauses included."""

    count: int
    requests: Floats
    took_ms: Floats


def held_sessions(measured: Measured) -> Sessions:
    rows = measured.rows.filter(pc.is_valid(measured.rows["session"]))
    if not rows.num_rows:
        return Sessions(0, np.array([]), np.array([]))
    numbers, inverse = np.unique(column(rows, "session"), return_inverse=True)
    begin = np.full(numbers.size, np.iinfo(np.int64).max)
    end = np.zeros(numbers.size, dtype=np.int64)
    np.minimum.at(begin, inverse, column(rows, "intended_ns"))
    np.maximum.at(end, inverse, column(rows, "done_ns"))
    broken = np.zeros(numbers.size, dtype=bool)
    broken[inverse[pc.not_equal(rows["outcome"], "ok").to_numpy()]] = True
    counts = np.bincount(inverse).astype(np.float64)
    return Sessions(int(numbers.size), counts, ((end - begin) / 1e6)[~broken])


def searches_of(record: RawData, blocks: Mapping[int, Measured], workload: str) -> SearchFigures | None:
    """None where no rate is searched."""
    process = record.plan.workloads[workload].arrivals
    if not isinstance(process, Search) or not blocks:
        return None
    brackets = [bracket_of(each.rows, process) for each in blocks.values()]
    return SearchFigures(
        found=sum(each.capacity is not None for each in brackets),
        too_low=sum(each.borne > 0 and math.isinf(each.not_borne) for each in brackets),
        too_high=sum(not each.borne for each in brackets),
        generators=sum(each.borne > 0 and each.is_generators for each in brackets),
        steps=sum(len(steps_of(each.rows)) for each in blocks.values()),
    )


def traffic_of(plan: Plan, blocks: Mapping[int, Measured]) -> TrafficFigures | None:
    """None where requests do not depend on each other, and none is given up."""
    found = [held_sessions(each) for each in blocks.values()]
    cancelled = sum(each.cancelled for each in blocks.values())
    count = sum(each.count for each in found)
    if not count and not cancelled:
        return None
    took = [float(np.median(each.took_ms)) for each in found if each.took_ms.size]
    requests = np.concatenate([each.requests for each in found]) if found else np.array([])
    return TrafficFigures(
        sessions=count,
        whole=sum(each.took_ms.size for each in found),
        requests=float(np.median(requests)) if requests.size else 0.0,
        took_ms=median(plan, took) if took and min(took) > 0 else None,
        cancelled=cancelled,
        not_asked=sum(each.failures.get(NOT_ASKED, 0) for each in blocks.values()),
    )
