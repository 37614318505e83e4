"""Which requests were answered as the plan's objective wants it: the share of all, and how many per second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from anywire_experiment.analysis.sample_rows import Floats, column, in_time
from anywire_experiment.plan.objective import Objective
from anywire_experiment.statistics import FEWEST_FOR_INTERVAL, share_over_blocks
from anywire_experiment.statistics.samples import Estimate

Flags = NDArray[np.bool_]


class ObjectiveFigures(msgspec.Struct, frozen=True):
    """What came of the requests of one arm and workload under the plan's objective, over all blocks.

    ``met`` of ``requests`` held all of it; ``share`` is that, and its interval counts blocks, None with too few.
    ``missed`` counts the others by what they did not hold: ``failed`` alone, or one or more of ``deadline``, ``ttft``,
    ``itl`` and ``latency``."""

    requests: int
    met: int
    share: float
    interval: Estimate | None
    missed: dict[str, int]


class Held(NamedTuple):
    """Of each request, whether it held everything, and by part what it did not hold, of whole answers."""

    everything: Flags
    missed: dict[str, Flags]


def held(rows: pa.Table, objective: Objective | None, *, streams: bool) -> Held:
    """``objective`` None: the deadlines of the requests alone. What it says of tokens is of streams."""
    whole = pc.equal(rows["outcome"], "ok").to_numpy().astype(bool)
    missed: dict[str, Flags] = {"deadline": whole & ~in_time(rows)}
    if objective is not None:
        intended = column(rows, "intended_ns")
        if objective.latency is not None:
            missed["latency"] = whole & ((column(rows, "done_ns") - intended) / 1e6 > objective.latency)
        if streams and objective.ttft is not None:
            missed["ttft"] = whole & ((column(rows, "first_ns") - intended) / 1e6 > objective.ttft)
        if streams and objective.itl is not None:
            missed["itl"] = whole & (between_tokens_ms(rows) > objective.itl)
    everything = whole.copy()
    for each in missed.values():
        everything &= ~each
    return Held(everything, missed)


def between_tokens_ms(rows: pa.Table) -> Floats:
    """Of each request the mean time between the tokens of its stream, 0 where it had fewer than two pieces."""
    pieces = rows["piece_ns"].combine_chunks()
    counts = pc.fill_null(pc.list_value_length(pieces), 0).to_numpy()
    at = pc.list_flatten(pieces).to_numpy()
    ends = np.cumsum(counts)
    several = counts > 1
    found: Floats = np.zeros(rows.num_rows)
    span = at[ends[several] - 1] - at[(ends - counts)[several]]
    tokens = np.maximum(counts, column(rows, "tokens"))[several]
    found[several] = span / (tokens - 1) / 1e6
    return found


def objective_figures(blocks: Mapping[int, tuple[Held, int]], confidence: float) -> ObjectiveFigures | None:
    """Of what was held in each block, and how many requests failed there; None where nothing was asked."""
    requests = [int(found.everything.size) for found, _ in blocks.values()]
    if not sum(requests):
        return None
    met = [int(found.everything.sum()) for found, _ in blocks.values()]
    missed = {"failed": sum(failed for _, failed in blocks.values())}
    for found, _ in blocks.values():
        for part, flags in found.missed.items():
            missed[part] = missed.get(part, 0) + int(flags.sum())
    interval = share_over_blocks(met, requests, confidence) if len(blocks) >= FEWEST_FOR_INTERVAL else None
    told = {part: count for part, count in missed.items() if count}
    return ObjectiveFigures(sum(requests), sum(met), sum(met) / sum(requests), interval, told)
