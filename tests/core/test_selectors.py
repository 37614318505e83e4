"""What each selector of the package promises beside the laws of the kit."""

import random
import re
from collections import Counter
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import yaml
from anywire_selectors.by_policy import ByPolicy
from anywire_selectors.fuzzy import Fuzzy, FuzzyConfig
from anywire_selectors.fuzzy_rules import FuzzyRules, Input, membership, read_rules
from anywire_selectors.hash_ring import HashRing
from anywire_selectors.latency import Latency, LatencyConfig
from anywire_selectors.power_of_two import PowerOfTwo, PowerOfTwoConfig
from anywire_selectors.prefix_affinity import PrefixAffinity, PrefixAffinityConfig
from anywire_selectors.resource_aware import ResourceAware, ResourceAwareConfig
from anywire_selectors.session_affinity import SessionAffinity, SessionAffinityConfig
from anywire_selectors.success import Success, SuccessConfig
from anywire_selectors.warm_first import WarmFirst, WarmFirstConfig
from anywire_selectors.weighted import Weighted
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conformance import package_selectors
from tests.long_form import examples
from typer.testing import CliRunner

from anywire.caller import Caller
from anywire.errors import ConfigError, PluginError
from anywire.messages import AgentInfo, AgentStatus
from anywire.offers import Offer
from anywire.plugins import Plugins
from anywire.scheduler import Outcome, QueuedTask, QueueKey
from anywire.selector import AgentView, CandidateList, Choice, Selector


def agent(number: int, *, slots: int = 4, busy: int = 0, incarnation: int = 1, **more: Any) -> AgentView:
    engine, device, gauges = more.pop("engine", ""), more.pop("device", ""), more.pop("gauges", {})
    info = AgentInfo(f"a{number}", incarnation, engine=engine, device=device)
    status = AgentStatus(info.agent_id, incarnation, "ready", slots=slots, resources=gauges)
    return AgentView(info, status, number, in_flight=busy, **more)


def task(name: str = "t", **more: Any) -> QueuedTask:
    return QueuedTask(name, (QueueKey("m", "chat"),), **more)


def ended(name: str, number: int, ms: float = 10.0, *, failed: bool = False) -> Outcome:
    return Outcome(
        name, f"a{number}", "agent_lost" if failed else "", 0.0 if failed else ms, ms, 1, agent_failed=failed
    )


def chosen(selector: Selector, agents: list[AgentView], what: QueuedTask | None = None) -> int:
    """The number of the agent that is chosen."""
    made = selector.select(what or task(), CandidateList(agents))
    view = made.agent if isinstance(made, Choice) else made
    return view.ordinal if view is not None else -1


def make(name: str, options: dict[str, Any]) -> Any:
    plugins = Plugins()
    plugins.manager.register(package_selectors)
    return plugins.create("selectors", name, options)


# power_of_two


def test_two_choices_keep_the_greatest_load_far_below_that_of_one() -> None:
    """Of n tasks on n agents the fullest has about log log n, where chance alone gives log n / log log n."""
    greatest = []
    for choices in (1, 2):
        selector = PowerOfTwo(PowerOfTwoConfig(choices=choices))
        agents = [agent(number, slots=1000) for number in range(300)]
        for _ in agents:
            agents[chosen(selector, agents)].in_flight += 1
        greatest.append(max(view.in_flight for view in agents))
    assert greatest[1] <= 3 < greatest[0]


# latency


def test_the_quickest_is_chosen_and_a_slow_answer_is_believed_at_once() -> None:
    selector = Latency(LatencyConfig())
    agents = [agent(0), agent(1)]
    for _ in range(5):
        selector.observed(ended("t", 0, 100.0))
        selector.observed(ended("t", 1, 200.0))
    assert chosen(selector, agents) == 0
    selector.observed(ended("t", 0, 5000.0))
    assert chosen(selector, agents) == 1


def test_a_failure_counts_as_a_slow_answer_and_a_cancel_as_nothing() -> None:
    selector = Latency(LatencyConfig(failure_ms=3000))
    selector.observed(ended("t", 0, 100.0))
    selector.observed(Outcome("t", "a0", "cancelled", 0.0, 9000.0, 0))
    assert selector.expected_ms("a0") == 100.0
    selector.observed(ended("t", 0, 1.0, failed=True))
    assert selector.expected_ms("a0") == 3000.0


