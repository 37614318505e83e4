"""From scores to a ranking: known examples by hand, and what must hold for any scores."""

from __future__ import annotations

import itertools
import math
import random
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire_service_deliberation.aggregation import ranked
from anywire_service_deliberation.question import Aggregation
from anywire_service_deliberation.record import Ranked

METHODS: tuple[Aggregation, ...] = get_args(Aggregation)
MIDDLE = 3.0
NAMES = ("ada", "bob", "cyd", "dan", "eve")

Scores = dict[str, dict[str, float]]

DIVIDED: Scores = {
    "ada": {"bob": 5, "cyd": 4, "dan": 3, "eve": 1},
    "bob": {"ada": 3, "cyd": 4, "dan": 2, "eve": 1},
    "cyd": {"ada": 2, "bob": 5, "dan": 3, "eve": 1},
    "dan": {"ada": 2, "bob": 1, "cyd": 4, "eve": 3},
    "eve": {"ada": 2, "bob": 1, "cyd": 3, "dan": 4},
}
"""Two find bob excellent, two find bob bad; all find cyd good."""


def order(scores: Scores, by: Aggregation, members: tuple[str, ...] = NAMES) -> list[str]:
    return [each.member for each in ranked(scores, members, by, middle=MIDDLE)]


def values(scores: Scores, by: Aggregation, members: tuple[str, ...] = NAMES) -> dict[str, float]:
    return {each.member: each.value for each in ranked(scores, members, by, middle=MIDDLE)}


def by_member(ranking: tuple[Ranked, ...]) -> dict[str, Ranked]:
    return {each.member: each for each in ranking}


# By hand


def test_the_mean_is_of_the_scores_that_are_there() -> None:
    assert values(DIVIDED, "mean") == {"cyd": 3.75, "bob": 3.0, "dan": 3.0, "ada": 2.25, "eve": 1.5}


def test_the_median_is_in_the_middle_whatever_one_judge_says() -> None:
    assert values(DIVIDED, "median") == {"cyd": 4.0, "bob": 3.0, "dan": 3.0, "ada": 2.0, "eve": 1.0}
    outlier: Scores = {"ada": {"dan": 4, "eve": 5}, "bob": {"dan": 4, "eve": 1}, "cyd": {"dan": 4, "eve": 5}}
    assert order(outlier, "median") == ["eve", "dan"]
    assert order(outlier, "mean") == ["dan", "eve"]


def test_approval_counts_the_judges_who_give_the_middle_or_more() -> None:
    assert values(DIVIDED, "approval") == {"cyd": 1.0, "dan": 0.75, "bob": 0.5, "ada": 0.25, "eve": 0.25}
    assert order(DIVIDED, "approval")[3:] == ["ada", "eve"], "the better mean breaks the tie"


def test_borda_counts_whom_each_judge_puts_after_a_member() -> None:
    # cyd: of ada's, bob's, dan's, eve's list it beats 2, 3, 3, 2 of 3 others.
    assert values(DIVIDED, "borda")["cyd"] == pytest.approx((2 + 3 + 3 + 2) / 12)
    # bob: 3 of 3, 3 of 3, none, none.
    assert values(DIVIDED, "borda")["bob"] == pytest.approx(6 / 12)
    assert order(DIVIDED, "borda")[0] == "cyd"


def test_borda_counts_an_equal_score_as_half() -> None:
    equal: Scores = {"ada": {"bob": 4, "cyd": 4, "dan": 1}}
    assert values(equal, "borda") == {"bob": 0.75, "cyd": 0.75, "dan": 0.0}


def test_pairwise_has_the_one_who_wins_all_duels_win() -> None:
    """Ada is first of the mean by one excellent score; bob is before ada for most who have seen both."""
    scores: Scores = {
        "cyd": {"ada": 3, "bob": 4},
        "dan": {"ada": 3, "bob": 4},
        "eve": {"ada": 5, "bob": 1},
        "ada": {"cyd": 1, "bob": 3},
        "bob": {"cyd": 1, "ada": 3},
    }
    assert order(scores, "mean")[0] == "ada"
    assert order(scores, "pairwise") == ["bob", "ada", "cyd"]
    assert values(scores, "pairwise") == {"bob": 1.0, "ada": 0.5, "cyd": 0.0}


def test_a_circle_of_duels_is_a_tie() -> None:
    circle: Scores = {"dan": {"ada": 3, "bob": 2, "cyd": 1}, "eve": {"bob": 3, "cyd": 2, "ada": 1}}
    circle["fay"] = {"cyd": 3, "ada": 2, "bob": 1}
    assert values(circle, "pairwise") == {"ada": 0.5, "bob": 0.5, "cyd": 0.5}
    assert order(circle, "pairwise") == ["ada", "bob", "cyd"], "all else is equal: the order of the question"


