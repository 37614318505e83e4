"""The sentence that a report begins with, and the findings below it: they name arms and sizes, however many."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from scipy.stats import norm

from anywire_experiment.analysis.headline import few, headline
from anywire_experiment.analysis.metrics import MEANINGS
from anywire_experiment.analysis.results import ComparisonFigures
from anywire_experiment.analysis.wording import judged, metric_of
from anywire_experiment.statistics import compare, compare_shares, share_verdict, verdict

BLOCKS = 20
NOISE = np.random.default_rng(3).permutation(norm.ppf((np.arange(BLOCKS) + 0.5) / BLOCKS))


def found(
    candidate: str,
    ratio: float,
    *,
    workload: str = "one-client",
    metric: str = "latency",
    spread: float = 0.01,
    levels: dict[str, str] | None = None,
) -> ComparisonFigures:
    """A comparison with a baseline ``dds`` whose ratio is this, and that spreads by so much between blocks."""
    meaning = MEANINGS[metric_of(metric)]
    comparison = compare([1.0] * BLOCKS, (ratio * np.exp(spread * (NOISE - np.median(NOISE)))).tolist(), margin=0.1)
    said = verdict(comparison, larger_is_better=meaning.larger_is_better, words=meaning.words)
    return ComparisonFigures(
        workload=workload,
        metric=metric,
        baseline="dds",
        candidate=candidate,
        levels=levels or {},
        comparison=comparison,
        verdict=said,
        difference=None,
        reason="",
        excluded={},
        sentence=judged("dds", candidate, comparison, said, meaning.words),
        caution=[],
    )


def told(*comparisons: ComparisonFigures) -> str:
    names = list(dict.fromkeys(each.candidate for each in comparisons))
    return headline(
        comparisons, ["dds", *names], "transport", "dds", {each: {"transport": each} for each in ("dds", *names)}
    )


def test_a_difference_has_its_arms_its_size_and_its_interval() -> None:
    said = told(found("http", 1.18, spread=0.1))
    assert said.startswith("http is slower than dds by 18 % (95 % interval ")
    assert said.endswith(" %) in latency under one-client.")
    assert told(found("http", 0.95, spread=0.002)).startswith("http is equivalent to dds within 10 %")
    assert told(found("http", 0.2)).startswith("http is faster than dds by a factor of 5 (95 % interval ")


def test_a_narrow_interval_has_its_tenths() -> None:
    assert told(found("http", 1.183, spread=0.005)).startswith("http is slower than dds by 18.3 % (95 % interval 1")


def test_each_workload_is_named_and_each_arm_said_once() -> None:
    said = told(
        found("http", 1.2),
        found("http", 1.4, workload="streams"),
        found("zeromq", 1.0),
        found("zeromq", 1.01, workload="streams"),
        found("tcp", 1.0),
        found("tcp", 1.0, workload="streams"),
    )
    first, second = said.split("; ")
    assert first.startswith("http is slower than dds by 20.0 % (95 % interval ")
    assert " in latency under one-client and by 40 % (" in first
    assert first.endswith(" in latency under streams")
    assert second == "zeromq and tcp are each equivalent to dds within 10 % in latency under one-client and streams."


def test_what_is_not_told_apart_is_no_equivalence() -> None:
    said = told(found("http", 1.08, spread=0.25))
    assert said.startswith("There is not enough data to tell http from dds in latency under one-client (+8 %, 95 % ")


def test_levels_of_other_factors_belong_to_the_place() -> None:
    assert "latency under one-client, agents 4" in told(found("http", 1.3, levels={"agents": "4"}))


def test_what_another_metric_says_against_it_is_not_left_out() -> None:
    said = told(found("http", 0.8), found("http", 0.7, metric="throughput"), found("http", 0.8, metric="ttft"))
    assert "http is faster than dds by 20.0 % " in said
    assert "; http is lower than dds by 30.0 % " in said
    assert "answers per second under one-client" in said
    assert "time to first token" not in said


def test_what_the_first_metric_leaves_open_is_told_by_others() -> None:
    said = told(found("http", 1.08, spread=0.25), found("http", 1.3, metric="ttft"), found("http", 1.4, metric="itl"))
    assert said.startswith("http is slower than dds by 30 % (95 % interval ")
    assert " in time to first token under one-client; there is not enough data to tell http from dds in latency" in said
    assert "40" not in said


def test_what_is_not_told_apart_is_one_part() -> None:
    wide = [found(f"arm-{at}", 1.08, spread=0.25) for at in range(9)]
    said = told(*wide, found("http", 1.08, spread=0.25, workload="streams"))
    assert said == (
        "There is not enough data to tell from dds: arm-0, arm-1, arm-2, arm-3 and 5 more in latency under "
        "one-client, http in latency under streams."
    )


def test_many_places_are_told_by_the_least_and_the_most() -> None:
    said = told(*(found("http", 1.2 + 0.1 * at, workload=f"load-{at}") for at in range(9)))
    assert "http is slower than dds in 9 cases, by 20.0 % (95 % interval" in said
    assert said.endswith(" in latency under load-8.")
    assert len(said) < 300


def test_two_thousand_comparisons_make_one_sentence() -> None:
    template = [found("x", 1.0 + 0.2 * (at % 3), workload=f"w{at % 20}") for at in range(60)]
    arms = [f"arm-{at}" for at in range(100)]
    many = [
        msgspec.structs.replace(each, candidate=arm)
        for at, arm in enumerate(arms)
        for each in template[at % 40 : at % 40 + 20]
    ]
    said = told(*many)
    assert len(many) == 2000
    assert len(said) < 1200
    assert said.endswith("the findings tell more.")
    assert "arm-" in said


def test_shares_are_told_in_points() -> None:
    shares = compare_shares([0.5] * BLOCKS, list(0.7 + 0.01 * NOISE), margin=0.05)
    base = found("http", 1.0, metric="quality")
    said = share_verdict(shares, words=MEANINGS["quality"].words)
    one = msgspec.structs.replace(base, comparison=None, shares=shares, verdict=said)
    assert told(one).startswith("http is right more often than dds by 20.")
    assert " percentage points (95 % interval " in told(one)


@pytest.mark.parametrize("name", ["größer", "a.b_c", "9"])
def test_names_stay_as_they_are(name: str) -> None:
    assert told(found(name, 1.3)).startswith(f"{name} is slower")


def test_without_a_verdict_the_sentence_says_so() -> None:
    unjudged = msgspec.structs.replace(found("http", 1.0), verdict=None, reason="12 % failed")
    assert told(unjudged) == "http is not judged beside dds in latency under one-client: the findings say why."
    nothing = msgspec.structs.replace(unjudged, comparison=None, reason="it is 0")
    assert told(nothing) == "Nothing could be judged of http beside dds: it is 0."
    other = msgspec.structs.replace(nothing, metric="ttft", reason="it is not there")
    assert told(nothing, other) == "Nothing could be judged of http beside dds; the list says why."
    assert headline([], ["only"], "", "", {}) == "One arm was measured (only), so nothing is compared."


def test_a_large_factor_has_no_exponent() -> None:
    assert told(found("http", 2987.0)).startswith("http is slower than dds by a factor of 2987 (95 % interval 29")


@pytest.mark.parametrize("ratio", [1.0, 1.08, 1.4])
@pytest.mark.parametrize("arms", [2, 7, 40])
def test_many_arms_with_long_names_are_told_by_their_number(arms: int, ratio: float) -> None:
    names = [f"{at:02}-{'x' * 61}" for at in range(arms)]
    levels = {"engine.options.length": "y" * 60}
    made = [
        found(name, ratio, spread=0.3 if ratio == 1.08 else 0.01, workload="z" * 64, levels=levels) for name in names
    ]
    said = told(*made)
    assert names[0] in said
    assert len(said) < 1000
    if ratio < 1.1:
        assert f"{names[0]} and {arms - 1} more" in said
    else:
        assert said.endswith("; the findings tell more.") == (arms > 2)


def test_names_that_fit_are_all_there() -> None:
    assert few([]) == ""
    assert few(["a", "b", "c", "d", "e"]) == "a, b, c, d and e"
    assert few([*"abcdef"]) == "a, b, c, d and 2 more"
    assert few(["a" * 40, "b" * 40]) == f"{'a' * 40} and 1 more"
    assert few(["a" * 64]) == "a" * 64