def test_a_slow_agent_is_tried_again_when_others_have_had_enough_attempts() -> None:
    selector = Latency(LatencyConfig(half_life=5))
    agents = [agent(0), agent(1)]
    selector.observed(ended("t", 0, 2000.0))
    turns = 0
    while chosen(selector, agents) != 0 or not turns:
        selector.observed(ended("t", 1, 100.0))
        turns += 1
    # Five halvings of 2000 ms, each after 5 attempts for each of the 2 agents.
    assert 40 <= turns <= 50


def test_a_new_agent_gets_one_task_to_be_measured() -> None:
    selector = Latency(LatencyConfig())
    agents = [agent(0), agent(1)]
    selector.observed(ended("t", 0, 100.0))
    assert chosen(selector, agents) == 1
    agents[1].in_flight = 1
    assert chosen(selector, agents) == 0


# success


def test_one_that_fails_is_passed_over_and_forgiven() -> None:
    selector = Success(SuccessConfig(half_life=5))
    agents = [agent(0), agent(1, busy=3)]
    selector.observed(ended("t", 0, failed=True))
    assert chosen(selector, agents) == 1
    for _ in range(30):
        selector.observed(ended("t", 1))
    assert chosen(selector, agents) == 0


def test_rates_that_are_as_good_leave_it_to_the_load() -> None:
    selector = Success(SuccessConfig(smoothing=0.01))
    selector.observed(ended("t", 0, failed=True))
    assert chosen(selector, [agent(0), agent(1, busy=1)]) == 0


# session_affinity


def test_equal_names_of_two_tenants_are_two_sessions() -> None:
    selector = SessionAffinity(SessionAffinityConfig())
    agents = [agent(0), agent(1)]
    first, second = (task(session="s", caller=Caller(tenant, tenant)) for tenant in ("one", "two"))
    assert chosen(selector, agents, first) == 0
    agents[0].in_flight = 2
    assert chosen(selector, agents, second) == 1
    assert chosen(selector, agents, first) == 0


def test_a_session_moves_when_its_agent_is_full_and_stays_there() -> None:
    selector = SessionAffinity(SessionAffinityConfig())
    agents = [agent(0), agent(1)]
    assert chosen(selector, agents, task(session="s")) == 0
    assert chosen(selector, agents[1:], task(session="s")) == 1
    assert chosen(selector, agents, task(session="s")) == 1


# warm_first


def test_one_that_has_the_model_loaded_goes_first_until_it_is_loaded_too_much() -> None:
    cold = Offer("m", state="stopped", on_demand=True)
    agents = [agent(0, offers={"m": cold}), agent(1, busy=2, offers={"m": Offer("m")})]
    assert chosen(WarmFirst(WarmFirstConfig()), agents) == 1
    assert chosen(WarmFirst(WarmFirstConfig(max_load=0.5)), agents) == 0
    assert chosen(WarmFirst(WarmFirstConfig()), agents[:1]) == 0


def test_one_that_loads_the_model_goes_before_those_that_would_have_to_and_after_those_that_have_it() -> None:
    cold, loading = (Offer("m", state=state, on_demand=True) for state in ("stopped", "starting"))
    agents = [agent(0, offers={"m": cold}), agent(1, busy=2, offers={"m": loading})]
    warm = agent(2, busy=3, offers={"m": Offer("m")})
    assert chosen(WarmFirst(WarmFirstConfig()), agents) == 1
    assert chosen(WarmFirst(WarmFirstConfig(max_load=0.5)), agents) == 0
    assert chosen(WarmFirst(WarmFirstConfig()), [*agents, warm]) == 2
    many = [agent(number, offers={"m": cold}) for number in range(3, 80)]
    selector = WarmFirst(WarmFirstConfig())
    assert chosen(selector, agents[1:]) == 1
    assert chosen(selector, [agents[1], *many]) == 1, "it is found among more than are looked at"


# resource_aware

GB = 1e9