def test_two_who_judge_each_other_are_compared_by_the_mean() -> None:
    two: Scores = {"ada": {"bob": 4}, "bob": {"ada": 2}}
    for by in METHODS:
        assert order(two, by) == ["bob", "ada"]
    assert values(two, "borda") == values(two, "pairwise") == {"ada": 0.5, "bob": 0.5}


def test_ties_go_by_mean_then_median_then_duels_then_the_order_of_the_question() -> None:
    by_mean: Scores = {"cyd": {"ada": 3, "bob": 4}, "dan": {"ada": 3, "bob": 4}}
    assert values(by_mean, "approval") == {"ada": 1.0, "bob": 1.0}
    assert order(by_mean, "approval") == ["bob", "ada"]
    mean_first: Scores = {"cyd": {"ada": 3, "bob": 4}, "dan": {"ada": 3, "bob": 3.5}, "eve": {"ada": 5, "bob": 3}}
    assert order(mean_first, "approval", ("bob", "ada")) == ["ada", "bob"], "bob has the better median"
    by_median: Scores = {"cyd": {"ada": 1, "bob": 2}, "dan": {"ada": 4, "bob": 2}, "eve": {"ada": 4, "bob": 5}}
    assert values(by_median, "mean") == {"ada": 3.0, "bob": 3.0}
    assert order(by_median, "mean", ("bob", "ada")) == ["ada", "bob"]
    by_duels: Scores = {"cyd": {"ada": 2, "bob": 3}, "dan": {"ada": 3, "bob": 4}, "eve": {"ada": 4, "bob": 2}}
    by_duels["fay"] = {"ada": 1, "bob": 1}
    assert values(by_duels, "mean") == {"ada": 2.5, "bob": 2.5}
    assert values(by_duels, "median") == {"ada": 2.5, "bob": 2.5}
    assert order(by_duels, "mean") == ["bob", "ada"]
    by_place: Scores = {"cyd": {"ada": 3, "bob": 3}}
    assert order(by_place, "mean") == ["ada", "bob"]
    assert order(by_place, "mean", ("bob", "ada")) == ["bob", "ada"]


def test_a_sum_in_another_order_is_a_tie_all_the_same() -> None:
    parts = (0.1, 0.2, 0.3, 0.7, 1.1)
    judges = ("j1", "j2", "j3", "j4", "j5")
    scores: Scores = {
        judge: {"ada": one, "bob": other} for judge, one, other in zip(judges, parts, reversed(parts), strict=True)
    }
    assert values(scores, "mean", ("ada", "bob"))["ada"] == values(scores, "mean", ("ada", "bob"))["bob"]


def test_scores_that_do_not_count() -> None:
    scores: Scores = {
        "ada": {"ada": 5, "bob": 2, "nobody": 5},
        "bob": {"ada": math.nan, "cyd": math.inf},
        "cyd": {"ada": 1},
    }
    ranking = ranked(scores, NAMES, "mean", middle=MIDDLE)
    assert [(each.member, each.value) for each in ranking] == [("bob", 2.0), ("ada", 1.0)]
    assert ranked({}, NAMES, "borda", middle=MIDDLE) == ()


def test_dissent_is_who_puts_another_before_the_winner() -> None:
    ranking = by_member(ranked(DIVIDED, NAMES, "borda", middle=MIDDLE))
    assert ranking["bob"].dissent == ("ada",)
    assert ranking["dan"].dissent == ("eve",)
    assert ranking["ada"].dissent == ranking["eve"].dissent == ()
    assert ranking["cyd"].rank == 1
    assert ranking["cyd"].dissent == ("ada", "eve")
    assert ranking["cyd"].scores == {"ada": 4, "bob": 4, "dan": 4, "eve": 3}
    equal = by_member(ranked({"cyd": {"ada": 4, "bob": 4}, "dan": {"ada": 5, "bob": 3}}, NAMES, "mean", middle=MIDDLE))
    assert equal["ada"].dissent == equal["bob"].dissent == (), "an equal score is no dissent"


# For any scores


def scores_of(names: tuple[str, ...]) -> st.SearchStrategy[Scores]:
    pairs = list(itertools.permutations(names, 2))
    points = st.none() | st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0, 2.75, 10 / 3])

    def made(drawn: list[float | None]) -> Scores:
        scores: Scores = {}
        for (judge, name), value in zip(pairs, drawn, strict=True):
            if value is not None:
                scores.setdefault(judge, {})[name] = value
        return scores

    return st.lists(points, min_size=len(pairs), max_size=len(pairs)).map(made)


ANY = st.integers(1, 5).flatmap(lambda count: st.tuples(st.just(NAMES[:count]), scores_of(NAMES[:count])))


