"""What the planner of placement keeps, whatever the fleet is like: laws, and the fleet followed until nothing is to be
done any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire_service_placement.places import Pair, Place, Plan, Replica, State, Step, Wanted
from anywire_service_placement.planner import MAX_CHAIN, plan

MODELS = ("a", "b", "c", "d", "e")
STATES: tuple[State, ...] = ("stopped", "stopped", "running", "running", "starting", "stopping", "crashed")

Fleet = dict[str, Place]


@st.composite
def replicas(draw: st.DrawFn, plain: bool) -> Replica:
    state = draw(st.sampled_from(("stopped", "running") if plain else STATES))
    if plain:
        return Replica(state, 1)
    size = draw(st.integers(0, 4))
    busy, pinned = draw(st.booleans()) and draw(st.booleans()), draw(st.integers(0, 5)) == 0
    return Replica(state, size, busy and state == "running", pinned, draw(st.sampled_from(("", "", "", "g", "h"))))


@st.composite
def fleets(draw: st.DrawFn, plain: bool = False) -> Fleet:
    """At most four agents on two hosts. ``plain``: all models have the same size, and nothing stands in the way but
    memory."""
    found = {}
    for number in range(draw(st.integers(1, 4))):
        names = draw(st.sets(st.sampled_from(MODELS)))
        models = {name: draw(replicas(plain)) for name in sorted(names)}
        taken = sum(each.memory_bytes for each in models.values() if each.has_memory)
        budget = taken + draw(st.integers(0, 3)) if plain else draw(st.sampled_from((0, 3, 5, 8)))
        found[f"a{number}"] = Place(
            f"a{number}",
            draw(st.sampled_from(("h1", "h2"))),
            models,
            max(budget, taken, 1) if plain or budget else 0,
            0 if plain else draw(st.integers(0, 1)),
            counts=plain or draw(st.integers(0, 5)) > 0,
            open=plain or draw(st.integers(0, 5)) > 0,
            moving=not plain and draw(st.integers(0, 5)) == 0,
        )
    return found


@st.composite
def wants(draw: st.DrawFn, plain: bool = False) -> dict[str, Wanted]:
    names = draw(st.lists(st.sampled_from(MODELS), unique=True, max_size=5))
    agents = st.just(frozenset[str]()) if plain else st.sampled_from((frozenset[str](), frozenset({"a0", "a2"})))
    return {name: Wanted(draw(st.integers(0, 3)), draw(agents)) for name in names}


def count(fleet: Mapping[str, Place], wanted: Mapping[str, Wanted], model: str, *states: State) -> int:
    return sum(
        place.counts and wanted[model].allows(place.agent_id) and model in place.models
        and place.models[model].state in states
        for place in fleet.values()
    )  # fmt: skip


def check(step: Step, fleet: Fleet, wanted: Mapping[str, Wanted], resting: Sequence[Pair]) -> None:
    """What every step keeps, at the fleet as it is before any of them is done."""
    place = fleet[step.agent_id]
    replica = place.models[step.model]
    assert place.counts
    assert place.open
    assert not place.moving
    if step.action == "load":
        others = [each for name, each in place.models.items() if name != step.model and each.has_memory]
        taken = place.other_bytes + sum(each.memory_bytes for each in others)
        assert replica.state in ("stopped", "stopping", "crashed")
        assert wanted[step.model].allows(step.agent_id)
        assert (step.agent_id, step.model) not in resting
        assert not place.budget_bytes or taken + replica.memory_bytes <= place.budget_bytes
        assert not any(each.group and replica.group not in ("", each.group) for each in others)
        loaded = count(fleet, wanted, step.model, "running", "starting")
        assert loaded < wanted[step.model].replicas or step.reason.startswith("so that ")
    else:
        assert (replica.state, replica.busy, replica.pinned) == ("running", False, False)
        if step.model in wanted and wanted[step.model].allows(step.agent_id):
            ready = count(fleet, wanted, step.model, "running")
            fewest = min(
                (
                    count(fleet, wanted, model, "running", "starting")
                    for model, each in wanted.items()
                    if count(fleet, wanted, model, "running", "starting") < each.replicas
                ),
                default=ready,
            )
            assert ready > wanted[step.model].replicas or ready >= fewest + 2


def done(fleet: Fleet, steps: Sequence[Step]) -> Fleet:
    after = dict(fleet)
    for step in steps:
        place = after[step.agent_id]
        state: State = "running" if step.action == "load" else "stopped"
        replica = msgspec.structs.replace(place.models[step.model], state=state)
        after[step.agent_id] = msgspec.structs.replace(place, models={**place.models, step.model: replica})
    return after


def settled(fleet: Fleet, wanted: Mapping[str, Wanted], resting: Sequence[Pair]) -> tuple[Fleet, Plan, list[Step]]:
    """The fleet once nothing is to be done any more, and all that was done."""
    made: list[Step] = []
    for _ in range(60):
        planned = plan(wanted, list(fleet.values()), resting=resting)
        steps = list(planned.steps)
        for step in steps:
            check(step, fleet, wanted, resting)
        assert len({step.agent_id for step in steps}) == len(steps)
        if not steps:
            surplus = next(((a, m) for a, m in planned.surplus if not fleet[a].moving), None)
            if surplus is None:
                return fleet, planned, made
            steps = [Step("unload", *surplus, "surplus")]
            check(steps[0], fleet, wanted, resting)
        made += steps
        fleet = done(fleet, steps)
    raise AssertionError(f"it does not come to rest: {made}")


@settings(max_examples=examples(150))
@given(fleets(), wants(), st.sets(st.tuples(st.sampled_from(("a0", "a1", "a2", "a3")), st.sampled_from(MODELS))))
def test_steps_are_allowed_and_the_fleet_comes_to_rest(
    fleet: Fleet, wanted: dict[str, Wanted], resting: set[Pair]
) -> None:
    after, planned, made = settled(fleet, wanted, sorted(resting))
    loads = Counter((step.agent_id, step.model) for step in made if step.action == "load")
    assert max(loads.values(), default=0) <= 1, f"loaded twice: {made}"
    for model, each in wanted.items():
        loaded = count(after, wanted, model, "running", "starting")
        able = sum(place.counts and each.allows(place.agent_id) and model in place.models for place in after.values())
        # Where agents move or stop something already, it goes on when they have told.
        waits = any(
            place.moving or any(other.state == "stopping" for other in place.models.values())
            for place in after.values()
        )
        assert loaded >= min(each.replicas, able) or model in planned.unmet or waits
        for agent_id in (agent_id for agent_id, place in after.items() if has_room(place, model, wanted, resting)):
            assert loaded >= each.replicas or waits, f"{agent_id} has room for {model}"


def has_room(place: Place, model: str, wanted: Mapping[str, Wanted], resting: set[Pair]) -> bool:
    """Whether it could load the model without a look at anybody else, for the models that nobody wants give way."""
    own = place.models.get(model)
    if own is None or own.has_memory or (place.agent_id, model) in resting:
        return False
    if not (place.counts and place.open and wanted[model].allows(place.agent_id)):
        return False
    stays = [
        each
        for name, each in place.models.items()
        if each.has_memory and (name in wanted or each.busy or each.pinned or each.state != "running")
    ]
    if any(each.group and own.group not in ("", each.group) for each in stays):
        return False
    taken = place.other_bytes + sum(each.memory_bytes for each in stays)
    return not place.budget_bytes or taken + own.memory_bytes <= place.budget_bytes


@settings(max_examples=examples(150))
@given(fleets(plain=True), wants(plain=True))
def test_of_models_of_one_size_as_many_replicas_are_loaded_as_can_be(fleet: Fleet, wanted: dict[str, Wanted]) -> None:
    after, planned, made = settled(fleet, wanted, ())
    loaded = {model: min(each.replicas, count(after, wanted, model, "running")) for model, each in wanted.items()}
    assert sum(loaded.values()) == most(fleet, wanted)
    for model, each in wanted.items():
        assert (model in planned.unmet) == (loaded[model] < each.replicas)
    # Nothing is loaded in vain: a load is for a missing replica, or makes room for one.
    missing = sum(
        max(0, loaded[model] - count(fleet, wanted, model, "running")) for model in wanted
    )  # fmt: skip
    assert sum(step.action == "load" for step in made) <= missing * (MAX_CHAIN + 1)
    if not any(step.reason.startswith("so that ") for step in made):
        assert sum(step.action == "load" for step in made) == missing


def most(fleet: Fleet, wanted: Mapping[str, Wanted]) -> int:
    """Replicas that fit, by augmenting paths from models to agents' places."""
    room = {agent_id: place.budget_bytes for agent_id, place in fleet.items()}
    at: dict[str, list[str]] = {agent_id: [] for agent_id in fleet}

    def find(model: str, seen: set[str]) -> bool:
        for agent_id, place in fleet.items():
            if agent_id in seen or model not in place.models or model in at[agent_id]:
                continue
            seen.add(agent_id)
            if len(at[agent_id]) < room[agent_id]:
                at[agent_id].append(model)
                return True
            for other in list(at[agent_id]):
                if find(other, seen):
                    at[agent_id].remove(other)
                    at[agent_id].append(model)
                    return True
        return False

    return sum(find(model, set()) for model, each in wanted.items() for _ in range(each.replicas))


