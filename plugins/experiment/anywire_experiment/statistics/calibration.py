"""Do the intervals hold what they promise? Simulated experiments whose truth is known.

    python -m anywire_experiment.statistics.calibration [--experiments 2000] [--seed 1]

prints how often the intervals cover the truth, how often arms at the margin's edge pass for equivalent, how often
the number of blocks advised is enough, how often a family of 300 comparisons shows a difference that is none, and how
often simpler intervals would cover the truth.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.signal import lfilter

from anywire_experiment.statistics.paired import p_of_equivalence
from anywire_experiment.statistics.planning import blocks_needed
from anywire_experiment.statistics.samples import Floats
from anywire_experiment.statistics.signed_rank import walsh_limits
from anywire_experiment.statistics.studentised import resampling_counts, studentised_mean

Shape = tuple[int, ...]
Draw = Callable[[np.random.Generator, Shape], Floats]

RESAMPLES = 2000
FAMILY_RESAMPLES = 10_000
"""As many as `compare` takes: in a family of hundreds the tail of the resamples decides."""
PER_BLOCK = 60
COMMON_SPREAD = 0.3
"""Of what slows both arms of a block alike: standard deviation of its logarithm."""


def _mixture(chance: float, apart: float) -> Draw:
    """Normal, and with that chance ``apart`` standard deviations larger; mean 0, deviation 1."""
    mean, deviation = chance * apart, math.sqrt(1.0 + chance * (1.0 - chance) * apart**2)
    return lambda rng, shape: (rng.standard_normal(shape) + apart * (rng.random(shape) < chance) - mean) / deviation


def _gamma(power: float) -> Draw:
    return lambda rng, shape: (rng.gamma(power, size=shape) - power) / math.sqrt(power)


def _lognormal(sigma: float) -> Draw:
    mean, deviation = float(stats.lognorm.mean(sigma)), float(stats.lognorm.std(sigma))
    return lambda rng, shape: (rng.lognormal(0.0, sigma, shape) - mean) / deviation


def _disturbed(rng: np.random.Generator, shape: Shape) -> Floats:
    """One block in ten has five times the spread."""
    return rng.standard_normal(shape) * np.where(rng.random(shape) < 0.1, 5.0, 1.0) / math.sqrt(3.4)


def _correlated(rng: np.random.Generator, shape: Shape) -> Floats:
    noise = rng.standard_normal((*shape[:-1], shape[-1] + 40))
    return np.exp(0.3 * np.asarray(lfilter([0.6], [1.0, -0.8], noise))[..., 40:])


EFFECTS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "Student's t, 5 degrees": lambda rng, shape: rng.standard_t(5, shape) / math.sqrt(5 / 3),
    "one block in ten disturbed": _disturbed,
    "two levels, half of the blocks on each": _mixture(0.5, 4.0),
    "two levels, a fifth of the blocks on the upper": _mixture(0.2, 4.0),
    "gamma, skewness 1": _gamma(4.0),
    "gamma, skewness 1.4": _gamma(2.0),
    "exponential, skewness 2": _gamma(1.0),
    "one block in ten 4 deviations slower": _mixture(0.1, 4.0),
    "lognormal, skewness 6": _lognormal(1.0),
}
"""The logarithm of what sets a candidate's block apart from its baseline's: mean 0, deviation 1."""

SAMPLES: dict[str, Draw] = {
    "normal": lambda rng, shape: 1.0 + 0.1 * rng.standard_normal(shape),
    "AR(1), φ = 0.8": _correlated,
    "lognormal, σ = 1": lambda rng, shape: rng.lognormal(0.0, 1.0, shape),
    "gamma, shape 2": lambda rng, shape: rng.gamma(2.0, size=shape),
    "two modes, 1 and 5": lambda rng, shape: (
        rng.lognormal(0.0, 0.2, shape) * np.where(rng.random(shape) < 0.3, 5.0, 1.0)
    ),
}
"""The latencies of one block."""


class Experiments(NamedTuple):
    """Block values of both arms, (experiments, blocks) each, and the logarithm of the true ratio."""

    baseline: Floats
    candidate: Floats
    log_ratio: float

    @property
    def logs(self) -> Floats:
        return np.log(self.candidate) - np.log(self.baseline)


class Coverage(NamedTuple):
    """How often each interval held the truth."""

    ratio: float
    difference: float
    ratio_shift: float
    nominal_shift: float


def simulate(
    rng: np.random.Generator,
    experiments: int,
    blocks: int,
    *,
    effect: str = "normal",
    samples: str | None = None,
    spread: float = 0.1,
    log_ratio: float = math.log(1.05),
) -> Experiments:
    """Experiments with an ``effect`` of deviation ``spread`` between blocks, and the medians of 60 ``samples`` in
    each block and arm; without ``samples`` a block's value is exact."""
    shape = (experiments, blocks)
    common = COMMON_SPREAD * rng.standard_normal(shape)
    apart = log_ratio + spread * EFFECTS[effect](rng, shape)
    before, after = np.exp(common), np.exp(common + apart)
    if samples is not None:
        medians = np.median(SAMPLES[samples](rng, (2, *shape, PER_BLOCK)), axis=-1)
        before, after = before * medians[0], after * medians[1]
    return Experiments(before, after, log_ratio)


def coverage(made: Experiments, *, level: float = 0.95, seed: int = 0) -> Coverage:
    """The true difference is the mean over all experiments: 2,000 of them know it fifty times better than one."""
    differences, logs = made.candidate - made.baseline, made.logs
    counts = resampling_counts(logs.shape[-1], RESAMPLES, seed)
    _, low, high, nominal = walsh_limits(logs, level)
    return Coverage(
        _share(*studentised_mean(logs, counts).interval(level), made.log_ratio),
        _share(*studentised_mean(differences, counts).interval(level), float(differences.mean())),
        _share(low, high, made.log_ratio),
        nominal,
    )


