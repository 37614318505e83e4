"""Experiments whose truth is known: what sets a candidate's blocks apart from its baseline's, in all sorts of
shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.signal import lfilter

from anywire_experiment.statistics.samples import Floats

Shape = tuple[int, ...]
Draw = Callable[[np.random.Generator, Shape], Floats]

PER_BLOCK = 60
COMMON_SPREAD = 0.3
"""Of what slows both arms of a block alike: standard deviation of its logarithm."""


def mixture(chance: float, apart: float) -> Draw:
    """Normal, and with that chance ``apart`` standard deviations larger; median 0."""
    # The median of the mixture, by bisection of its distribution.
    low, high = 0.0, max(apart, 1.0)
    for _ in range(80):
        middle = (low + high) / 2.0
        below = (1.0 - chance) * stats.norm.cdf(middle) + chance * stats.norm.cdf(middle - apart)
        low, high = (middle, high) if below < 0.5 else (low, middle)
    return lambda rng, shape: rng.standard_normal(shape) + apart * (rng.random(shape) < chance) - low


def autoregressive(lag1: float, innovation: Draw | None = None) -> Draw:
    """AR(1) from block to block, with deviation 1 for normal innovations."""

    def drawn(rng: np.random.Generator, shape: Shape) -> Floats:
        long = (*shape[:-1], shape[-1] + 40)
        noise = rng.standard_normal(long) if innovation is None else innovation(rng, long)
        return np.asarray(lfilter([math.sqrt(1.0 - lag1**2)], [1.0, -lag1], noise))[..., 40:]

    return drawn


def drifting(over_the_run: float) -> Draw:
    """Normal, and rising by so many deviations from the first block to the last."""
    return lambda rng, shape: rng.standard_normal(shape) + over_the_run * np.linspace(-0.5, 0.5, shape[-1])


def _growing(rng: np.random.Generator, shape: Shape) -> Floats:
    """The spread is three times as large in the last block as in the first."""
    return rng.standard_normal(shape) * np.linspace(0.5, 1.5, shape[-1])


def _disturbed(rng: np.random.Generator, shape: Shape) -> Floats:
    """One block in ten has five times the spread."""
    return rng.standard_normal(shape) * np.where(rng.random(shape) < 0.1, 5.0, 1.0)


def tied(step: float) -> Draw:
    """Normal, read in steps of so many deviations, so that several blocks are equal."""
    return lambda rng, shape: np.asarray(step * np.round(rng.standard_normal(shape) / step))


def _correlated(rng: np.random.Generator, shape: Shape) -> Floats:
    return np.exp(0.5 * autoregressive(0.8)(rng, shape))


INDEPENDENT: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "Student's t, 3 degrees": lambda rng, shape: rng.standard_t(3, shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape) - math.log(2.0),
    "Pareto, α = 1.5": lambda rng, shape: rng.pareto(1.5, shape) - (2.0 ** (1.0 / 1.5) - 1.0),
    "lognormal, σ = 1": lambda rng, shape: rng.lognormal(0.0, 1.0, shape) - 1.0,
    "one block in ten with five times the spread": _disturbed,
    "one block in twenty 6 deviations slower": mixture(0.05, 6.0),
    "two levels, two fifths of the blocks on the upper": mixture(0.4, 4.0),
    "spread that triples during the run": _growing,
}
"""What sets the logarithm of a candidate's block apart from its baseline's: median 0."""
TIED: dict[str, Draw] = {f"ties: read in steps of {each:g} deviations": tied(each) for each in (0.1, 0.5)}
DRIFTING: dict[str, Draw] = {
    f"drift of {each:g} deviations over the run": drifting(each) for each in (1.0, 2.0, 4.0, 12.0)
}
DEPENDENT: dict[str, Draw] = {
    "AR(1), 0.2 between blocks": autoregressive(0.2),
    "AR(1), 0.35 between blocks": autoregressive(0.35),
    "AR(1), 0.5 between blocks": autoregressive(0.5),
}
EFFECTS: dict[str, Draw] = {**INDEPENDENT, **TIED, **DRIFTING, **DEPENDENT}

SAMPLES: dict[str, Draw] = {
    "normal": lambda rng, shape: 1.0 + 0.1 * rng.standard_normal(shape),
    "AR(1), 0.8 between samples": _correlated,
    "lognormal, σ = 1": lambda rng, shape: rng.lognormal(0.0, 1.0, shape),
    "two modes, 1 and 5": lambda rng, shape: (
        rng.lognormal(0.0, 0.2, shape) * np.where(rng.random(shape) < 0.3, 5.0, 1.0)
    ),
    "ties: read to a fifth of the median": lambda rng, shape: np.maximum(
        np.round(5.0 * rng.lognormal(0.0, 0.5, shape)) / 5.0, 0.2
    ),
}
"""The latencies of one block."""

STEPS = (0.001, 0.01, 0.05)
"""In which both arms' values are read, of what is typical: each block's readings are coarse, and some ratios equal."""


class Experiments(NamedTuple):
    """Block values of both arms and the logarithms of their ratios, (experiments, blocks) each, and that of the true
    ratio."""

    baseline: Floats
    candidate: Floats
    logs: Floats
    log_ratio: float


def simulate(
    rng: np.random.Generator,
    experiments: int,
    blocks: int,
    *,
    effect: str = "normal",
    samples: str | None = None,
    step: float = 0.0,
    spread: float = 0.1,
    log_ratio: float = math.log(1.05),
) -> Experiments:
    """Experiments with an ``effect`` of scale ``spread`` between blocks, and the medians of 60 ``samples`` in
    each block and arm; without ``samples`` a block's value is exact, or read in steps of ``step``, of a typical value
    of 1."""
    shape = (experiments, blocks)
    common = COMMON_SPREAD * rng.standard_normal(shape)
    logs = log_ratio + spread * EFFECTS[effect](rng, shape)
    # A Pareto effect of one in millions is no number any more.
    before, after = np.exp(common), np.exp(common + np.clip(logs, -300.0, 300.0))
    if samples is not None:
        medians = np.median(SAMPLES[samples](rng, (2, *shape, PER_BLOCK)), axis=-1)
        before, after = before * medians[0], after * medians[1]
    if step:
        before, after = (np.maximum(step * np.round(each / step), step) for each in (before, after))
    if samples is not None or step:
        logs = np.log(after) - np.log(before)
    return Experiments(before, after, logs, log_ratio)