@settings(max_examples=examples(100))
@given(fleets(), wants())
def test_nothing_is_done_where_all_that_is_wanted_is_loaded(fleet: Fleet, wanted: dict[str, Wanted]) -> None:
    assume(all(count(fleet, wanted, model, "running") >= each.replicas for model, each in wanted.items()))
    planned = plan(wanted, list(fleet.values()))
    assert planned.steps == ()
    assert not planned.unmet


@settings(max_examples=examples(50))
@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_replicas_are_spread_over_hosts(agents: int, replicas: int, data: st.DataObject) -> None:
    hosts = [data.draw(st.sampled_from(("h1", "h2", "h3"))) for _ in range(agents)]
    fleet = {f"a{at}": Place(f"a{at}", host, {"a": Replica()}) for at, host in enumerate(hosts)}
    after, _, _ = settled(fleet, {"a": Wanted(replicas)}, ())
    used = Counter(place.host for place in after.values() if place.models["a"].state == "running")
    wanted = min(replicas, agents)
    assert used.total() == wanted
    for host in used:
        for other, number in Counter(hosts).items():
            assert used[host] <= used[other] + 1 or used[other] == number


def place(agent_id: str, budget: int = 0, host: str = "", **models: tuple[State, int]) -> Place:
    found = {name: Replica(state, size) for name, (state, size) in models.items()}
    return Place(agent_id, host or agent_id, found, budget)