@pytest.mark.parametrize(
    ("gpu", "cpu", "hints", "expected"),
    [
        ({"vram_free_bytes": 0.4 * GB, "vram_total_bytes": 0.8 * GB}, 50, {}, "cpu"),
        ({"vram_free_bytes": 0.6 * GB, "vram_used_percent": 91}, 50, {}, "cpu"),
        ({"vram_free_bytes": 0.7 * GB, "vram_total_bytes": 10 * GB}, 90, {}, "cpu"),
        ({"vram_free_bytes": 8 * GB, "vram_used_percent": 20, "gpu_percent": 95}, 50, {}, "cpu"),
        ({"vram_free_bytes": 8 * GB, "vram_used_percent": 69}, 81, {}, "gpu"),
        # Between both marks, and a busy processor: the load decides.
        ({"vram_free_bytes": 8 * GB, "vram_used_percent": 75}, 81, {}, "cpu"),
        ({"vram_free_bytes": 8 * GB, "vram_used_percent": 20}, 50, {}, "cpu"),
        ({"vram_free_bytes": 8 * GB, "vram_used_percent": 75}, 50, {"task_type": "tensor"}, "gpu"),
        ({"vram_free_bytes": 0.1 * GB}, 50, {"task_type": "tensor"}, "cpu"),
        ({"vram_free_bytes": 8 * GB}, 50, {"device": "cuda"}, "gpu"),
        ({"vram_free_bytes": 8 * GB}, 81, {"device": "cpu"}, "gpu"),
    ],
)
def test_a_card_or_a_processor(gpu: dict[str, float], cpu: float, hints: dict[str, Any], expected: str) -> None:
    agents = [agent(0, busy=1, gauges=gpu), agent(1, gauges={"cpu_percent": cpu})]
    selector = ResourceAware(ResourceAwareConfig())
    assert ("gpu", "cpu")[chosen(selector, agents, task(hints=hints))] == expected


def test_a_profile_sets_what_the_configuration_does_not() -> None:
    assert ResourceAwareConfig(profile="prod").cpu_percent == 95
    assert ResourceAwareConfig(profile="prod", cpu_percent=60).cpu_percent == 60
    with pytest.raises(ConfigError, match="profile"):
        make("resource_aware", {"profile": "nobody's"})


# prefix_affinity


def prompt(*blocks: object) -> tuple[int, ...]:
    """Chained hashes, as `anywire.demand.prefix_hashes` makes them."""
    return tuple(hash(blocks[: number + 1]) % 2**64 for number in range(len(blocks)))


def test_a_slot_of_llama_holds_the_prompt_it_had_last() -> None:
    selector = PrefixAffinity(PrefixAffinityConfig())
    agents = [agent(0, slots=2, engine="llama"), agent(1, slots=2, engine="llama")]
    home = chosen(selector, agents, task("t1", prefix=prompt(1, 2, 3)))
    agents[home].in_flight = 1
    # Its slot is in use: the other one would read the prompt anew.
    away = chosen(selector, agents, task("t2", prefix=prompt(1, 2, 3)))
    assert away != home
    agents[away].in_flight = 1
    for name, number in (("t1", home), ("t2", away)):
        selector.observed(ended(name, number))
        agents[number].in_flight = 0
    # Two prompts more in the two slots of one agent, and its slots hold these.
    for name, first in (("t3", 30), ("t4", 40)):
        chosen(selector, [agents[home]], task(name, prefix=prompt(first, 2, 3)))
        selector.observed(ended(name, home))
    assert chosen(selector, agents, task("t5", prefix=prompt(1, 2, 3))) == away


def test_beginnings_that_are_new_do_not_put_out_others_while_a_cache_has_room() -> None:
    selector = PrefixAffinity(PrefixAffinityConfig())
    agents = [agent(number, slots=1, engine="llama") for number in range(4)]
    homes = dict[str, int]()
    for turn in range(3):
        for name in ("a", "b", "c", "d"):
            to = chosen(selector, agents, task(f"{name}{turn}", prefix=prompt(name, 2, 3)))
            selector.observed(ended(f"{name}{turn}", to))
            assert homes.setdefault(name, to) == to
    assert sorted(homes.values()) == [0, 1, 2, 3]
    # Whoever has restarted has room, and the others have none.
    for number in range(4):
        agents[number] = agent(number, slots=1, engine="llama", incarnation=2)
        assert chosen(selector, agents, task(f"new{number}", prefix=prompt(f"new{number}", 2, 3))) == number
        selector.observed(ended(f"new{number}", number))


