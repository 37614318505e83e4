"""Is the place in a block found, and are arms compared rightly beside it? Simulated experiments whose truth is known.

    python -m anywire_experiment.statistics.place_calibration [--experiments 2000] [--seed 1]

prints how often an effect of the place is found, and how often the interval of the ratio of two arms holds the truth
when that effect is never, always, and only when found taken out of the values.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from anywire_experiment.plan.balance import balanced_order
from anywire_experiment.statistics.median import median_over_blocks
from anywire_experiment.statistics.place import FOUND, Integers, Layout, drawn_apart
from anywire_experiment.statistics.samples import Floats

Draw = Callable[[np.random.Generator, int, Integers], Floats]


def _heavy(rng: np.random.Generator, many: int, arm: Integers) -> Floats:
    drawn: Floats = rng.standard_t(3, (many, arm.size)) / math.sqrt(3)
    return drawn


def _exponential(rng: np.random.Generator, many: int, arm: Integers) -> Floats:
    drawn: Floats = rng.exponential(1.0, (many, arm.size)) - 1.0
    return drawn


def _unequal(rng: np.random.Generator, many: int, arm: Integers) -> Floats:
    drawn: Floats = rng.standard_normal((many, arm.size)) * np.linspace(0.3, 1.5, int(arm.max()) + 1)[arm]
    return drawn


NOISE: dict[str, Draw] = {
    "normal": lambda rng, many, arm: rng.standard_normal((many, arm.size)),
    "Student's t, 3 degrees": _heavy,
    "exponential": _exponential,
    "normal, arms spread 1 : 5": _unequal,
}
"""Of a cell beside its block, by experiment and cell, deviation about 1."""
SPREAD = 0.05
"""Of the logarithm of a cell's value, beside what its block does."""
RATIO = 1.05
"""Of the second arm to the first."""


class Simulated(NamedTuple):
    """Of each experiment: the p-value of the place, the log ratios of two arms by block with the place taken out where
    it was found, always and never, and the logarithm of their true ratio."""

    p: Floats
    log_ratios: Floats
    always: Floats
    never: Floats
    truth: float

    @property
    def width(self) -> float:
        """How wide intervals are on average, by those of values from which no effect is taken."""
        return float(self.log_ratios.std(axis=-1, ddof=1).mean() / self.never.std(axis=-1, ddof=1).mean())


def simulate(
    rng: np.random.Generator, experiments: int, arms: int, blocks: int, *, noise: str, first: float = 0.0
) -> Simulated:
    """Experiments of ``arms`` in ``blocks`` in balanced orders, where the logarithm of what stands at the first place
    is ``first`` larger."""
    orders = [balanced_order(f"{arms}", arms, block) for block in range(blocks)]
    cells = [
        (block, arm, at, order[at - 1] if at else -1)
        for block, order in enumerate(orders)
        for at, arm in enumerate(order)
    ]
    block, arm, place, before = (np.array(each) for each in zip(*cells, strict=True))
    layout = Layout(block, arm, place, before)
    common = 0.3 * rng.standard_normal((experiments, blocks))[:, block]
    logs = common + SPREAD * NOISE[noise](rng, experiments, arm) + first * (place == 0) + math.log(RATIO) * (arm == 1)
    p, bare = layout.p_values(logs), layout.adjusted(logs)

    def ratios(of: Floats) -> Floats:
        made: Floats = np.zeros((experiments, blocks))
        made[:, block[arm == 1]] = of[:, arm == 1]
        made[:, block[arm == 0]] -= of[:, arm == 0]
        return made

    always, never = drawn_apart(ratios(bare)), ratios(logs)
    return Simulated(p, np.where((p <= FOUND)[:, np.newaxis], always, never), always, never, math.log(RATIO))


def coverage(log_ratios: Floats, truth: float) -> float:
    """Of the interval of 95 % that `compare` has, of the median over the blocks."""
    low, high = median_over_blocks(log_ratios).interval(0.95)
    return float(np.mean((low <= truth) & (truth <= high)))


def main() -> None:
    parser = argparse.ArgumentParser(description="effects of the place in a block: found, and taken out")
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rng, many = np.random.default_rng(asked.seed), asked.experiments
    print("| arms | blocks | between cells | first place | found | never | always | when found | width |")
    print("|---:|---:|---|---:|---:|---:|---:|---:|---:|")
    for arms, blocks in ((2, 16), (3, 18), (5, 20), (6, 18)):
        for noise in NOISE:
            for first in (1.0, 1.05, 1.1):
                made = simulate(rng, many, arms, blocks, noise=noise, first=math.log(first))
                held = [coverage(each, made.truth) for each in (made.never, made.always, made.log_ratios)]
                print(
                    f"| {arms} | {blocks} | {noise} | {100 * (first - 1):+.0f} % | {np.mean(made.p <= FOUND):.1%} | "
                    + " | ".join(f"{each:.1%}" for each in held)
                    + f" | {made.width:.2f} |"
                )


if __name__ == "__main__":
    main()
