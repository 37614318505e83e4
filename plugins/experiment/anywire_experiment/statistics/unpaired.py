"""Two runs of different times compared: their blocks are no pairs, so each run's own interval enters.

Limits of a difference are made of the limits of both sides (Zou & Donner 2008, "Construction of confidence intervals
about effect measures"; for shares Newcombe 1998): the value, less the root of the sum of the squared distances from
each side's value to its own limit. So they have what these have: no assumption on the distribution, and room for
blocks that depend on each other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from anywire_experiment.statistics.median import median_over_blocks
from anywire_experiment.statistics.samples import Floats
from anywire_experiment.statistics.shares import share_over_blocks


class Side(NamedTuple):
    """A value and its limits, of one run or, in arrays, of many."""

    value: Floats
    low: Floats
    high: Floats


def difference(before: Side, after: Side) -> Side:
    """``after`` less ``before``, whose limits have one level; infinite where a side has no limit."""
    value = after.value - before.value
    return Side(
        value,
        value - np.hypot(after.value - after.low, before.high - before.value),
        value + np.hypot(after.high - after.value, before.value - before.low),
    )


def median_side(values: ArrayLike, level: float) -> Side:
    """The median over blocks, (..., n) in the order in which they ran."""
    found = median_over_blocks(np.asarray(values, dtype=np.float64))
    return Side(found.median, *found.interval(level))


def share_side(counted: list[int], of: list[int], level: float) -> Side:
    """A share of requests over blocks (`share_over_blocks`). ValueError with fewer than 2 blocks that have requests."""
    found = share_over_blocks(counted, of, level)
    if found is None:
        raise ValueError("a share over blocks takes 2 blocks or more that have requests")
    return Side(*(np.asarray(each, dtype=np.float64) for each in (found.value, found.low, found.high)))