@settings(max_examples=examples(40), deadline=None)
@given(ANY, st.sampled_from(METHODS), st.randoms(use_true_random=False))
def test_names_and_the_order_of_judges_mean_nothing(
    drawn: tuple[tuple[str, ...], Scores], by: Aggregation, rng: random.Random
) -> None:
    """Every member has another name, the judges and what they say come in another order: the same places win."""
    names, scores = drawn
    shuffle = rng.sample
    others = dict(zip(names, shuffle([f"x{index}" for index in range(len(names))], len(names)), strict=True))
    renamed = {
        others[judge]: {others[name]: scores[judge][name] for name in shuffle(list(scores[judge]), len(scores[judge]))}
        for judge in shuffle(list(scores), len(scores))
    }
    expected = [
        (others[each.member], each.rank, each.value, {others[judge]: s for judge, s in each.scores.items()})
        for each in ranked(scores, names, by, middle=MIDDLE)
    ]
    given_ = ranked(renamed, tuple(others[name] for name in names), by, middle=MIDDLE)
    assert [(each.member, each.rank, each.value, each.scores) for each in given_] == expected


@settings(max_examples=examples(40), deadline=None)
@given(ANY, st.sampled_from(METHODS), st.randoms(use_true_random=False))
def test_the_order_of_members_decides_between_equals_alone(
    drawn: tuple[tuple[str, ...], Scores], by: Aggregation, rng: random.Random
) -> None:
    names, scores = drawn
    shuffled = tuple(rng.sample(names, len(names)))
    one, other = (ranked(scores, order_, by, middle=MIDDLE) for order_ in (names, shuffled))
    keys = [{each.member: key for each, key in zip(r, _keys(scores, names, by, r), strict=True)} for r in (one, other)]
    assert keys[0] == keys[1]
    places = [[keys[0][each.member] for each in r] for r in (one, other)]
    assert places[0] == places[1] == sorted(places[0], reverse=True)
    for ranking, order_ in ((one, names), (other, shuffled)):
        for before, after in itertools.pairwise(ranking):
            if keys[0][before.member] == keys[0][after.member]:
                assert order_.index(before.member) < order_.index(after.member)


def _keys(
    scores: Scores, names: tuple[str, ...], by: Aggregation, ranking: tuple[Ranked, ...]
) -> list[tuple[float, ...]]:
    """What decides, of each: the value, and those of the tie rule."""
    methods: tuple[Aggregation, ...] = (by, "mean", "median", "pairwise")
    found = [values(scores, method, names) for method in methods]
    return [tuple(each[ranked_.member] for each in found) for ranked_ in ranking]


@settings(max_examples=examples(40), deadline=None)
@given(ANY, st.sampled_from(METHODS))
def test_all_who_were_scored_are_ranked_once(drawn: tuple[tuple[str, ...], Scores], by: Aggregation) -> None:
    names, scores = drawn
    ranking = ranked(scores, names, by, middle=MIDDLE)
    scored = {name for ballot in scores.values() for name in ballot}
    assert sorted(each.member for each in ranking) == sorted(scored)
    assert [each.rank for each in ranking] == list(range(1, len(ranking) + 1))
    for each in ranking:
        assert each.scores == {
            judge: pytest.approx(ballot[each.member]) for judge, ballot in scores.items() if each.member in ballot
        }


@settings(max_examples=examples(40), deadline=None)
@given(ANY, st.sampled_from(METHODS), st.data())
def test_a_better_score_never_lowers_a_member(
    drawn: tuple[tuple[str, ...], Scores], by: Aggregation, data: st.DataObject
) -> None:
    names, scores = drawn
    ranking = ranked(scores, names, by, middle=MIDDLE)
    if not ranking:
        return
    chosen = data.draw(st.sampled_from(ranking))
    judge = data.draw(st.sampled_from(sorted(chosen.scores)))
    better = scores | {judge: scores[judge] | {chosen.member: 6.0}}
    assert by_member(ranked(better, names, by, middle=MIDDLE))[chosen.member].rank <= chosen.rank


COMPLETE = st.integers(3, 5).flatmap(
    lambda count: st.lists(
        st.lists(st.integers(1, 5).map(float), min_size=count, max_size=count), min_size=count, max_size=count
    )
)


@settings(max_examples=examples(40), deadline=None)
@given(COMPLETE)
def test_with_all_scores_there_borda_is_bordas_count(table: list[list[float]]) -> None:
    names = NAMES[: len(table)]
    scores: Scores = {
        judge: {name: points for name, points in zip(names, row, strict=True) if name != judge}
        for judge, row in zip(names, table, strict=True)
    }
    count = {
        name: sum(
            (ballot[name] > points) + 0.5 * (ballot[name] == points)
            for ballot in scores.values()
            if name in ballot
            for other, points in ballot.items()
            if other != name
        )
        for name in names
    }
    most = (len(names) - 1) * (len(names) - 2)
    assert values(scores, "borda", names) == {name: pytest.approx(count[name] / most) for name in names}