def steps(planned: Plan) -> list[tuple[str, str, str]]:
    return [(step.action, step.agent_id, step.model) for step in planned.steps]


def test_a_lost_replica_is_loaded_where_there_is_room() -> None:
    places = [place("a1", 4, a=("running", 2), b=("running", 2)), place("a2", 4, a=("stopped", 2), b=("running", 2))]
    wanted = {"a": Wanted(1), "b": Wanted(1)}
    assert steps(plan(wanted, places)) == []
    assert steps(plan(wanted, places[1:])) == [("load", "a2", "a")]
    assert steps(plan(wanted, places[1:], absent={"a": 1})) == [], "it may be back"
    assert plan(wanted, places[1:], resting=[("a2", "a")]).unmet["a"] == "a2 is tried again later"


def test_what_nobody_wants_gives_way_and_what_is_wanted_moves_first() -> None:
    places = [place("a1", 4, a=("stopped", 3), c=("running", 2)), place("a2", 2, b=("stopped", 2))]
    assert steps(plan({"a": Wanted()}, places)) == [("unload", "a1", "c")]
    places = [place("a1", 4, a=("stopped", 3), b=("running", 2)), place("a2", 2, b=("stopped", 2))]
    wanted = {"a": Wanted(), "b": Wanted()}
    assert steps(plan(wanted, places)) == [("load", "a2", "b")]
    places[1] = place("a2", 2, b=("starting", 2))
    assert steps(plan(wanted, places)) == [], "it needs only time"
    places[1] = place("a2", 2, b=("running", 2))
    assert steps(plan(wanted, places)) == [("unload", "a1", "b")]
    places[0] = place("a1", 4, a=("stopped", 3), b=("stopped", 2))
    assert steps(plan(wanted, places)) == [("load", "a1", "a")]


