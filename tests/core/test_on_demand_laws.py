"""Agents on demand, as the pure decision starts and ends them: its laws, whatever the state and in simulated fleets."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.on_demand_settings import OnDemandConfig
from anywire.roles.on_demand.decision import Decision, Member, SortNow, decide
from anywire.roles.on_demand.waiting_tasks import Peak, WaitingTasks

IDLE = 60.0


def member(name: str) -> st.SearchStrategy[Member]:
    return st.builds(
        Member,
        st.just(name),
        st.sampled_from(["starting", "serving", "serving", "away", "leaving"]),
        st.booleans(),
        st.integers(1, 4),
        st.integers(0, 4),
        st.sampled_from([0.0, IDLE - 1, IDLE, 3 * IDLE]),
    )


@st.composite
def sorts(draw: st.DrawFn) -> list[SortNow]:
    made = []
    for number in range(draw(st.integers(1, 3))):
        members = [draw(member(f"{number}-{each}")) for each in range(draw(st.integers(0, 6)))]
        waiting = draw(st.integers(0, 12))
        made.append(
            SortNow(
                members,
                draw(st.integers(0, 8)),
                draw(st.integers(1, 4)),
                waiting,
                draw(st.integers(0, waiting)),
                draw(st.integers(0, 16)),
                draw(st.booleans()),
                draw(st.frozensets(st.sampled_from("xyz"), max_size=2)),
            )
        )
    return made


def carried_out(found: list[SortNow], decision: Decision) -> list[SortNow]:
    after = []
    for number, each in enumerate(found):
        members = [
            msgspec.structs.replace(one, state="leaving") if one.agent_id in decision.end else one
            for one in each.members
        ]
        members += [Member(f"new-{number}-{n}", "starting", True, each.slots) for n in range(decision.start[number])]
        after.append(msgspec.structs.replace(each, members=members))
    return after


def serving_slots(found: SortNow) -> int:
    return sum(each.slots for each in found.members if each.state == "serving")


@settings(max_examples=examples(200))
@given(sorts(), st.integers(0, 10))
def test_laws_of_one_decision(found: list[SortNow], most: int) -> None:
    decision = decide(found, most, IDLE)
    assert len(decision.start) == len(found)
    members = {each.agent_id: each for sort in found for each in sort.members}
    there = sum(sort.on_demand for sort in found)
    assert sum(decision.start) <= max(0, most - there), "never over `most`"
    for sort, number in zip(found, decision.start, strict=True):
        assert not number or sort.on_demand + number <= sort.most, "never over `most` of a sort"
        assert not number or (sort.overdue and sort.may_start), "nothing is started for nobody"
        ended = [each for each in sort.members if each.agent_id in decision.end]
        assert not (ended and sort.waiting), "nothing ends while tasks wait"
        assert not (ended and number)
    for name in decision.end:
        assert members[name].on_demand, "those that always run are not ended"
        assert not members[name].running, "a busy agent is not ended"
        assert members[name].age >= IDLE
        assert members[name].state != "leaving"
    after = carried_out(found, decision)
    for sort in found:
        alike = [n for n, each in enumerate(found) if each is sort or (each.models and each.models == sort.models)]
        before, left = (sum(serving_slots(them[n]) for n in alike) for them in (found, after))
        assert left >= min(before, sort.peak), "what was needed lately is not ended"
    again = decide(after, most, IDLE)
    assert not any(again.start), "nothing is started twice"
    assert not again.end


def test_one_for_each_that_waits_and_none_where_a_slot_is_free() -> None:
    busy = Member("a", running=1)
    assert decide([SortNow([busy], 6, 1, 7, 7, 8)], 6, IDLE).start == (6,)
    assert decide([SortNow([busy], 6, 4, 7, 7, 8)], 6, IDLE).start == (2,), "each would have four slots"
    assert decide([SortNow([busy], 6, 1, 7, 0, 8)], 6, IDLE).start == (0,), "none has waited long enough"
    coming = [Member(f"b{number}", "starting", True) for number in range(2)]
    assert decide([SortNow([busy, *coming], 6, 1, 3, 3, 4)], 6, IDLE).start == (1,), "two are on their way"
    assert decide([SortNow([Member("a")], 6, 1, 1, 1, 1)], 6, IDLE).start == (0,), "it waits for something else"
    assert decide([SortNow([busy], 6, 1, 1, 1, 2), SortNow([busy], 6, 1, 2, 2, 3)], 2, IDLE).start == (1, 1)


def test_a_task_that_two_sorts_serve_has_one_agent_started() -> None:
    def sort(most: int, *coming: Member, models: str = "x", overdue: int = 3) -> SortNow:
        busy = Member("a", running=1)
        return SortNow([busy, *coming], most, 1, overdue, overdue, overdue + 2, models=frozenset(models))

    assert decide([sort(6), sort(6)], 6, IDLE).start == (3, 0), "the first one starts them"
    assert decide([sort(1), sort(6)], 6, IDLE).start == (1, 2), "what it may not start the second one does"
    assert decide([sort(6), sort(6, models="xy", overdue=5)], 9, IDLE).start == (3, 2)
    assert decide([sort(6), sort(6, models="y")], 9, IDLE).start == (3, 3)
    coming = Member("b", "starting", True, age=IDLE - 1)
    assert decide([sort(1, coming), sort(6)], 9, IDLE).start == (0, 2)
    assert decide([sort(6), sort(1, coming)], 9, IDLE).start == (2, 0)
    stuck = Member("b", "starting", True, age=IDLE)
    assert decide([sort(1, stuck), sort(6)], 9, IDLE).start == (0, 3), "the second one waits no longer for it"


def test_what_another_sort_of_the_same_models_has_is_enough() -> None:
    models = frozenset("x")
    one = SortNow([Member("a"), Member("b", "serving", True, 1, 0, IDLE)], 6, peak=2, models=models)
    assert decide([one, SortNow([Member("c")], 6, peak=2, models=models)], 6, IDLE).end == ("b",)
    assert decide([one, SortNow([Member("c")], 6, peak=2, models=frozenset("xy"))], 6, IDLE).end == ()
    assert decide([one, SortNow([Member("c", running=1)], 6, 1, 1, models=models)], 6, IDLE).end == ()


def test_the_others_must_be_enough_for_what_was_there_lately() -> None:
    there = [Member("a"), Member("b", "serving", True, 1, 0, 2 * IDLE), Member("c", "serving", True, 1, 0, IDLE)]
    assert decide([SortNow(there, 6, peak=3)], 6, IDLE).end == ()
    assert decide([SortNow(there, 6, peak=2)], 6, IDLE).end == ("c",), "the newest first"
    assert decide([SortNow(there, 6, peak=1)], 6, IDLE).end == ("c", "b")
    assert decide([SortNow(there, 6, peak=0)], 6, IDLE).end == ("c", "b"), "those that always run stay"


def test_settings_that_would_flap_are_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="must be longer than after"):
        OnDemandConfig(most=1, after=5, idle=5)


# What is counted


@settings(max_examples=examples(100))
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 4.0]), st.integers(0, 5)), max_size=30))
def test_the_peak_is_that_of_all_values_in_the_window(steps: list[tuple[float, int]]) -> None:
    window, now, peak = 5.0, 100.0, Peak(5.0)
    history = [(float("-inf"), 0)]
    for wait, value in steps:
        now += wait
        peak.set(value, now)
        history.append((now, value))
        ends = [began for began, _ in history[1:]] + [float("inf")]
        expected = max(held for (_, held), end in zip(history, ends, strict=True) if end > now - window)
        assert peak.highest(now) == expected
        falls = peak.falls_in(now)
        assert (falls is None) == (expected == value)
        if falls is not None:
            assert peak.highest(now + falls) < expected
            peak = _replayed(history, window)


def _replayed(history: list[tuple[float, int]], window: float) -> Peak:
    """A look ahead forgets: the same values again."""
    peak = Peak(window)
    for began, value in history[1:]:
        peak.set(value, began)
    return peak


@settings(max_examples=examples(60))
@given(st.lists(st.tuples(st.sampled_from("awfse"), st.sampled_from("123"), st.sampled_from("xy")), max_size=40))
def test_tasks_are_counted_once_by_model(steps: list[tuple[str, str, str]]) -> None:
    tasks, models, waits = WaitingTasks(), dict[str, str](), set[str]()
    for now, (what, task, model) in enumerate(steps):
        match what:
            case "a":
                tasks.admitted(task, model, float(now))
                if task not in models:
                    models[task] = model
                    waits.add(task)
            case "w":
                tasks.waits_again(task, float(now))
                waits |= {task} & models.keys()
            case "f":
                tasks.is_for(task, model)
                models.update({task: model} if task in models else {})
            case "s":
                tasks.sent(task)
                waits.discard(task)
            case _:
                tasks.ended(task)
                models.pop(task, None)
                waits.discard(task)
        counts = Counter(models.values())
        for name in "xy":
            assert tasks.at_once([name]) == counts[name]
            assert len(tasks.waiting([name])) == sum(models[each] == name for each in waits)
        assert tasks.at_once("xy") == len(models)
        assert len(tasks.waiting("xy")) == len(waits)


# A fleet over time


class Fleet:
    """One sort with ``base`` agents, to which tasks come; an agent takes ``start_s`` seconds to start."""

    def __init__(self, base: int, most: int, slots: int, start_s: float) -> None:
        self.base, self.most, self.slots, self.start_s = base, most, slots, start_s
        self.now = 0.0
        self.peak = Peak(IDLE)
        self.waiting: list[float] = []
        self.extras: dict[str, tuple[float, float]] = {}
        """When each was started, and when it serves."""
        self.running: Counter[str] = Counter()
        self.starts = self.ends = 0

    @property
    def members(self) -> list[Member]:
        always = [
            Member(f"a{number}", "serving", False, self.slots, self.running[f"a{number}"])
            for number in range(self.base)
        ]
        return always + [
            Member(
                name,
                "serving" if serves <= self.now else "starting",
                True,
                self.slots,
                self.running[name],
                self.now - (serves if serves <= self.now else began),
            )
            for name, (began, serves) in self.extras.items()
        ]

    def change(self, come: int, done: int, rng: random.Random) -> None:
        self.waiting += [self.now] * come
        for _ in range(done):
            if busy := sorted(name for name, number in self.running.items() if number > 0):
                self.running[rng.choice(busy)] -= 1
        self.dispatch()

    def dispatch(self) -> None:
        for each in self.members:
            while self.waiting and each.state == "serving" and self.running[each.agent_id] < self.slots:
                self.running[each.agent_id] += 1
                self.waiting.pop(0)
        self.peak.set(len(self.waiting) + self.running.total(), self.now)

    def look(self, after: float = 1.0) -> Decision:
        self.dispatch()
        overdue = sum(since + after <= self.now for since in self.waiting)
        found = SortNow(self.members, self.most, self.slots, len(self.waiting), overdue, self.peak.highest(self.now))
        decision = decide([found], self.most, IDLE)
        for _ in range(decision.start[0]):
            self.starts += 1
            self.extras[f"x{self.starts}"] = self.now, self.now + self.start_s
        for name in decision.end:
            assert not self.running[name]
            self.ends += 1
            del self.extras[name]
        assert len(self.extras) <= self.most
        return decision


@settings(max_examples=examples(40))
@given(st.integers(1, 3), st.integers(0, 6), st.integers(1, 3), st.integers(0, 100), st.randoms(use_true_random=False))
def test_a_fleet_grows_to_its_load_and_shrinks_back(
    base: int, most: int, slots: int, start_s: int, rng: random.Random
) -> None:
    fleet = Fleet(base, most, slots, start_s)
    for _ in range(60):
        fleet.now += rng.choice((0.5, 1.0, 5.0, 40.0))
        fleet.change(rng.choice((0, 0, 1, 4)), rng.choice((0, 1, 3)), rng)
        fleet.look()
    # More than everybody can do: all that may be started are there, and stay.
    fleet.change(40, 0, rng)
    for _ in range(20):
        fleet.now += 10.0
        fleet.look()
    assert len(fleet.extras) == most
    assert not fleet.waiting or all(fleet.running[each.agent_id] == slots for each in fleet.members)
    # Nothing more comes: what was started ends, within `idle` of the last task's end.
    while fleet.running.total():
        fleet.now += 1.0
        fleet.change(0, 2, rng)
        fleet.look()
    fleet.now += IDLE
    fleet.look()
    assert not fleet.extras
    assert fleet.starts == fleet.ends


@settings(max_examples=examples(40))
@given(st.integers(1, 3), st.integers(1, 12), st.integers(0, 30), st.randoms(use_true_random=False))
def test_an_even_load_makes_nothing_come_and_go(base: int, load: int, start_s: int, rng: random.Random) -> None:
    """Always ``load`` tasks at once, each replaced when it ends: after the first agents have come, none does."""
    fleet = Fleet(base, 20, 1, start_s)
    fleet.change(load, 0, rng)
    for _ in range(int(start_s) + 5):
        fleet.now += 1.0
        fleet.look()
    settled = fleet.starts
    assert len(fleet.extras) == max(0, load - base), "one for each task that had no slot, and no more"
    for _ in range(100):
        fleet.now += rng.choice((0.3, 1.0, 20.0))
        fleet.change(1, 1, rng)
        fleet.look()
    assert (fleet.starts, fleet.ends) == (settled, 0)