def test_tasks_of_a_shared_cache_stay_together_within_the_bound() -> None:
    selector = PrefixAffinity(PrefixAffinityConfig(load_factor=2.0))
    agents = [agent(number, slots=8) for number in range(3)]
    counts = Counter[int]()
    for number in range(12):
        to = chosen(selector, agents, task(f"t{number}", prefix=prompt(1, 2)))
        agents[to].in_flight += 1
        counts[to] += 1
    # Four each while the others have none, and not before somebody has that many a second one.
    assert sorted(counts.values()) == [4, 4, 4]


def test_the_longest_beginning_wins_and_a_restart_empties_the_cache() -> None:
    selector = PrefixAffinity(PrefixAffinityConfig())
    agents = [agent(0), agent(1)]
    chosen(selector, agents[:1], task("t1", prefix=prompt(1, 2)))
    chosen(selector, agents[1:], task("t2", prefix=prompt(1, 2, 3, 4)))
    assert chosen(selector, agents, task("t3", prefix=prompt(1, 2, 3, 9))) == 1
    restarted = [agents[0], agent(1, incarnation=2)]
    assert chosen(selector, restarted, task("t4", prefix=prompt(1, 2, 3, 4))) == 0


def test_what_failed_is_not_in_the_cache() -> None:
    selector = PrefixAffinity(PrefixAffinityConfig())
    agents = [agent(0), agent(1)]
    chosen(selector, agents[:1], task("t1", prefix=prompt(1)))
    chosen(selector, agents[1:], task("t2", prefix=prompt(1)))
    selector.observed(ended("t2", 1, failed=True))
    assert chosen(selector, agents, task("t3", prefix=prompt(1))) == 0


def with_a_slot_in_use(block_ms: float, task_ms: float) -> tuple[PrefixAffinity, int, list[AgentView]]:
    """A selector that has seen what a block and a task take, the agent where a prompt of four blocks is in use, and the
    others."""
    selector = PrefixAffinity(PrefixAffinityConfig(cache="slots", skips=2))
    agents = [agent(0, slots=1), agent(1, slots=1)]
    home = chosen(selector, agents, task("t1", prefix=prompt(1, 2, 3, 4)))
    first = 4 * block_ms
    selector.observed(Outcome("t1", f"a{home}", "", first, first + task_ms, 1))
    for _ in range(100):
        assert chosen(selector, agents, task("t1", prefix=prompt(1, 2, 3, 4))) == home
        selector.observed(Outcome("t1", f"a{home}", "", 1.0, task_ms, 1))
    assert chosen(selector, agents, task("t1", prefix=prompt(1, 2, 3, 4))) == home
    agents[home].in_flight = 1
    return selector, home, [agents[1 - home]]


def test_a_task_is_held_for_the_slot_with_its_beginning_so_many_times() -> None:
    selector, home, others = with_a_slot_in_use(block_ms=1000, task_ms=1000)
    assert [chosen(selector, others, task("t2", prefix=prompt(1, 2, 3, 4))) for _ in range(3)] == [-1, -1, 1 - home]


def test_so_many_are_held_as_wait_a_shorter_time_than_they_would_read() -> None:
    """Four blocks take 4 s. Of tasks of 1 s the first waits for half a one, the next for one more …"""
    selector, _, others = with_a_slot_in_use(block_ms=1000, task_ms=1000)
    told = [chosen(selector, others, task(f"t{number}", prefix=prompt(1, 2, 3, 4))) for number in range(2, 7)]
    assert [each == -1 for each in told] == [True, True, True, True, False]
    # An attempt has ended, and those who still wait are offered again, in order: of the others nobody knows any more.
    selector.observed(ended("t6", others[0].ordinal, failed=True))
    assert chosen(selector, others, task("t3", prefix=prompt(1, 2, 3, 4))) == -1
    assert selector._lines.total() == 1