def test_first_replicas_go_before_second_ones_and_models_in_their_order() -> None:
    places = [place("a1", 2, a=("stopped", 1), b=("stopped", 1), c=("stopped", 1)), place("a2", 1, a=("stopped", 1))]
    loaded, rest, _ = settled(
        {each.agent_id: each for each in places}, {"a": Wanted(2), "b": Wanted(), "c": Wanted()}, ()
    )
    assert {name for name, each in loaded["a1"].models.items() if each.state == "running"} == {"b", "c"}
    assert rest.unmet.keys() == {"a"}


@pytest.mark.parametrize(
    ("places", "why"),
    [
        ([place("a1")], "no agent has this model"),
        ([msgspec.structs.replace(place("a1", a=("stopped", 1)), counts=False)], "a1 is out of service"),
        ([msgspec.structs.replace(place("a1", a=("stopped", 1)), open=False)], "a1 takes no commands for models"),
        ([place("a1", 10**9, a=("stopped", 2 * 10**9))], "a1 has 1 GB for models, and it needs 2 GB"),
        (
            [place("a1", 3 * 10**9, a=("stopped", 2 * 10**9), b=("starting", 2 * 10**9))],
            "a1 has 1 GB free, it needs 2 GB, and what is loaded is wanted or in use",
        ),
        ([place("a1", a=("running", 1))], "all 1 agents that have it have loaded it, or load it"),
    ],
)
def test_what_cannot_be_says_why(places: list[Place], why: str) -> None:
    replicas = 2 if places[0].models.get("a", Replica()).state == "running" else 1
    assert plan({"a": Wanted(replicas)}, places).unmet == {"a": why}


def test_a_model_without_a_replica_takes_the_place_of_a_second_one() -> None:
    places = [place("a1", 1, a=("running", 1)), place("a2", 1, a=("running", 1), c=("stopped", 1))]
    wanted = {"a": Wanted(2), "c": Wanted(1)}
    assert steps(plan(wanted, places)) == [("unload", "a2", "a")]
    places[1] = place("a2", 1, a=("stopped", 1), c=("stopped", 1))
    assert steps(plan(wanted, places)) == [("load", "a2", "c")]
    places[1] = place("a2", 1, a=("stopped", 1), c=("running", 1))
    after = plan(wanted, places)
    assert steps(after) == []
    assert after.unmet.keys() == {"a"}


def test_agents_that_may_not_have_a_model_do_not_count_and_give_it_up() -> None:
    places = [place("a1", a=("running", 1)), place("a2", a=("stopped", 1))]
    wanted = {"a": Wanted(1, frozenset({"a2"}))}
    planned = plan(wanted, places)
    assert steps(planned) == [("load", "a2", "a")]
    assert planned.surplus == (("a1", "a"),)
    unknown = plan({"a": Wanted(1, frozenset({"a7"}))}, places)
    assert unknown.unmet == {"a": "none of its agents is there: a7"}
