"""How often is a run taken for unsteady that is steady, and how often is one found that is not? Simulated series.

    python -m anywire_experiment.statistics.steady_calibration [--experiments 2000] [--seed 1]

prints that for the method used (`step_in`), and for those it was chosen from; for MSER-5 of a tenth as many.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from anywire_experiment.statistics.autocorrelation import effective_sample_size
from anywire_experiment.statistics.samples import Floats
from anywire_experiment.statistics.steady import CRITICAL, batch_medians, normal_scores, steady_from, strongest_step

Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]
Booleans = NDArray[np.bool_]
Refuses = Callable[[Floats], Booleans]


def correlated(dependence: float) -> Draw:
    """The logarithm is AR(1), with deviation 0.3."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
        noise = rng.standard_normal((shape[0], shape[1] + 100)) * 0.3 * math.sqrt(1.0 - dependence**2)
        return np.exp(np.asarray(lfilter([1.0], [1.0, -dependence], noise))[:, 100:])

    return draw


def _stragglers(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """One in a hundred takes twenty times as long."""
    return rng.lognormal(0.0, 0.3, shape) + 20.0 * (rng.random(shape) < 0.01)


NOISE: dict[str, Draw] = {
    "lognormal, σ = 0.3": lambda rng, shape: rng.lognormal(0.0, 0.3, shape),
    "lognormal, σ = 0.8": lambda rng, shape: rng.lognormal(0.0, 0.8, shape),
    "AR(1), φ = 0.5": correlated(0.5),
    "AR(1), φ = 0.8": correlated(0.8),
    "stragglers": _stragglers,
    "exponential": lambda rng, shape: rng.exponential(1.0, shape),
    "two modes, 1 and 5": lambda rng, shape: (
        rng.lognormal(0.0, 0.2, shape) * np.where(rng.random(shape) < 0.3, 5.0, 1.0)
    ),
}
"""Steady series."""


def courses(count: int) -> dict[str, Floats]:
    """What a series of ``count`` is multiplied with, to be steady no more."""
    at = np.arange(count) / count
    return {
        "+50 % in the first 10 %": np.where(at < 0.1, 1.5, 1.0),
        "+50 % in the first 20 %": np.where(at < 0.2, 1.5, 1.0),
        "+50 % in the first 30 %": np.where(at < 0.3, 1.5, 1.0),
        "+50 % in the first 50 %": np.where(at < 0.5, 1.5, 1.0),
        "+50 % at first, gone by e at 10 %": 1.0 + 0.5 * np.exp(-at / 0.1),
        "drift to +20 %": 1.0 + 0.2 * at,
        "drift to +50 %": 1.0 + 0.5 * at,
        "+30 % from 70 % on": np.where(at > 0.7, 1.3, 1.0),
    }


def the_step(series: Floats) -> Booleans:
    """The method used."""
    return strongest_step(normal_scores(batch_medians(series))).errors > CRITICAL


def _parts(first: float, last: float, critical: float) -> Refuses:
    """A first part against a last one, with the standard error of the same kind."""

    def refuses(series: Floats) -> Booleans:
        values = normal_scores(batch_medians(series))
        count = values.shape[-1]
        begin, end = int(first * count), int(last * count)
        apart = np.abs(values[:, :begin].mean(axis=-1) - values[:, count - end :].mean(axis=-1))
        found: Booleans = apart > critical * _long_run_deviation(values) * math.sqrt(1.0 / begin + 1.0 / end)
        return found

    return refuses


def _cusum(series: Floats) -> Booleans:
    values = normal_scores(batch_medians(series))
    sums = np.cumsum(values - values.mean(axis=-1, keepdims=True), axis=-1)
    found: Booleans = np.abs(sums).max(axis=-1) / math.sqrt(values.shape[-1]) > 1.3 * _long_run_deviation(values)
    return found


def _long_run_deviation(values: Floats) -> Floats:
    """As `strongest_step` has it: the height of its step in plain units, by that in standard errors."""
    count = values.shape[-1]
    found = strongest_step(values)
    at = found.at[:, np.newaxis]
    before = np.where(np.arange(count) < at, values - values.mean(axis=-1, keepdims=True), 0.0).sum(axis=-1)
    height = np.abs(before) / np.sqrt(found.at * (count - found.at) / count)
    deviation: Floats = height / np.where(found.errors > 0.0, found.errors, 1.0)
    return deviation


def _mser_5(series: Floats) -> Booleans:
    """MSER-5 over batch medians (White, Cobb & Spratt 2000), then halves that differ (after Geweke 1992)."""
    return np.array([_is_refused(each) for each in batch_medians(series)])


def _is_refused(batches: Floats) -> bool:
    left = np.arange(batches.size, 0, -1)
    centred = batches - batches.mean()
    sums, squares = np.cumsum(centred[::-1])[::-1], np.cumsum(np.square(centred)[::-1])[::-1]
    first = int(np.argmin(((squares - sums * sums / left) / (left * left))[:-9]))
    kept = batches[first:]
    if first > batches.size // 2 or effective_sample_size(kept) < 6.0:
        return True
    halves = np.array_split(kept, 2)
    apart = abs(float(halves[0].mean() - halves[1].mean()))
    errors = math.hypot(*(float(each.std(ddof=1)) / math.sqrt(effective_sample_size(each)) for each in halves))
    return apart > 0.05 * abs(float(kept.mean())) and apart > 3.0 * errors


METHODS: dict[str, Refuses] = {
    "largest step": the_step,
    "CUSUM": _cusum,
    "halves": _parts(0.5, 0.5, 1.96),
    "thirds": _parts(1 / 3, 1 / 3, 1.96),
    "MSER-5": _mser_5,
}


def refused(
    rng: np.random.Generator,
    experiments: int,
    count: int,
    *,
    noise: str,
    course: str = "",
    method: Refuses = the_step,
) -> float:
    """The share of series of ``count`` latencies that a method takes for unsteady."""
    made = NOISE[noise](rng, (experiments, count))
    return float(np.mean(method(made * courses(count)[course] if course else made)))


class Left(NamedTuple):
    """What a warm-up comes to: how many requests it takes on average, and by how much the latencies of the 500 after it
    are then larger, on average, than steady ones."""

    requests: float
    larger: float


def left_over(rng: np.random.Generator, experiments: int, *, noise: str, fades: float) -> Left:
    """Of a start twice as slow that fades by e in so many requests, with a warm-up of 100 to 500 requests that looks
    every 50 whether latencies are steady, as the load generator's does."""
    at = np.arange(1000)
    course = 1.0 + np.exp(-at / fades)
    ends = []
    for series in NOISE[noise](rng, (experiments, 500)) * course[:500]:
        looks = (count for count in range(100, 500, 50) if steady_from(series[:count]) is not None)
        ends.append(next(looks, 500))
    return Left(float(np.mean(ends)), float(np.mean([course[end : end + 500].mean() - 1.0 for end in ends])))


def main() -> None:
    parser = argparse.ArgumentParser(description="how often steady and unsteady series are refused")
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rng, many = np.random.default_rng(asked.seed), asked.experiments
    for count in (100, 200, 500, 1000):
        print(f"\n| {count} latencies | | {' | '.join(METHODS)} |\n|---|---|{'---:|' * len(METHODS)}")
        for noise in NOISE:
            for course in ["", *(courses(count) if noise in ("lognormal, σ = 0.3", "AR(1), φ = 0.8") else ())]:
                shares = [
                    # It looks at one series after the other.
                    refused(
                        rng, many // 10 if each is _mser_5 else many, count, noise=noise, course=course, method=each
                    )
                    for each in METHODS.values()
                ]
                print(f"| {noise} | {course or 'steady'} | " + " | ".join(f"{each:.1%}" for each in shares) + " |")
    print("\n| start twice as slow, gone by e in | latencies | requests of the warm-up | what it leaves |")
    print("|---:|---|---:|---:|")
    for fades in (20, 50, 100, 200):
        for noise in ("lognormal, σ = 0.3", "lognormal, σ = 0.8", "AR(1), φ = 0.8"):
            left = left_over(rng, many // 10, noise=noise, fades=fades)
            print(f"| {fades} requests | {noise} | {left.requests:.0f} | {left.larger:+.1%} |")


if __name__ == "__main__":
    main()
