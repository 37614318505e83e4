"""How long requests that met a fault waited for their answers: the share that is not yet answered, by time.

The estimate is Kaplan and Meier's (1958): a request that its client gave up by plan is watched until then, one that
failed is never answered. All blocks are taken together, and the interval counts blocks, because the requests of a block
wait together: the variance between blocks (jackknife: the curve without each of them in turn), larger where blocks are
like their predecessors, says how many independent requests they are worth, and Clopper and Pearson's limits are taken
for so many, as for a share of failures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from anywire_experiment.analysis.sample_rows import Floats
from anywire_experiment.statistics import FEWEST_FOR_INTERVAL
from anywire_experiment.statistics.run_order import widened_by
from anywire_experiment.statistics.shares import limits_of_shares

POINTS = 40
"""Of a curve that is told."""
STEPS = 2000
"""At which it may fall, those of its answers where there are no more."""
TOLD_S = (0.1, 1.0, 10.0)
"""Times that are points of every curve, and stand in the table."""


class Waits(NamedTuple):
    """Of the requests of one block that met a fault, in seconds: from the fault, or from when they were meant to be
    sent if that was later, to the end. ``answered``: with a whole answer; else ``given_up`` by their client, or
    failed."""

    seconds: Floats
    answered: NDArray[np.bool_]
    given_up: NDArray[np.bool_]


class WaitingCurve(msgspec.Struct, frozen=True):
    """Of ``requests`` the share that is not answered so many ``seconds`` after the fault, or after they were meant to
    be sent if that was later. ``low`` and ``high`` are the limits of that share, by point; they are empty with fewer
    than 6 blocks."""

    requests: int
    blocks: int
    level: float
    seconds: list[float]
    waiting: list[float]
    low: list[float]
    high: list[float]

    def at(self, seconds: float) -> int:
        """The point of a time of `TOLD_S`."""
        return self.seconds.index(seconds)


def waiting_curve(blocks: Sequence[Waits], level: float) -> WaitingCurve | None:
    """None where no request met the fault."""
    given = [each for each in blocks if each.seconds.size]
    if not given:
        return None
    answered = np.concatenate([each.seconds[each.answered] for each in given])
    steps = (
        np.unique(np.quantile(answered, np.linspace(0, 1, STEPS), method="inverted_cdf"))
        if answered.size
        else np.array(TOLD_S)
    )
    # What is watched at a step, and what is answered since the step before, by block.
    watched, ended = (np.array(each) for each in zip(*(_counts(each, steps) for each in given), strict=True))
    points = _points(answered)
    at = np.searchsorted(steps, points, side="right")

    def shown(of_steps: Floats) -> Floats:
        before = np.ones((*of_steps.shape[:-1], 1))
        return np.concatenate([before, of_steps], axis=-1)[..., at]

    waiting = shown(_product_limit(watched.sum(axis=0), ended.sum(axis=0)))
    requests = int(sum(each.seconds.size for each in given))
    low = high = np.array([])
    if len(given) >= FEWEST_FOR_INTERVAL:
        without = shown(_product_limit(watched.sum(axis=0) - watched, ended.sum(axis=0) - ended))
        count = len(given)
        variance = (count - 1) / count * np.square(without - without.mean(axis=0)).sum(axis=0)
        variance *= widened_by(shown(_product_limit(watched, ended)).T) ** 2
        low, high = limits_of_shares(waiting, variance, requests, count, level)
    return WaitingCurve(requests, len(given), level, points.tolist(), waiting.tolist(), low.tolist(), high.tolist())


def _points(answered: Floats) -> Floats:
    if answered.size:
        answered = np.quantile(answered, np.linspace(0, 1, POINTS), method="inverted_cdf")
    return np.unique(np.concatenate([[0.0], answered, TOLD_S]))


def _counts(waits: Waits, steps: Floats) -> tuple[Floats, Floats]:
    # One that failed is watched for ever.
    until = np.sort(np.where(waits.answered | waits.given_up, waits.seconds, np.inf))
    answered = np.sort(waits.seconds[waits.answered])
    so_far = np.searchsorted(answered, steps, side="right")
    since = np.diff(so_far, prepend=0)
    within = since - (so_far - np.searchsorted(answered, steps, side="left"))
    watched = until.size - np.searchsorted(until, steps, side="left") + within
    return watched.astype(np.float64), since.astype(np.float64)


def _product_limit(watched: Floats, ended: Floats) -> Floats:
    """Over the last axis. Where nothing is watched any more the curve stays as it was."""
    ends = np.where(watched > 0, ended / np.maximum(watched, 1.0), 0.0)
    return np.asarray(np.cumprod(1.0 - ends, axis=-1), dtype=np.float64)
