"""The share of requests that failed, over blocks whose requests fail together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anywire_experiment.statistics.probability import beta_quantile, student_quantile
from anywire_experiment.statistics.run_order import widened_by
from anywire_experiment.statistics.samples import ROUNDING, Estimate, Floats, fraction


def share_over_blocks(failed: Sequence[int], requests: Sequence[int], level: float = 0.95) -> Estimate | None:
    """The share of failed requests of all, with its interval over blocks; None when fewer than 2 blocks have requests.

    ``failed`` and ``requests`` have one entry per block, in the order in which they ran. The block is the unit, however
    many requests it has: they fail together. The interval is Clopper and Pearson's, for as many independent requests as
    the blocks are worth (Korn & Graubard 1998, "Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data"): share * (1 - share) / variance, the variance being that of a ratio
    between blocks, corrected for how few blocks know it, larger where blocks are like their predecessors
    (`widened_by`), and never more than there are requests. Where no block differs from another, nothing tells how alike
    the requests of a block are, and each block counts as one: with no failure in 12 blocks the upper limit of 95 % is
    26 %, for a block in four may have lost everything without having been seen.

    ValueError for lists of different lengths, counts below zero, and more failures than requests.
    """
    fraction(level, "level")
    if len(failed) != len(requests):
        raise ValueError(f"{len(failed)} counts of failures and {len(requests)} of requests: one of each per block")
    if any(not 0 <= lost <= sent for lost, sent in zip(failed, requests, strict=True)):
        raise ValueError("failed: a block cannot have fewer failures than 0, or more than requests")
    sent = np.array([each for each in requests if each], dtype=np.float64)
    lost = np.array([each for each, of in zip(failed, requests, strict=True) if of], dtype=np.float64)
    blocks = sent.size
    if blocks < 2:
        return None
    total = float(sent.sum())
    share = float(lost.sum()) / total
    residuals = lost - share * sent
    wider = float(widened_by(lost / sent))
    variance = blocks / (blocks - 1) * float(residuals @ residuals) / total**2 * wider**2
    low, high = limits_of_shares(np.array([share]), np.array([variance]), total, blocks, level)
    return Estimate(share, float(low[0]), float(high[0]), level)


def limits_of_shares(
    shares: Floats, variances: Floats, total: float, blocks: int, level: float
) -> tuple[Floats, Floats]:
    """The limits of shares of ``total`` requests in so many blocks, 2 at least, for which the variance between blocks
    was found; where it is 0, each block counts as one request."""
    tail = (1.0 - level) / 2.0
    # The spread of a dozen blocks is itself known only roughly: Student's quantile instead of the normal one.
    known = (student_quantile(tail, total - 1.0) / student_quantile(tail, blocks - 1.0)) ** 2 if total > 1.0 else 1.0
    varies = variances > ROUNDING**2
    worth = np.minimum(shares * (1.0 - shares) / np.where(varies, variances, 1.0) * known, total)
    worth = np.where(varies, worth, float(blocks))
    hits = shares * worth
    some, not_all = hits > 0.0, hits < worth
    low = beta_quantile(tail, np.where(some, hits, 1.0), np.where(some, worth - hits + 1.0, 1.0))
    high = beta_quantile(1.0 - tail, np.where(not_all, hits + 1.0, 1.0), np.where(not_all, worth - hits, 1.0))
    return np.where(some, low, 0.0), np.where(not_all, high, 1.0)
