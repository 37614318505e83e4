"""Do the intervals hold what they promise? Simulated experiments whose truth is known.

    python -m anywire_experiment.statistics.calibration [--experiments 2000] [--seed 1]

prints how often the intervals hold the truth and how often blocks are too dependent to be judged, how often arms at the
margin's edge pass for equivalent, what other methods would do, how often a family of comparisons shows a difference
that is none, and whether the blocks advised are enough. It is the whole rule that is simulated, as `compare` has it:
a drift that is shown is taken out, blocks that are too dependent are left out.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy import stats

from anywire_experiment.statistics.family_calibration import most_false
from anywire_experiment.statistics.median import MedianOverBlocks, median_over_blocks
from anywire_experiment.statistics.paired import p_of_equivalence
from anywire_experiment.statistics.planning import blocks_needed, power
from anywire_experiment.statistics.run_order import DRIFT_DOUBT, too_dependent, without_drift
from anywire_experiment.statistics.samples import Flags, Floats
from anywire_experiment.statistics.simulated import DEPENDENT, EFFECTS, INDEPENDENT, SAMPLES, STEPS, simulate
from anywire_experiment.statistics.studentised import resampling_counts, studentised_mean

AT_ONCE = 200_000
"""Blocks of simulated experiments that are judged together, for the sake of memory."""


class Judged(NamedTuple):
    """Experiments as `compare` judges them: the median log ratio, without a drift that is shown, and whether blocks are
    too dependent."""

    ratio: MedianOverBlocks
    refused: Flags
    drifts: Flags


def judged(logs: Floats) -> Judged:
    settled, slopes, _ = without_drift(logs)
    drifts = slopes != 0.0
    doubt = np.where(drifts, DRIFT_DOUBT, 1.0)
    return Judged(median_over_blocks(settled, doubt=doubt), too_dependent(settled), drifts)


class Coverage(NamedTuple):
    """How often the interval held the truth, of the experiments that were judged; how often they were not; how often a
    drift was told."""

    held: float
    refused: float
    drifts: float


def coverage(logs: Floats, truth: float, *, level: float = 0.95) -> Coverage:
    of = judged(logs)
    low, high = of.ratio.interval(level)
    held = (low <= truth) & (truth <= high)
    return Coverage(float(held[~of.refused].mean()), float(of.refused.mean()), float(of.drifts.mean()))


def equivalent(logs: Floats, margin: float, *, alpha: float = 0.05) -> float:
    """The share of experiments that shows equivalence, a drift that leads out of the margin aside."""
    of = judged(logs)
    return float(np.mean((p_of_equivalence(of.ratio, margin) <= alpha) & ~of.refused))


def different(logs: Floats, *, alpha: float = 0.05) -> float:
    """The share of experiments that shows a difference."""
    of = judged(logs)
    return float(np.mean((of.ratio.p_equal() <= alpha) & ~of.refused))


def family_error(
    rng: np.random.Generator, experiments: int, blocks: int, family: int, *, effect: str = "normal", alpha: float = 0.05
) -> float:
    """The share of experiments that show any difference, of ``family`` comparisons of arms that do not differ. Each is
    independent of the others, which is the worst case of Holm's correction: the first it rejects, if any, is one that
    Bonferroni rejects."""
    found = 0
    together = max(AT_ONCE // (family * blocks), 1)
    for at in range(0, experiments, together):
        shape = (min(together, experiments - at), family, blocks)
        of = judged(EFFECTS[effect](rng, shape))
        found += int(((of.ratio.p_equal() <= alpha / family) & ~of.refused).any(axis=-1).sum())
    return found / experiments


def advised(
    rng: np.random.Generator, experiments: int, pilot: int, spread: float, margin: float, *, true_ratio: float
) -> tuple[float, float, float]:
    """Of pilots of so many blocks whose spread advises a new run: how often the new run shows equivalence and how often
    a difference, and how many blocks it has in the median."""
    seen = spread * rng.standard_normal((experiments, pilot)).std(axis=-1, ddof=1)
    # Rounded to 2 %, so that runs of the same length are simulated together.
    wanted = np.array(
        [blocks_needed(math.exp(round(50 * math.log(each)) / 50), margin, known_from=pilot) for each in seen]
    )
    same = different_ = 0.0
    for blocks in np.unique(wanted):
        many = int((wanted == blocks).sum())
        made = simulate(rng, many, int(blocks), spread=spread, log_ratio=math.log(true_ratio)).logs
        same += many * equivalent(made, margin)
        different_ += many * different(made)
    return same / experiments, different_ / experiments, float(np.median(wanted))


OTHERS = ("Student's t", "studentised bootstrap", "Hodges-Lehmann", "sign test", "the one used")


def other_methods(logs: Floats, median: float, *, level: float = 0.95) -> tuple[float, ...]:
    """How often the intervals of `OTHERS` hold what each of them is about: the mean of all experiments for the first
    two, the median of all Walsh averages for the third, ``median`` for the others."""
    count, tail = logs.shape[-1], (1.0 - level) / 2.0
    mean, error = logs.mean(axis=-1), logs.std(axis=-1, ddof=1) / math.sqrt(count)
    reach = float(stats.t.isf(tail, count - 1)) * error
    first, second = np.triu_indices(count)
    walsh = np.sort((logs[:, first] + logs[:, second]) / 2.0, axis=-1)
    cut = round(walsh.shape[-1] / 2 - stats.norm.isf(tail) * math.sqrt(count * (count + 1) * (2 * count + 1) / 24.0))
    pairs = np.median((logs[:, 0::2][:, : count // 2] + logs[:, 1::2]) / 2.0)
    ordered, outer = np.sort(logs, axis=-1), int(stats.binom.ppf(tail, count, 0.5))
    drawn = studentised_mean(logs, resampling_counts(count, 2000, 0)).interval(level)
    return (
        _share(mean - reach, mean + reach, float(logs.mean())),
        _share(*drawn, float(logs.mean())),
        _share(walsh[:, cut], walsh[:, -1 - cut], float(pairs)),
        _share(ordered[:, outer - 1], ordered[:, count - outer], median),
        coverage(logs, median, level=level).held,
    )


def _share(low: Floats, high: Floats, truth: float) -> float:
    return float(np.mean((low <= truth) & (truth <= high)))


def _of_intervals(rng: np.random.Generator, many: int) -> Iterator[str]:
    head = ("blocks", "95 % interval holds", "90 % interval holds", "not judged", "drift told", "false equivalence")
    yield f"| log ratio between blocks | {' | '.join(head)}, both edges |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    edge = math.log(1.1)
    for effect in EFFECTS:
        for blocks in (16, 24, 40):
            made = simulate(rng, many, blocks, effect=effect)
            held, narrow = coverage(made.logs, made.log_ratio), coverage(made.logs, made.log_ratio, level=0.9)
            edges = [
                equivalent(simulate(rng, many, blocks, effect=effect, spread=0.04, log_ratio=at).logs, 0.1)
                for at in (-edge, edge)
            ]
            yield (
                f"| {effect} | {blocks} | {held.held:.1%} | {narrow.held:.1%} | {held.refused:.1%} | {held.drifts:.1%} "
                f"| {edges[0]:.1%}, {edges[1]:.1%} |"
            )


def _of_samples(rng: np.random.Generator, many: int) -> Iterator[str]:
    yield "| samples in a block | blocks | 95 % interval holds |\n|---|---:|---:|"
    for samples in SAMPLES:
        for blocks in (16, 40):
            made = simulate(rng, many, blocks, samples=samples)
            yield f"| {samples} | {blocks} | {coverage(made.logs, made.log_ratio).held:.1%} |"


def _of_steps(rng: np.random.Generator, many: int) -> Iterator[str]:
    yield "| both arms read in steps of | blocks | blocks that share a ratio | true ratio 1 | true ratio 1.05 |"
    yield "|---:|---:|---:|---:|---:|"
    for step in STEPS:
        for blocks in (16, 24, 40):
            same, apart = (
                simulate(rng, many, blocks, step=step, log_ratio=math.log(ratio)).logs for ratio in (1.0, 1.05)
            )
            yield (
                f"| {step:.1%} | {blocks} | {_most_alike(same):.0%} | {coverage(same, 0.0).held:.1%} "
                f"| {coverage(apart, math.log(1.05)).held:.1%} |"
            )


def _most_alike(logs: Floats) -> float:
    """The mean share of blocks that have the most frequent value of an experiment, but for rounding errors."""
    most = [np.unique(each, return_counts=True)[1].max() for each in logs.round(12)]
    return float(np.mean(most) / logs.shape[-1])


def _of_others(rng: np.random.Generator, many: int) -> Iterator[str]:
    yield f"| log ratio between 16 blocks | {' | '.join(OTHERS)} |\n|---|{'---:|' * len(OTHERS)}"
    for effect in (*INDEPENDENT, *DEPENDENT):
        made = simulate(rng, many, 16, effect=effect)
        yield f"| {effect} | " + " | ".join(f"{each:.1%}" for each in other_methods(made.logs, made.log_ratio)) + " |"


def _of_families(rng: np.random.Generator, many: int) -> Iterator[str]:
    sizes = (2, 20, 300, 2000)
    yield f"| log ratio between blocks | blocks | {' | '.join(f'family of {each}' for each in sizes)} |"
    yield f"|---|---:|{'---:|' * len(sizes)}"
    for effect in ("normal", "exponential", "Pareto, α = 1.5", "one block in twenty 6 deviations slower"):
        for blocks in (17, 40):
            shares = [family_error(rng, many, blocks, size, effect=effect) for size in sizes[:-1]]
            shares.append(most_false(rng, 10 * many, blocks, sizes[-1], effect=effect))
            yield f"| {effect} | {blocks} | " + " | ".join(f"{each:.1%}" for each in shares) + " |"


def _of_power(rng: np.random.Generator, many: int) -> Iterator[str]:
    yield "| spread | true ratio | blocks | family | equivalent: stated, simulated | different: stated, simulated |"
    yield "|---:|---:|---:|---:|---:|---:|"
    for spread in (0.05, 0.1, 0.2):
        for ratio in (1.0, 1.05, 1.1):
            for family in (1, 60):
                blocks = blocks_needed(spread, 0.1, family=family)
                stated = power(spread, blocks, 0.1, true_ratio=ratio, family=family)
                made = simulate(rng, many, blocks, spread=spread, log_ratio=math.log(ratio)).logs
                found = equivalent(made, 0.1, alpha=0.05 / family), different(made, alpha=0.05 / family)
                yield (
                    f"| {spread:g} | {ratio:g} | {blocks} | {family} | {stated[0]:.1%}, {found[0]:.1%} "
                    f"| {stated[1]:.1%}, {found[1]:.1%} |"
                )


def _of_advice(rng: np.random.Generator, many: int) -> Iterator[str]:
    yield "| true spread | true ratio | blocks of the first run | blocks advised (median) | equivalent | different |"
    yield "|---:|---:|---:|---:|---:|---:|"
    for spread in (0.1, 0.2):
        for ratio in (1.0, 1.1):
            for pilot in (16, 40):
                same, apart, blocks = advised(rng, many, pilot, spread, 0.1, true_ratio=ratio)
                yield f"| {spread:g} | {ratio:g} | {pilot} | {blocks:.0f} | {same:.1%} | {apart:.1%} |"


TABLES: dict[str, Callable[[np.random.Generator, int], Iterator[str]]] = {
    "intervals": _of_intervals,
    "samples": _of_samples,
    "steps": _of_steps,
    "methods": _of_others,
    "families": _of_families,
    "power": _of_power,
    "advice": _of_advice,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="coverage of the intervals on simulated experiments")
    parser.add_argument("tables", nargs="*", help=f"which of {', '.join(TABLES)}; all when none is named")
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if unknown := [each for each in asked.tables if each not in TABLES]:
        parser.error(f"there is no table {unknown[0]!r}: {', '.join(TABLES)}")
    for name in asked.tables or TABLES:
        for line in TABLES[name](np.random.default_rng(asked.seed), asked.experiments):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
