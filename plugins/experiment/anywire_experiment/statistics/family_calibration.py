"""How often a large family of comparisons shows a difference that is none, known better than by simulating families.

A comparison in a family of 2,000 is rejected once in 40,000 times, so that few simulated ones are. But whether a drift
is told depends on the order of the ranks alone, and without one the chance of a rejection is known exactly. So only
independent blocks that seem to drift are drawn, three in a thousand of all, and nothing else.
"""

from __future__ import annotations

import numpy as np

from anywire_experiment.statistics.median import median_over_blocks
from anywire_experiment.statistics.run_order import DRIFT_DOUBT, DRIFT_SHOWN, without_drift
from anywire_experiment.statistics.samples import Wholes
from anywire_experiment.statistics.sign_runs import sign_tails
from anywire_experiment.statistics.simulated import EFFECTS


def most_false(
    rng: np.random.Generator, drawn: int, blocks: int, family: int, *, effect: str = "normal", alpha: float = 0.05
) -> float:
    """The chance that a family of independent comparisons of arms that do not differ shows any difference, or a little
    more: one that is rejected with the drift taken out and without counts twice. ``effect`` is one of independent
    blocks without ties, ``drawn`` how many drifts are drawn."""
    share = alpha / family
    tails = sign_tails(blocks)
    steady = 2.0 * float(tails[tails <= share / 2.0].max(initial=0.0))
    chance, ranks = _seeming_drifts(rng, drawn, blocks)
    values = np.take_along_axis(np.sort(EFFECTS[effect](rng, ranks.shape), axis=-1), ranks, axis=-1)
    settled, _, p_drift = without_drift(values)
    assert float(p_drift.max()) <= DRIFT_SHOWN
    false = float(np.mean(median_over_blocks(settled, doubt=DRIFT_DOUBT).p_equal() <= share))
    return 1.0 - (1.0 - steady - chance * false) ** family


def _seeming_drifts(rng: np.random.Generator, drawn: int, blocks: int) -> tuple[float, Wholes]:
    """The chance that independent blocks are told to drift, and the ranks (drawn, blocks) of such, from 0."""
    # Of each number of blocks, the chance of each number of pairs that fall.
    known = [np.ones(1)]
    for size in range(2, blocks + 1):
        known.append(np.convolve(known[-1], np.full(size, 1.0 / size)))
    few = np.flatnonzero(2.0 * np.cumsum(known[-1]) <= DRIFT_SHOWN)
    weights = known[-1][few]
    left = rng.choice(few, size=drawn, p=weights / weights.sum())
    ranks = np.zeros((drawn, blocks), dtype=np.intp)
    # How many before it a block falls below: drawn from the last to the first, given how many pairs fall in all.
    falls = np.zeros((drawn, blocks), dtype=np.intp)
    for size in range(blocks, 1, -1):
        before = known[size - 2]
        rest = left[:, np.newaxis] - np.arange(size)
        possible = (rest >= 0) & (rest < before.size)
        cumulated = np.cumsum(np.where(possible, before[np.clip(rest, 0, before.size - 1)], 0.0), axis=1)
        at = rng.random(drawn)[:, np.newaxis] * cumulated[:, -1:]
        falls[:, size - 1] = (cumulated <= at).sum(axis=1)
        left = left - falls[:, size - 1]
    for at in range(1, blocks):
        rank = at - falls[:, at]
        ranks[:, :at] += ranks[:, :at] >= rank[:, np.newaxis]
        ranks[:, at] = rank
    downward = rng.random(drawn) < 0.5
    return 2.0 * float(weights.sum()), np.where(downward[:, np.newaxis], blocks - 1 - ranks, ranks)