def test_nobody_waits_where_reading_is_quick_or_the_task_there_has_ended() -> None:
    selector, home, others = with_a_slot_in_use(block_ms=100, task_ms=1000)
    assert chosen(selector, others, task("t2", prefix=prompt(1, 2, 3, 4))) == 1 - home
    selector, home, others = with_a_slot_in_use(block_ms=1000, task_ms=1000)
    # Of an agent that is gone the attempts have ended.
    selector.observed(ended("t1", home, failed=True))
    assert chosen(selector, others, task("t3", prefix=prompt(1, 2, 3, 4))) == 1 - home


@given(data=st.data(), factor=st.sampled_from([1.1, 1.5, 3.0]), shared=st.booleans())
@settings(max_examples=examples(40))
def test_no_agent_is_loaded_beyond_the_bound(data: st.DataObject, factor: float, shared: bool) -> None:
    """After each choice: at most ``load_factor`` times the mean load, or ``idle_load``, rounded up to whole slots."""
    selector = PrefixAffinity(PrefixAffinityConfig(load_factor=factor, cache="shared" if shared else "slots"))
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    agents = [agent(number, slots=rng.randint(1, 9)) for number in range(rng.randint(1, 6))]
    running: list[tuple[str, AgentView]] = []
    for number in range(120):
        free = [view for view in agents if view.free_slots]
        if not free or (running and rng.random() < 0.4):
            name, view = running.pop(rng.randrange(len(running)))
            view.in_flight -= 1
            selector.observed(ended(name, view.ordinal))
            continue
        mean = Fraction(sum(view.in_flight for view in free), sum(view.status.slots for view in free))
        prefix = prompt(*(rng.randrange(2) for _ in range(rng.randint(1, 3))))
        to = chosen(selector, free, task(f"t{number}", prefix=prefix))
        if to == -1:
            continue
        view = agents[to]
        view.in_flight += 1
        running.append((f"t{number}", view))
        assert view.in_flight <= ceil(Fraction(factor) * max(mean, Fraction(1, 4)) * view.status.slots)


def test_most_keys_keep_their_place_on_the_ring_when_one_agent_goes() -> None:
    ring = HashRing()
    ring.add(f"a{number}" for number in range(10))
    before = {key: next(ring.walk(key)) for key in (number * 2**64 // 1000 for number in range(1000))}
    assert all(len(list(ring.walk(key))) == 10 for key in list(before)[:20])
    ring.keep(f"a{number}" for number in range(9))
    moved = [key for key, agent_id in before.items() if next(ring.walk(key)) != agent_id]
    assert {before[key] for key in moved} == {"a9"}
    ring.add(["a9"])
    assert all(next(ring.walk(key)) == agent_id for key, agent_id in before.items())


# weighted


def test_weights_saturation_and_tie_break() -> None:
    agents = [agent(0, busy=3), agent(1), agent(2)]
    home = {"session_affinity": {"weight": 5}, "least_loaded": 1}
    both: Weighted = make("weighted", {"scorers": home})
    assert chosen(both, agents[:1], task(session="s")) == 0
    assert chosen(both, agents, task(session="s")) == 0
    assert chosen(both, agents, task(session="new")) in (1, 2)
    careful: Weighted = make("weighted", {"scorers": home, "saturation": 0.75})
    assert chosen(careful, agents[:1], task(session="s")) == 0
    assert chosen(careful, agents, task(session="s")) == 1
    drawn: Weighted = make("weighted", {"scorers": {"least_loaded": 1}, "tie_break": "random"})
    assert {chosen(drawn, agents) for _ in range(50)} == {1, 2}


def test_its_scores_and_what_they_are_made_of_are_told() -> None:
    selector: Weighted = make("weighted", {"scorers": {"least_loaded": 3, "session_affinity": 1}})
    choice = selector.select(task(), CandidateList([agent(0, busy=1), agent(1)]))
    assert choice.scores == {"a0": 0.75 * 0.75, "a1": 0.75}
    assert choice.reason == "least_loaded 1.00, session_affinity 0.00"


def test_of_many_agents_those_that_hold_the_prompt_are_scored() -> None:
    selector: Weighted = make("weighted", {"scorers": {"prefix_affinity": 2, "least_loaded": 1}, "considered": 16})
    assert selector.wants_prefix
    agents = [agent(number) for number in range(500)]
    home = chosen(selector, [agents[300]], task("t1", prefix=prompt(1, 2)))
    assert [chosen(selector, agents, task(f"t{turn}", prefix=prompt(1, 2))) for turn in range(5)] == [home] * 5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scorers": {"round_robin": 1}}, r"selector\.scorers\.round_robin.*no method score"),
        ({"scorers": {"latency": {"smoothing": 7}}}, r"selector\.scorers\.latency\.smoothing"),
        ({"scorers": {"latency": 0}}, r"selector\.scorers\.latency\.weight"),
        ({"scorers": {}}, r"selector\.scorers"),
    ],
)
def test_scorers_that_are_none_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make("weighted", options)


