"""The experiment framework held against what is known of it, on the real system: minutes to half an hour.

python -m pytest benchmarks/soak -s
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.analysis.results import ComparisonFigures, Results
from anywire_experiment.plan.reading import load_plan
from anywire_experiment.run.progress import progress
from anywire_experiment.run.runner import run

PLANS = Path(__file__).parent.parent / "experiments"
REPEATED, CONTAINED = 40, 35

pytestmark = pytest.mark.timeout(7200)


def carried_out(name: str, folder: Path, seed: int | None = None) -> Results:
    file = PLANS / name
    plan = load_plan(file)
    if seed is not None:
        plan = plan.model_copy(update={"seed": seed})
    run(plan, file, folder, ["soak"], progress())
    return analyse(folder)


def of(results: Results, candidate: str) -> ComparisonFigures:
    return next(each for each in results.comparisons if each.candidate == candidate)


def test_an_arm_against_itself_differs_as_seldom_as_the_interval_says(tmp_path: Path) -> None:
    """40 experiments of 16 blocks: 95 % intervals of the ratio contain 1 in at least 35."""
    ratios = []
    for number in range(REPEATED):
        results = carried_out("itself.yaml", tmp_path / str(number), seed=1000 + number)
        comparison = of(results, "zeromq_again").comparison
        assert comparison is not None
        assert comparison.blocks >= 16
        ratios.append(comparison.ratio)
        print(f"{number}: {msgspec.json.encode(comparison.ratio).decode()}")
    contained = sum(each.low <= 1 <= each.high for each in ratios)
    print(f"{contained} of {REPEATED} intervals contain 1")
    assert contained >= CONTAINED


def test_what_is_known_is_found(tmp_path: Path) -> None:
    """100 µs added to every task are found, within 30 %, and one transport under two names is equivalent to itself."""
    results = carried_out("sensitivity.yaml", tmp_path / "record")
    for each in results.comparisons:
        print(each.sentence)
    slowed, again = of(results, "zeromq_100us"), of(results, "zeromq_again")
    assert slowed.verdict is not None
    assert slowed.comparison is not None
    assert slowed.verdict.words == "slower"
    assert slowed.comparison.difference.value == pytest.approx(0.100, rel=0.3)
    assert again.verdict is not None
    assert again.verdict.words == "equivalent within 10 %"
