"""A lead that cannot be lost, held against all that may become of the missing scores."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.deliberation.acted import Acted, question
from tests.long_form import examples

from anywire_service_deliberation.aggregation import ranked
from anywire_service_deliberation.early import Bounds, Missing, borda_bounds, is_settled, pairwise_bounds
from anywire_service_deliberation.ending import middle
from anywire_service_deliberation.question import Aggregation, Rubric

RUBRIC = Rubric("any", (), lowest=1, highest=5)
AGGREGATIONS: tuple[Aggregation, ...] = ("borda", "mean", "median", "approval", "pairwise")
Scores = dict[str, dict[str, float]]


def winner(scores: Scores, names: tuple[str, ...], by: Aggregation) -> str:
    return ranked(scores, names, by, middle=middle(RUBRIC))[0].member


def completions(scores: Scores, missing: Missing) -> Iterator[Scores]:
    """Whatever may become of them: none, any of the rubric's numbers, and one between each two that are there."""
    values = (None, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)
    pairs = sorted(missing)
    for chosen in itertools.product(values, repeat=len(pairs)):
        complete = {judge: dict(judged) for judge, judged in scores.items()}
        for (judge, name), value in zip(pairs, chosen, strict=True):
            if value is not None:
                complete.setdefault(judge, {})[name] = value
        yield complete


def drawn(rng: random.Random, members: int, missing: int, lost: float) -> tuple[Scores, Missing, tuple[str, ...]]:
    """Scores with favourites among the members: else hardly a lead would ever be safe."""
    names = tuple("abcde"[:members])
    liked = {name: rng.choice((0, 0, 1, 2)) for name in names}
    pairs = [(judge, name) for judge in names for name in names if judge != name]
    open_pairs = frozenset(rng.sample(pairs, min(missing, len(pairs))))
    scores: Scores = {}
    for judge, name in pairs:
        if (judge, name) not in open_pairs and rng.random() >= lost:
            scores.setdefault(judge, {})[name] = float(min(5, rng.randint(1, 3) + liked[name]))
    return scores, open_pairs, names


@settings(max_examples=examples(60), deadline=None)
@given(
    st.sampled_from(AGGREGATIONS),
    st.integers(2, 5),
    st.integers(1, 2),
    st.sampled_from((0.0, 0.2)),
    st.integers(0, 2**32),
)
def test_no_completion_changes_a_winner_that_is_settled(
    by: Aggregation, members: int, missing: int, lost: float, seed: int
) -> None:
    rng = random.Random(seed)
    for _ in range(10):
        scores, open_pairs, names = drawn(rng, members, missing, lost)
        if is_settled(scores, open_pairs, names, by, RUBRIC):
            leader = winner(scores, names, by)
            for complete in completions(scores, open_pairs):
                assert winner(complete, names, by) == leader, (scores, sorted(open_pairs), complete)


