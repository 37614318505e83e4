"""Laws of the course, by random schedules: whatever happens in whatever order, a deliberation ends once, in time, with
each piece of work counted once, and who wins depends on the scores alone."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.deliberation.acted import Acted, question
from tests.long_form import examples

from anywire_service_deliberation.aggregation import ranked
from anywire_service_deliberation.ending import middle
from anywire_service_deliberation.question import Aggregation, Rubric
from anywire_service_deliberation.record import FINAL, Deliberation, WorkId
from anywire_service_deliberation.stages import authors, scores, standing

AGGREGATIONS: tuple[Aggregation, ...] = ("borda", "mean", "median", "approval", "pairwise")
QUESTIONS = st.builds(
    question,
    st.integers(1, 5),
    rounds=st.integers(0, 2),
    quorum=st.integers(1, 3),
    timeout=st.sampled_from((0.5, 30.0, 300.0)),
    aggregation=st.sampled_from(AGGREGATIONS),
    synthesis=st.booleans(),
)
SEEDS = st.integers(0, 2**32)


class Adversary:
    """Does anything at any time: answers, failures, both again or of earlier tries, late ones, those of works that
    nobody asked for, wakes too early, clocks that go back, restarts, and rarely a cancel."""

    def __init__(self, acted: Acted, rng: random.Random) -> None:
        self.acted, self.rng = acted, rng
        self.told: list[WorkId] = []
        self.began_at = acted.now
        timeout = acted.kept.question.timeout
        self.pauses = (0.0, timeout / 1000, timeout / 50, timeout / 5)

    def run(self) -> None:
        self.acted.begin()
        steps = {self.answer: 10, self.fail: 3, self.repeat: 3, self.wait: 4, self.restart: 1, self.disturb: 1}
        while not self.acted.finished:
            (step,) = self.rng.choices(list(steps), list(steps.values()))
            step()

    def answer(self) -> None:
        if self.acted.under_way:
            work = self.rng.choice(list(self.acted.under_way))
            self.told.append(work)
            self.acted.answer(work, self.rng.choice((1.0, 2.5, 4.0, 5.0, float("nan"), 9.0)), ended=self.rng.random())

    def fail(self) -> None:
        if self.acted.under_way:
            work = self.rng.choice(list(self.acted.under_way))
            self.told.append(work)
            self.acted.fail(work, self.rng.choice(("agent_lost", "nonsense")), again=self.rng.random() < 0.7)

    def repeat(self) -> None:
        """Tell again of a work that was answered, failed, or stopped; the caller of the course loses no try by it."""
        before = self.acted.state
        work = self.rng.choice([*self.told, *self.acted.stops, WorkId("score", 0, "member-1", "member-2")])
        if work not in self.acted.under_way:
            if self.rng.random() < 0.5:
                self.acted.answer(work, 1.0)
            else:
                self.acted.fail(work, again=True)
            changed = {
                name for name in before.__struct_fields__ if getattr(before, name) != getattr(self.acted.state, name)
            }
            assert changed <= {"late"}
        elif self.acted.under_way[work].tries > 1:
            self.acted.fail(work, again=True, tries=1)
            assert self.acted.state is before

    def wait(self) -> None:
        self.acted.pass_time(self.rng.choice(self.pauses))

    def restart(self) -> None:
        self.acted.restart(down=self.rng.choice(self.pauses))
        self.began_at = self.acted.now

    def disturb(self) -> None:
        if self.rng.random() < 0.1:
            self.acted.cancel()
            return
        was = self.acted.now
        self.acted.now = was - self.rng.choice((0.0, 1000.0))
        self.acted.wake()
        self.acted.now = was


def check_the_end(acted: Acted, began_at: float) -> None:
    """What holds of every deliberation that has ended."""
    state = acted.state
    assert [final.status for final in acted.finished] == [state.status]
    assert state.status in FINAL
    assert state.ended <= max(state.deadline, began_at)
    assert not acted.under_way
    names = authors(state)
    assert len({each.member for each in state.ranking}) == len(state.ranking)
    assert {each.member for each in state.ranking} <= set(names)
    if state.winner:
        assert len(standing(state)) >= state.question.quorum
        assert state.winner == state.ranking[0].member
        if len(names) > 1:
            assert state.ranking == ranking_of(state, scores(state), names)
    match state.status:
        case "completed":
            assert state.winner
            assert not state.failures
            assert not state.reason
        case "degraded":
            assert state.winner
            assert state.failures
            assert state.reason
        case "failed" | "timed_out":
            assert not state.winner
            assert state.reason
    for failures in state.retried.values():
        assert [each.tries for each in failures] == [1]
    assert all(failure.tries <= 2 for failure in state.failures.values())


def ranking_of(state: Deliberation, judged: dict[str, dict[str, float]], names: tuple[str, ...]) -> tuple[Any, ...]:
    question_ = state.question
    return ranked(judged, names, question_.aggregation, middle=middle(question_.rubric))


@settings(max_examples=examples(150), deadline=None)
@given(QUESTIONS, SEEDS)
def test_any_order_of_events_ends_once_in_time_with_each_work_counted_once(asked: Any, seed: int) -> None:
    acted = Acted(asked)
    adversary = Adversary(acted, random.Random(seed))
    adversary.run()
    check_the_end(acted, adversary.began_at)
    before = acted.state
    for work in adversary.told[:5]:
        acted.answer(work)
        acted.fail(work)
    acted.cancel()
    acted.wake()
    assert acted.state is before


@settings(max_examples=examples(60), deadline=None)
@given(QUESTIONS, SEEDS)
def test_with_any_delays_the_promise_is_kept(asked: Any, seed: int) -> None:
    """Each work takes its own time, from none to more than the whole has."""
    rng = random.Random(seed)
    acted = Acted(asked)
    due: dict[WorkId, float] = {}
    acted.begin()
    while not acted.finished:
        for work in acted.under_way:
            due.setdefault(work, acted.now + rng.choice((0.0, 0.01, 0.1, 0.4, 2.0)) * rng.random() * asked.timeout)
        waiting = {work: at for work, at in due.items() if work in acted.under_way}
        first = min(waiting, key=lambda work: waiting[work], default=None)
        if first is None or acted.wakes_at <= waiting[first]:
            acted.pass_time(acted.wakes_at - acted.now)
            due = {work: at for work, at in due.items() if work in acted.under_way and work not in acted.stops}
        else:
            acted.now = max(acted.now, due.pop(first))
            acted.answer(first)
    check_the_end(acted, acted.kept.submitted)


@settings(max_examples=examples(80), deadline=None)
@given(st.integers(2, 5), st.sampled_from(AGGREGATIONS), st.integers(0, 1), SEEDS)
def test_the_same_answers_give_the_same_winner_in_any_order_and_over_restarts(
    members: int, by: Aggregation, rounds: int, seed: int
) -> None:
    """Also where the scoring ends early, and where works fail for good or need a second try."""
    rng = random.Random(seed)
    asked = question(members, rounds=rounds, aggregation=by)
    points = (1.0, 2.0, 3.0, 4.0, 5.0) if rng.random() < 0.5 else (2.0, 4.0)
    fate: dict[WorkId, float | None] = {}

    def play(order: random.Random) -> Acted:
        acted = Acted(asked)
        acted.begin()
        while not acted.finished:
            work = order.choice(sorted(acted.under_way))
            if acted.under_way[work].tries == 1 and random.Random(f"{seed} {work}").random() < 0.2:
                acted.fail(work, again=True)
            elif (value := fate[work]) is None:
                acted.fail(work, again=False)
            else:
                acted.answer(work, value)
            if order.random() < 0.1 and not acted.finished:
                acted.restart(down=0.01)
        return acted

    names = [member.name for member in asked.members]
    for name in names:
        fate[WorkId("proposal", 0, name)] = None if rng.random() < 0.1 else 0.0
        fate[WorkId("revision", 1, name)] = None if rng.random() < 0.1 else 0.0
        for other in names:
            fate[WorkId("critique", 1, name, other)] = None if rng.random() < 0.1 else 0.0
            fate[WorkId("score", 0, name, other)] = None if rng.random() < 0.1 else rng.choice(points)

    first, *others = [play(random.Random(f"{seed} {number}")) for number in range(4)]
    alive = tuple(name for name in names if fate[WorkId("proposal", 0, name)] is not None)
    judged = {
        judge: {
            author: value
            for author in alive
            if author != judge and (value := fate[WorkId("score", 0, judge, author)]) is not None
        }
        for judge in alive
    }
    if len(alive) > 1 and any(judged.values()):
        assert first.state.winner == ranking_of(first.state, judged, alive)[0].member
    else:
        assert first.state.winner == "".join(alive if len(alive) == 1 else ())
    assert {acted.state.winner for acted in others} <= {first.state.winner}


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(1, 5), st.integers(0, 2), st.booleans(), SEEDS)
def test_undisturbed_each_work_is_asked_for_once_and_all_of_a_stage_before_its_first_answer(
    members: int, rounds: int, synthesis: bool, seed: int
) -> None:
    rng = random.Random(seed)
    acted = Acted(question(members, rounds=rounds, synthesis=synthesis))
    acted.begin()
    stage = list(acted.under_way)
    while not acted.finished:
        left, asked = set(stage), len(acted.asks)
        while left and left <= acted.under_way.keys():
            work = rng.choice(sorted(left))
            left.remove(work)
            acted.answer(work, float(rng.randint(1, 5)))
            assert not left or not left <= acted.under_way.keys() or len(acted.asks) == asked
        stage = list(acted.under_way)
    assert acted.state.status == "completed"
    assert len({ask.work for ask in acted.asks}) == len(acted.asks)
    pairs = members * (members - 1)
    criticising = rounds * (pairs + members) if members > 1 else 0
    assert len(acted.asks) == members + criticising + pairs + synthesis
    assert len(acted.state.answers) + acted.state.spared == len(acted.asks)


def test_the_middle_of_a_rubric_is_where_approval_begins() -> None:
    assert middle(Rubric("any", (), lowest=1, highest=5)) == 3.0
