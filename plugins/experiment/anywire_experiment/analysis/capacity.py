"""The rate that a system bears, from the rows of the steps in which it was searched."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anywire_experiment.analysis.sample_rows import Floats, column
from anywire_experiment.plan.saturation import Bracket, Search, Step, bracket


def steps_of(rows: pa.Table) -> list[Step]:
    """The steps in their order; rows without a rate belong to none."""
    rows = rows.filter(pc.is_valid(rows["offered"]))
    offered = rows["offered"].to_numpy()
    intended, sent, done = (column(rows, name) for name in ("intended_ns", "sent_ns", "done_ns"))
    answered = pc.equal(rows["outcome"], "ok").to_numpy().astype(bool)
    steps = []
    for rate in sorted(np.unique(offered), key=lambda each: int(intended[offered == each].min())):
        of = offered == rate
        begin = intended[of].min()
        late = np.where(sent[of] > 0, sent[of] - intended[of], 0) / 1e9
        took = (done[of] - intended[of]) / 1e9
        steps.append(Step(float(rate), (intended[of] - begin) / 1e9, took, answered[of], late))
    return steps


def bracket_of(rows: pa.Table, search: Search) -> Bracket:
    """What the search of one block has come to; nothing borne and nothing tried where it has no rows."""
    steps = steps_of(rows)
    return bracket(search, steps) if steps else Bracket(0.0, math.inf)


def capacity_of(rows: pa.Table, search: Search | None) -> Floats:
    """One number, requests per second; empty where it is not known."""
    found = bracket_of(rows, search).capacity if search is not None else None
    return np.array([]) if found is None else np.array([found])
