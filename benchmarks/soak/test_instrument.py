"""The experiment framework held against what is known of it, on the real system: minutes to half an hour.

python -m pytest benchmarks/soak -s
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.analysis.results import ComparisonFigures, Results
from anywire_experiment.plan.reading import load_plan
from anywire_experiment.run.progress import Lines
from anywire_experiment.run.runner import run

PLANS = Path(__file__).parent.parent / "experiments"
REPEATED, CONTAINED = 40, 35
TENTH = 70e-6
"""Seconds: about a tenth of the latency of one client here."""

pytestmark = pytest.mark.timeout(7200)


class Planting(Lines):
    """Plants, before each cell, what ``seconds`` says of its block, its place in the block (from 0) and its arm."""

    def __init__(self, file: Path, seconds: Callable[[int, int, str], float]) -> None:
        self._file = file
        self._seconds = seconds
        self._now = (0, "")
        self._place = 0

    def doing(self, block: int, arm: str, what: str) -> None:
        if (block, arm) != self._now:
            self._place = self._place + 1 if block == self._now[0] else 0
            self._now = (block, arm)
            self._file.write_text(json.dumps({arm: self._seconds(block, self._place, arm)}))


def carried_out(name: str, folder: Path, seed: int | None = None, progress: Lines | None = None) -> Results:
    file = PLANS / name
    plan = load_plan(file)
    if seed is not None:
        plan = plan.model_copy(update={"seed": seed})
    run(plan, file, folder, ["soak"], progress or Lines())
    return analyse(folder)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int, int, str], float]], Results]:
    """Carries `planted.yaml` out with so many seconds more for a task, by block, place and arm."""

    def results(seconds: Callable[[int, int, str], float]) -> Results:
        file = tmp_path / "seconds.json"
        monkeypatch.setenv("KNOWN_TRANSPORTS", str(file))
        return carried_out("planted.yaml", tmp_path / "record", progress=Planting(file, seconds))

    return results


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


def test_a_place_that_is_slower_is_found_and_taken_out(
    planted: Callable[[Callable[[int, int, str], float]], Results],
) -> None:
    """The first arm of each block is a tenth slower, whichever it is."""
    results = planted(lambda block, place, arm: 0.0 if place else TENTH)
    assert results.design is not None
    (place,) = (each for each in results.design.places if each.metric == "latency")
    assert place.effects is not None
    print(msgspec.json.encode(place).decode())
    first = place.effects.effects[0]
    assert place.removed
    assert first.value == pytest.approx(1.10, abs=0.05)
    comparison = of(results, "zeromq_twin").comparison
    assert comparison is not None
    print(msgspec.json.encode(comparison).decode())
    # Half of the ratios would be a tenth above 1, and half below: a spread of a tenth without any other noise.
    assert comparison.spread < 0.095
    verdict = of(results, "zeromq_twin").verdict
    assert verdict is not None
    assert verdict.words == "equivalent within 10 %"


def test_an_arm_that_gets_slower_from_block_to_block_is_told_as_a_drift(
    planted: Callable[[Callable[[int, int, str], float]], Results],
) -> None:
    """A leak: one arm takes 1 % longer with every block."""
    results = planted(lambda block, place, arm: TENTH / 10 * block if arm == "zeromq_twin" else 0.0)
    found = of(results, "zeromq_twin")
    print(found.sentence, found.caution)
    assert found.comparison is not None
    order = found.comparison.order
    assert order.drifts
    assert order.per_block.value == pytest.approx(1.01, abs=0.005)
    assert any("it drifts: zeromq_twin gets slower than zeromq_again" in each for each in found.caution)