# fuzzy


@given(
    points=st.lists(st.floats(-100, 100), min_size=3, max_size=4).map(sorted).filter(lambda each: each[0] < each[-1]),
    value=st.floats(-200, 200),
)
@settings(max_examples=examples(60))
def test_a_membership_is_within_0_and_1_and_whole_between_its_tops(points: list[float], value: float) -> None:
    level = membership(points, value)
    assert 0 <= level <= 1
    if points[1] <= value <= points[-2]:
        assert level == 1
    if (value <= points[0] < points[1]) or (value >= points[-1] > points[-2]):
        assert level == 0


@given(st.floats(0, 1), st.floats(0, 1e6), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=examples(60))
def test_the_built_in_rules_conclude_no_more_for_a_slower_or_fuller_agent(
    load: float, latency: float, urgency: float, complexity: float
) -> None:
    rules = FuzzyRules()

    def score(load: float, latency: float) -> float:
        values: dict[Input, float] = {"load": load, "latency": latency, "urgency": urgency, "complexity": complexity}
        return rules.conclude(rules.degrees(values))[0]

    assert 0 <= score(load, latency) <= 1
    assert score(0, latency) >= score(1, latency)
    assert score(load, 0) >= score(load, 1e6)


def test_rules_of_a_file_decide(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(
        "sets:\n  urgency: {low: [0, 0, 1], high: [0, 1, 1]}\n  load: {low: [0, 0, 1], high: [0, 1, 1]}\n"
        "rules:\n  - {if: {urgency: high, load: low}, then: 1}\n  - {if: {urgency: low, load: high}, then: 1}\n"
        "  - {if: {urgency: low, load: low}, then: 0}\n  - {if: {urgency: high, load: high}, then: 0}\n"
    )
    selector = Fuzzy(FuzzyConfig(file=str(file)))
    agents = [agent(0), agent(1, busy=3)]
    assert chosen(selector, agents, task(hints={"urgency": "critical"})) == 0
    assert chosen(selector, agents, task(hints={"urgency": 0.0})) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rules: [{if: {load: huge}, then: 1}]", "load has no set 'huge'; sets: low, medium, high"),
        ("sets: {load: {low: [1, 0, 2]}}", r"sets\.load\.low: the points must ascend"),
        ("sets: {lod: {}}", "sets"),
        ("rules: [{if: {load: low}, than: 1}]", "unknown key"),
        ("a: [", "is no YAML"),
        ("- 1", "must have the members"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_rules(file)


def test_the_command_draws_every_set_and_names_every_rule(tmp_path: Path) -> None:
    from anywire_selectors.fuzzy_command import app

    file = tmp_path / "rules.yaml"
    file.write_text("sets: {load: {idle: [0, 0, 1]}}\nrules: [{if: {load: idle}, then: 0.7, weight: 3}]\n")
    shown = CliRunner().invoke(app, [str(file)])
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[0] == "load (share of the slots in use, 0 to 1)"
    assert lines[1].startswith("  1.0 |aa")
    # It falls from the left to the right: the last row has its end.
    curve = [line[7:].find("a") for line in lines[1:10]]
    assert curve == sorted(curve)
    assert lines[-1] == "  if load is idle then 0.7 (weight 3)"


# by_policy


def test_the_policy_chooses_the_selector() -> None:
    selector: ByPolicy = make(
        "by_policy", {"policies": {"warm": {"name": "warm_first", "max_load": 0.5}, "default": "session_affinity"}}
    )
    assert selector.policies == ("warm", "default")
    assert not selector.wants_prefix
    agents = [
        agent(0, offers={"m": Offer("m", state="stopped", on_demand=True)}),
        agent(1, busy=1, offers={"m": Offer("m")}),
    ]
    assert chosen(selector, agents) == 0
    assert chosen(selector, agents, task(policy="warm")) == 1
    assert chosen(selector, agents[1:], task(policy="default", session="s")) == 1
    assert chosen(selector, agents, task(policy="default", session="s")) == 1


def test_each_selector_of_a_policy_learns_from_all_tasks_and_gets_the_prefix_it_wants() -> None:
    selector: ByPolicy = make("by_policy", {"policies": {"fast": "latency", "cached": "prefix_affinity"}})
    assert selector.wants_prefix
    for number, ms in ((0, 900.0), (1, 100.0)):
        selector.observed(ended("t", number, ms))
    assert chosen(selector, [agent(0), agent(1)], task(policy="fast")) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"policies": {"x": {"name": "latency", "smooth": 1}}}, r"unknown key 'selector\.policies\.x\.smooth'"),
        ({"default": "lest_loaded"}, "no selector named 'lest_loaded'"),
        ({"policies": {"x": 3}}, r"selector\.policies\.x"),
    ],
)
def test_policies_that_cannot_be_made_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises((ConfigError, PluginError), match=says):
        make("by_policy", options)


