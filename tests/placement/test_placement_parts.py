"""The parts of placement that remember: pauses between starts, absent replicas, listings of agents."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.agent_health import WELL
from anywire.messages import AgentInfo, AgentStatus
from anywire.selector import AgentView
from anywire_service_placement.absences import Absences
from anywire_service_placement.fleet import BUDGET, Fleet
from anywire_service_placement.listing import ListingReader
from anywire_service_placement.pauses import Pauses

PAIR = ("a1", "m")


@settings(max_examples=examples(60))
@given(st.lists(st.integers(0, 400), min_size=1, max_size=40))
def test_starts_of_a_model_are_further_and_further_apart(gaps: list[int]) -> None:
    """``gaps`` is how long a start waits beyond its pause."""
    pauses = Pauses(5.0, 300.0)
    now, expected = 1000.0, 5.0
    for gap in gaps:
        pauses.ended(PAIR, now)
        assert pauses.resting(now) == {PAIR: now + expected}
        assert pauses.resting(now + expected) == {}
        now += expected + gap
        expected = min(expected * 2, 300.0) if gap <= 300 else 5.0


def test_pauses_are_of_each_pair_and_can_be_forgotten() -> None:
    pauses = Pauses(5.0, 10.0)
    pauses.ended(PAIR, 0.0)
    pauses.ended(("a2", "m"), 3.0)
    assert pauses.resting(4.0) == {PAIR: 5.0, ("a2", "m"): 8.0}
    pauses.forget()
    assert pauses.resting(4.0) == {}


@settings(max_examples=examples(100))
@given(st.lists(st.sets(st.sampled_from([("a1", "m"), ("a2", "m"), ("a1", "n")])), max_size=30), st.floats(0, 5))
def test_a_replica_counts_as_absent_for_as_long_as_said(looks: list[set[tuple[str, str]]], lasts: float) -> None:
    absences = Absences(lasts)
    left: dict[tuple[str, str], float] = {}
    before: set[tuple[str, str]] = set()
    for number, present in enumerate(looks):
        now = float(number)
        for pair in before - present:
            left[pair] = now
        left = {pair: since for pair, since in left.items() if pair not in present and now < since + lasts}
        absent = absences.look(present, now)
        for model in ("m", "n"):
            assert absent[model] == sum(pair[1] == model for pair in left)
        assert (absences.next is None) == (not left)
        before = present


def test_what_is_given_up_is_not_absent() -> None:
    absences = Absences(10.0)
    absences.look({PAIR}, 0.0)
    absences.given_up(PAIR)
    assert not absences.look(set(), 1.0)


def test_a_listing_is_put_together_from_its_results() -> None:
    reader = ListingReader()
    assert reader.take({"models": [{"model": "a", "state": "running", "memory_bytes": 3, "serving": 1, "new": True}]})
    memory = {"budget_bytes": 10, "used_bytes": 5, "swaps": 2, "swap_seconds": 1.5}
    assert reader.take({"models": [{"model": "b"}], "memory": memory, "devices": [{"name": "gpu:0"}]})
    listing = reader.listing()
    assert (listing.models["a"].busy, listing.models["a"].memory_bytes) == (True, 3)
    assert listing.models["b"].state == "stopped"
    assert listing.other_bytes == 2, "a model that is listed no more still has its memory"
    assert listing.memory.swaps == 2


@pytest.mark.parametrize(
    ("told", "expected"),
    [({BUDGET: 400.0}, 400), ({}, 800), ({BUDGET: 0.0}, 0), ({BUDGET: -5.0}, 800), ({BUDGET: float("inf")}, 800)],
)
def test_a_budget_that_an_agent_has_reported_since_counts_before_that_of_its_listing(
    told: dict[str, float], expected: int
) -> None:
    """Programs on its machine have come or gone, which changes none of its models."""
    reader = ListingReader()
    reader.take({"memory": {"budget_bytes": 800, "used_bytes": 0}, "models": []})
    listings: Any = SimpleNamespace(of=lambda agent: SimpleNamespace(listing=reader.listing()))
    moves: Any = SimpleNamespace(state=lambda *_: None, is_refused=lambda *_: False, is_moving=lambda _: False)
    context: Any = SimpleNamespace(agent_health=lambda _: WELL)
    agent = AgentView(AgentInfo("a", 1), AgentStatus("a", 1, resources=told), 0, "memory")
    (place,) = Fleet(context, listings, moves).places([agent], 0.0)
    assert place.budget_bytes == expected