@settings(max_examples=examples(30), deadline=None)
@given(st.sampled_from(AGGREGATIONS), st.integers(3, 5), st.integers(3, 8), st.integers(0, 2**32))
def test_nor_do_many_missing_ones_and_the_worst_of_them_least_of_all(
    by: Aggregation, members: int, missing: int, seed: int
) -> None:
    """Too many to try all: those that are drawn, and for each rival those that are worst for the leader against it."""
    rng = random.Random(seed)
    for _ in range(10):
        scores, open_pairs, names = drawn(rng, members, missing, 0.1)
        if not is_settled(scores, open_pairs, names, by, RUBRIC):
            continue
        leader = winner(scores, names, by)
        for rival in names:
            for _ in range(20):
                complete = {judge: dict(judged) for judge, judged in scores.items()}
                for judge, name in sorted(open_pairs):
                    value = {leader: 1.0, rival: 5.0}.get(name, rng.choice((1.0, 2.0, 3.0, 4.0, 5.0)))
                    if rng.random() < 0.1:
                        value = rng.uniform(1.0, 5.0)
                    if rng.random() < 0.9:
                        complete.setdefault(judge, {})[name] = value
                assert winner(complete, names, by) == leader, (scores, sorted(open_pairs), complete)


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(2, 5), st.integers(1, 2), st.sampled_from((0.0, 0.3)), st.integers(0, 2**32))
def test_whatever_becomes_of_them_a_value_is_within_its_bounds(
    members: int, missing: int, lost: float, seed: int
) -> None:
    scores, open_pairs, names = drawn(random.Random(seed), members, missing, lost)
    bounds: dict[Aggregation, dict[str, Bounds]] = {
        "borda": {name: borda_bounds(scores, open_pairs, name) for name in names},
        "pairwise": {name: pairwise_bounds(scores, open_pairs, names, name) for name in names},
    }
    for complete in completions(scores, open_pairs):
        for by, of_each in bounds.items():
            ranking = ranked(complete, names, by, middle=middle(RUBRIC))
            for each in ranking:
                least, most = of_each[each.member]
                won_less_lost = (2 * each.value - 1) * (len(ranking) - 1)
                value = won_less_lost if by == "pairwise" else each.value
                assert least - 1e-6 <= value <= most + 1e-6, (by, each, scores, complete)


@pytest.mark.parametrize("by", AGGREGATIONS)
def test_a_clear_lead_is_seen_and_a_lead_that_can_be_lost_is_none(by: Aggregation) -> None:
    """Of five, all prefer ``a`` to the rest, and one score of another is missing."""
    names = ("a", "b", "c", "d", "e")
    clear = {judge: {name: 5.0 if name == "a" else 1.0 for name in names if name != judge} for judge in names}
    del clear["e"]["d"]
    assert is_settled(clear, frozenset({("e", "d")}), names, by, RUBRIC)
    close = {"b": {"a": 4.0, "c": 3.0}, "c": {"a": 3.0, "b": 4.0}}
    assert not is_settled(close, frozenset({("a", "b"), ("a", "c")}), names[:3], by, RUBRIC)
    assert not is_settled({}, frozenset({("a", "b"), ("b", "a")}), names[:2], by, RUBRIC)


def test_a_tie_is_left_to_the_scores_that_break_it() -> None:
    """``a`` leads ``b`` by a comparison won; the missing score can give ``b`` one too, which is named first."""
    scores = {"a": {"b": 4.0}, "b": {"a": 4.0, "c": 1.0}, "c": {"a": 4.0, "b": 4.0}}
    assert not is_settled(scores, frozenset({("a", "c")}), ("b", "a", "c"), "mean", RUBRIC)


def test_the_course_does_not_wait_for_scores_that_change_nothing() -> None:
    acted = Acted(question(4, rounds=0, aggregation="mean"))
    acted.begin()
    acted.answer_all()
    for each in sorted(acted.under_way):
        if each.member != "member-4":
            acted.answer(each, 5.0 if each.about == "member-1" else 4.0)
    assert not acted.finished
    acted.answer("score/0/member-4/member-1", 5.0)
    assert [(state.status, state.winner, state.spared) for state in acted.finished] == [("completed", "member-1", 2)]
    assert len(acted.stops) == 2


def test_nothing_is_spared_below_the_quorum() -> None:
    """Also where the quorum is lost already: what the others are worth is kept."""
    acted = Acted(question(3, rounds=0, aggregation="mean", quorum=3))
    acted.begin()
    acted.answer_all()
    for each in sorted(acted.under_way):
        if each.about == "member-3":
            acted.fail(each, "nonsense")
    for each in sorted(acted.under_way):
        assert not acted.finished
        acted.answer(each, 5.0 if each.about == "member-1" else 1.0)
    assert (acted.state.status, acted.state.spared) == ("failed", 0)
    assert acted.state.reason.startswith("3 of 3 members have a proposal, 2 of them scored, 3 must: ")
