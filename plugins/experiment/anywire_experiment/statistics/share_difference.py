"""Two arms whose blocks each give a share, such as that of right answers, compared by the difference of the shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np

from anywire_experiment.statistics.probability import beta_up_to
from anywire_experiment.statistics.run_order import widened_by
from anywire_experiment.statistics.samples import ROUNDING, Estimate, Floats, finite_series, fraction
from anywire_experiment.statistics.studentised import StudentisedMean, resampling_counts, studentised_mean


class ShareComparison(msgspec.Struct, frozen=True):
    """A candidate arm against a baseline arm, paired by block, of shares between 0 and 1.

    ``baseline`` and ``candidate`` are the means of the blocks' shares, ``difference`` is the mean of candidate -
    baseline with its studentised interval, ``spread`` the standard deviation of the difference from block to block.
    Where both arms of a block are asked the same, the difference of a block is that of the pairs in which one alone was
    right, so how hard a block's questions are cancels.

    ``p_different`` is the two-sided p-value of "there is no difference", ``p_equivalent`` that of "the difference is
    ``margin`` or more" (two one-sided tests), ``equivalence`` the interval that goes with it. The ``adjusted`` ones are
    corrected for the ``family`` of comparisons judged together (`as_family`), and are what a verdict goes by.
    """

    blocks: int
    level: float
    margin: float
    baseline: float
    candidate: float
    difference: Estimate
    equivalence: Estimate
    spread: float
    p_different: float
    p_equivalent: float
    adjusted_different: float
    adjusted_equivalent: float
    family: int = 1


def compare_shares(
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    margin: float,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> ShareComparison:
    """The candidate against the baseline; both give one share per block, in the order in which the blocks ran.
    ``margin`` is the difference that does not matter, 0.05 for 5 percentage points, chosen before the data are seen.

    Why not the ratio, as in `compare`: a block of few questions may have none right, and has no ratio then. What is
    compared is the mean of the differences, for each question counts. Where blocks are like their predecessors its
    error is larger (`widened_by`); a drift is not taken out, and counts as that.

    Where no block differs from another nothing tells how much one may, and each block counts as one question, as in
    `share_over_blocks`: that all n differ by d has at most the chance ((1 - m) / (1 - d)) ** n when the mean difference
    is m. So 16 blocks without a difference leave room for one of 21 points.

    ValueError for fewer than 2 blocks, different numbers of blocks, and what is no share.
    """
    fraction(margin, "margin")
    if not 0.5 < level < 1.0:
        raise ValueError(f"level is a confidence between 0.5 and 1 (0.95 for 95 %), not {level}")
    before = finite_series(baseline, at_least=2, name="baseline")
    after = finite_series(candidate, at_least=2, name="candidate")
    if before.size != after.size:
        raise ValueError(f"{before.size} blocks of the baseline and {after.size} of the candidate: one share of each")
    if any(each.min() < 0.0 or each.max() > 1.0 for each in (before, after)):
        raise ValueError("a share lies between 0 and 1")
    differences = after - before
    counts = resampling_counts(before.size, resamples, seed)
    wider = float(widened_by(differences))
    found = studentised_mean(differences, counts, negligible=ROUNDING)
    found = replace(found, error=found.error * wider)
    p_different = float(found.p_zero())
    p_equivalent = float(np.maximum(found.p_at_most(-margin), found.p_at_least(margin)))
    more, less = np.maximum(differences, 0.0), np.maximum(-differences, 0.0)
    rare = (_p_of_rare(more, margin + less.mean(), wider), _p_of_rare(less, margin + more.mean(), wider))
    p_equivalent = max(p_equivalent, *rare)
    difference, equivalence = _estimate(found, level), _estimate(found, 2.0 * level - 1.0)
    if found.error == 0.0:
        apart = abs(float(found.mean))
        if apart < margin:
            p_equivalent = max(p_equivalent, ((1.0 - margin) / (1.0 - apart)) ** before.size)
        equivalence = _of_alike(equivalence, before.size)
        difference = _of_alike(difference, before.size) if apart <= ROUNDING else difference
    return ShareComparison(
        blocks=int(before.size),
        level=level,
        margin=margin,
        baseline=float(before.mean()),
        candidate=float(after.mean()),
        difference=difference,
        equivalence=equivalence,
        spread=float(np.std(differences, ddof=1)),
        p_different=p_different,
        p_equivalent=p_equivalent,
        adjusted_different=p_different,
        adjusted_equivalent=p_equivalent,
    )


def _p_of_rare(shares: Floats, bound: float, wider: float) -> float:
    """p-value of "the mean of these shares is ``bound`` or more", by as many independent questions as the blocks are
    worth (Korn & Graubard 1998). Where few blocks have any, their spread tells less than it seems to. ``wider``: by how
    much the error is larger because they depend on each other."""
    mean, blocks = float(shares.mean()), shares.size
    variance = float(shares.var(ddof=1)) / blocks * wider**2
    if mean >= bound or bound >= 1.0:
        return 1.0 if mean >= bound else 0.0
    worth = max(mean * (1.0 - mean) / variance, 1.0) if variance > 0.0 else float(blocks)
    right = mean * worth
    return float(beta_up_to(1.0 - bound, max(worth - right, 1e-9), right + 1.0))


def _of_alike(found: Estimate, blocks: int) -> Estimate:
    """With the limits that so many blocks leave when no one differs from another."""
    room = ((1.0 - found.level) / 2.0) ** (1.0 / blocks)
    value = found.value
    return Estimate(value, (1.0 + value) * room - 1.0, 1.0 - (1.0 - value) * room, found.level)


def _estimate(of: StudentisedMean, level: float) -> Estimate:
    low, high = of.interval(level)
    return Estimate(float(of.mean), float(low), float(high), level)
