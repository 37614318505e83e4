"""The synthetic engine made to answer like a real one: its settings fitted to the raw data of a record.

What a fit is worth is said with it: how far the quantiles of what was fitted are from those measured. Whether the whole
system then behaves alike is a matter of an experiment with the two engines as levels of a factor.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec
import numpy as np

from anywire.builtin.distribution import Distribution
from anywire.errors import ConfigError
from anywire_experiment.analysis.analyse import RawData
from anywire_experiment.analysis.measured import Measured
from anywire_experiment.analysis.sample_rows import Floats

FEWEST = 20
"""Streams without which nothing is fitted."""

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
_DRAWS = 20_000


class Fitted(msgspec.Struct, frozen=True):
    """A distribution and how well it fits. Times in ms. ``errors`` has the relative error of each quantile;
    ``distance`` is the first Wasserstein distance (how far, on average, a drawn value is from the measured one of the
    same rank), relative to the measured mean."""

    distribution: Distribution
    samples: int
    errors: dict[str, float]
    distance: float


class EngineFit(msgspec.Struct, frozen=True):
    """Settings of the synthetic engine: the time to the first token and between tokens, as the real engine had them."""

    arm: str
    workload: str
    ttft: Fitted
    itl: Fitted

    def options(self) -> dict[str, object]:
        """As they stand under ``engine:`` in a configuration."""
        times = {"ttft": self.ttft.distribution, "itl": self.itl.distribution}
        return {"name": "synthetic", **{key: each.model_dump() for key, each in times.items()}}


def fit_engine(raw: RawData, arm: str, workload: str) -> EngineFit:
    """Fit to the streams of ``workload`` in every block of ``arm``. Raises `ConfigError` when there are too few."""
    if arm not in raw.arms:
        raise ConfigError(f"there is no arm {arm!r} in this record; there are: {', '.join(raw.arms)}")
    if workload not in raw.plan.workloads:
        known = ", ".join(raw.plan.workloads)
        raise ConfigError(f"there is no workload {workload!r} in this record; there are: {known}")
    if not raw.plan.workloads[workload].stream:
        raise ConfigError(f"the workload {workload!r} has no streams: the time between tokens cannot be had of it")
    if raw.is_burst(arm, workload):
        raise ConfigError(f"the streams of {arm} in {workload!r} came as bursts: no time is between tokens to fit")
    blocks = list(raw.measured(arm, workload).values())
    first = np.concatenate([_first_ms(each) for each in blocks]) if blocks else np.array([])
    between = np.concatenate([_between_ms(each) for each in blocks]) if blocks else np.array([])
    if first.size < FEWEST or between.size < FEWEST:
        raise ConfigError(f"{first.size} whole streams of {arm} in {workload} are too few to fit; {FEWEST} are needed")
    return EngineFit(arm, workload, fitted(first), fitted(between))


def fitted(measured: Floats) -> Fitted:
    """The kind of distribution, with the moments of ``measured`` (ms), that is nearest to it."""
    candidates = [_judged(each, measured) for each in _candidates(measured)]
    return min(candidates, key=lambda each: each.distance)


def _candidates(measured: Floats) -> Iterator[Distribution]:
    mean, deviation = float(measured.mean()), float(measured.std(ddof=1))
    yield Distribution(kind="constant", mean=mean)
    yield Distribution(kind="uniform", mean=mean, spread=deviation * 3**0.5)
    yield Distribution(kind="normal", mean=mean, spread=deviation)
    yield Distribution(kind="exponential", mean=mean)
    yield Distribution(kind="lognormal", mean=mean, spread=deviation)
    # One straggler makes the moments those of nothing that was measured: the same kinds by what quartiles say.
    low, middle, high = np.quantile(measured, (0.25, 0.5, 0.75))
    yield Distribution(kind="constant", mean=float(middle))
    yield Distribution(kind="normal", mean=float(middle), spread=float(high - low) / 1.349)
    if low > 0:
        sigma = float(np.log(high / low)) / 1.349
        centre = float(middle) * np.exp(sigma**2 / 2)
        yield Distribution(kind="lognormal", mean=centre, spread=centre * float(np.sqrt(np.expm1(sigma**2))))


def _judged(distribution: Distribution, measured: Floats) -> Fitted:
    from scipy.stats import wasserstein_distance  # slow to import, and what else takes records does not need it

    rng = random.Random(1)
    drawn = np.array([distribution.draw(rng) for _ in range(_DRAWS)])
    errors = {
        f"p{round(100 * at)}": float(np.quantile(drawn, at) / value - 1) if value > 0 else 0.0
        for at, value in zip(QUANTILES, np.quantile(measured, QUANTILES), strict=True)
    }
    distance = float(wasserstein_distance(drawn, measured)) / float(measured.mean())
    rounded = distribution.model_copy(
        update={"mean": round(distribution.mean, 3), "spread": round(distribution.spread, 3)}
    )
    return Fitted(rounded, int(measured.size), errors, distance)


def _first_ms(measured: Measured) -> Floats:
    """From the engine's start to its first piece, on the agent's own clock."""
    whole = measured.whole
    started, first = (whole[f"stage_{name}_ns"].to_numpy() for name in ("engine_started", "first_chunk"))
    known = (started > 0) & (first > 0)
    found: Floats = (first - started)[known] / 1e6
    return found


def _between_ms(measured: Measured) -> Floats:
    """Every gap between two pieces of a stream, as its client saw them."""
    gaps = [np.diff(pieces) for pieces in measured.whole["piece_ns"].to_pylist() if len(pieces) > 1]
    return np.concatenate(gaps) / 1e6 if gaps else np.array([])