def simpler_methods(made: Experiments, *, level: float = 0.95, seed: int = 0) -> tuple[float, float, float]:
    """Coverage of the ratio by what `compare` does not use alone: percentile bootstrap, Student's t, bootstrap-t."""
    blocks, tail = made.logs.shape[-1], (1.0 - level) / 2.0
    counts = resampling_counts(blocks, RESAMPLES, seed)
    of = studentised_mean(made.logs, counts)
    percentile = np.quantile(made.logs @ counts / blocks, [tail, 1.0 - tail], axis=-1)
    reach = float(stats.t.ppf(1.0 - tail, blocks - 1)) * of.error
    low, high = np.quantile(of.resampled, [tail, 1.0 - tail], axis=-1) * of.error
    return (
        _share(percentile[0], percentile[1], made.log_ratio),
        _share(of.mean - reach, of.mean + reach, made.log_ratio),
        _share(of.mean - high, of.mean - low, made.log_ratio),
    )


def equivalent(made: Experiments, margin: float, *, alpha: float = 0.05, seed: int = 0) -> float:
    """The share of experiments that shows equivalence."""
    counts = resampling_counts(made.baseline.shape[-1], RESAMPLES, seed)
    return float(np.mean(p_of_equivalence(studentised_mean(made.logs, counts), margin) <= alpha))


def different(made: Experiments, *, alpha: float = 0.05, seed: int = 0) -> float:
    """The share of experiments that shows a difference."""
    counts = resampling_counts(made.baseline.shape[-1], RESAMPLES, seed)
    return float(np.mean(studentised_mean(made.logs, counts).p_zero() <= alpha))


def family_error(
    rng: np.random.Generator, experiments: int, blocks: int, family: int, *, effect: str = "normal", alpha: float = 0.05
) -> float:
    """The share of experiments that show any difference, of ``family`` comparisons of arms that do not differ. Each is
    independent of the others, which is the worst case of Holm's correction."""
    counts, found = resampling_counts(blocks, FAMILY_RESAMPLES, 0), 0
    for _ in range(experiments):
        logs = EFFECTS[effect](rng, (family, blocks))
        # The first that Holm rejects, if any, is one that Bonferroni rejects; most can be told without resampling.
        student = np.abs(logs.mean(axis=-1)) / np.sqrt(logs.var(axis=-1, ddof=1) / blocks)
        near = logs[student >= stats.t.isf(alpha / family / 2.0, blocks - 1)]
        found += bool(near.size and (studentised_mean(near, counts).p_zero() <= alpha / family).any())
    return found / experiments


def _share(low: Floats, high: Floats, truth: float) -> float:
    return float(np.mean((low <= truth) & (truth <= high)))


def main() -> None:
    parser = argparse.ArgumentParser(description="coverage of the intervals on simulated experiments")
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rng, many, margin = np.random.default_rng(asked.seed), asked.experiments, math.log(1.1)
    print("| between blocks | blocks | ratio | difference | Hodges-Lehmann (nominal) | false equivalence, both edges |")
    print("|---|---:|---:|---:|---:|---:|")
    for effect in EFFECTS:
        for blocks in (12, 20):
            held = coverage(simulate(rng, many, blocks, effect=effect))
            edges = [
                equivalent(simulate(rng, many, blocks, effect=effect, log_ratio=edge), 0.1)
                for edge in (-margin, margin)
            ]
            print(
                f"| {effect} | {blocks} | {held.ratio:.1%} | {held.difference:.1%} "
                f"| {held.ratio_shift:.1%} ({held.nominal_shift:.1%}) | {edges[0]:.1%}, {edges[1]:.1%} |"
            )
    print(
        "\n| samples in a block | blocks | ratio | difference | Hodges-Lehmann (nominal) |\n|---|---:|---:|---:|---:|"
    )
    for samples in SAMPLES:
        for blocks in (12, 20):
            held = coverage(simulate(rng, many, blocks, samples=samples))
            print(
                f"| {samples} | {blocks} | {held.ratio:.1%} | {held.difference:.1%} "
                f"| {held.ratio_shift:.1%} ({held.nominal_shift:.1%}) |"
            )
    print(
        "\n| spread | true ratio | blocks advised | equivalent shown | difference shown |\n|---:|---:|---:|---:|---:|"
    )
    for spread in (0.1, 0.15, 0.2, 0.3):
        for ratio in (1.0, 1.1):
            blocks = blocks_needed(spread, 0.1)
            made = simulate(rng, many, blocks, spread=spread, log_ratio=math.log(ratio))
            print(f"| {spread:g} | {ratio:g} | {blocks} | {equivalent(made, 0.1):.1%} | {different(made):.1%} |")
    print("\n| log ratio between blocks | blocks | any false difference among 300 comparisons |\n|---|---:|---:|")
    for effect in EFFECTS:
        for blocks in (12, 40):
            print(f"| {effect} | {blocks} | {family_error(rng, many, blocks, 300, effect=effect):.1%} |")
    print("\n| between 12 blocks | percentile bootstrap | Student's t | bootstrap-t |\n|---|---:|---:|---:|")
    for effect in ("normal", "one block in ten disturbed", "exponential, skewness 2"):
        shares = simpler_methods(simulate(rng, many, 12, effect=effect))
        print(f"| {effect} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")


if __name__ == "__main__":
    main()