# What a choice says


TOLD = {
    "fuzzy": "if load is low then 0.9",
    "latency": "0 ms expected with 1 attempts on it",
    "power_of_two": "the least loaded of those drawn",
    "prefix_affinity": "the prompt has no beginning of a block",
    "resource_aware": "a processor with room",
    "session_affinity": "the conversation is new",
    "success": "100% of its attempts are expected to succeed",
    "warm_first": "no agent with room has the model loaded",
    "weighted": "prefix_affinity 0.00, least_loaded 1.00",
}


@pytest.mark.parametrize("name", sorted(set(package_selectors.NAMES) - {"by_policy", "random"}))
def test_a_choice_says_why_also_as_a_part_of_by_policy(name: str) -> None:
    agents = CandidateList([agent(0, busy=1), agent(1)])
    alone: Choice = make(name, {}).select(task(session="s"), agents)
    assert alone.reason == TOLD[name]
    if alone.scores:
        assert alone.scores[alone.agent.agent_id] == max(alone.scores.values())
    parts: ByPolicy = make("by_policy", {"default": name, "policies": {"mine": name}})
    for policy, said in (("", f"default: {name}"), ("mine", f"policy mine: {name}")):
        choice = parts.select(task(session="new" + policy, policy=policy), agents)
        assert isinstance(choice, Choice)
        assert (choice.reason, choice.scores) == (f"{said}, {alone.reason}", alone.scores)


def test_by_policy_names_the_selector_that_says_nothing() -> None:
    choice = make("by_policy", {}).select(task(), CandidateList([agent(0)]))
    assert choice.reason == "default: least_loaded"


# README

README = Path(package_selectors.PROJECT).with_name("README.md")
SECTIONS = re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", README.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_readme_has_a_section_for_each_selector() -> None:
    assert sorted(name for name, _ in SECTIONS) == sorted(package_selectors.NAMES)


@pytest.mark.parametrize(("name", "text"), SECTIONS, ids=[name for name, _ in SECTIONS])
def test_what_the_readme_says_of_a_selector_holds(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    examples = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]
    for rules in examples[:-1]:
        (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    section = examples[-1]["selector"]
    selector = make(section.pop("name"), section)
    assert selector.name == name
    agents = [agent(number) for number in range(3)]
    assert all(chosen(selector, agents, task(f"t{number}")) in range(3) for number in range(5))
    fields = type(selector).Config.model_fields.keys() - {"seed"}
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", text, re.MULTILINE)
    assert {setting for setting, _ in rows} == set(fields)
    for setting, said in rows:
        default = type(selector).Config.model_fields[setting].get_default(call_default_factory=True)
        if isinstance(default, int | float):
            assert float(said.rpartition(", ")[2]) == default, setting
