import re
import tomllib
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
import yaml
from anywire_schedulers.attained_service import AttainedService
from anywire_schedulers.edf import Edf
from anywire_schedulers.fair import Fair, FairConfig
from anywire_schedulers.priority import Priority
from anywire_schedulers.wspt import Wspt

from anywire.builtin.fifo import Fifo
from anywire.caller import Caller
from anywire.errors import ConfigError
from anywire.plugins import Plugins
from anywire.scheduler import Outcome, QueuedTask, QueueKey, Ready, Scheduler, SchedulerConfig
from anywire.scheduler_tools.arrival_queue import ArrivalQueue
from anywire.testing.strategy_kit import SchedulerConformance

ROOT = Path(__file__).parents[2]
SECOND = 10**9


def task(name: str, priority: int = 0, received: float = 0.0, *models: str, chars: int = 0) -> QueuedTask:
    keys = tuple(QueueKey(model, "chat") for model in models or ("m",))
    return QueuedTask(name, keys, priority, int(received * SECOND), prompt_chars=chars)


def order(scheduler: Scheduler, now: float = 0.0) -> list[str]:
    """All that wait, in order, if every agent is free at ``now`` seconds."""
    out = []
    while (taken := scheduler.take(lambda keys: True, int(now * SECOND))) is not None:
        out.append(taken.task_id)
    return out


class TestFifo(SchedulerConformance):
    scheduler = "fifo"
    longest_wait = 0.0

    def rank(self, task: QueuedTask) -> int:
        return task.received_ns

    def test_order_is_that_of_arrival_over_all_models(self) -> None:
        fifo = self.make()
        for number in range(30):
            fifo.put(task(f"t{number}", 0, number, f"m{number % 3}"))
        first, second = (fifo.take(lambda keys: True, 0) for _ in range(2))
        fifo.put_back(second)
        fifo.put_back(first)
        assert order(fifo) == [f"t{number}" for number in range(30)]


class TestShortestFirst(SchedulerConformance):
    """The one that the experiments bring along as a file."""

    scheduler = "shortest_first"
    plugins = (str(ROOT / "benchmarks/experiments/plugins/shortest_first.py"),)

    def test_the_shortest_goes_first_and_of_equals_the_one_that_came_first(self) -> None:
        scheduler = self.make()
        for number, chars in enumerate([30, 10, 20, 10]):
            scheduler.put(task(f"t{number}", 0, number, f"m{number % 2}", chars=chars))
        assert order(scheduler) == ["t1", "t3", "t2", "t0"]


class TestPriority(SchedulerConformance):
    scheduler = "priority"
    longest_wait = 60.0

    def rank(self, task: QueuedTask) -> tuple[int, int]:
        return -min(max(task.priority, -1), 1), task.received_ns

    def test_higher_bands_go_first_whatever_their_model_and_equals_in_the_order_they_came(self) -> None:
        scheduler = self.make()
        for number, priority in enumerate([0, -1, 1, 0, 1, -1]):
            scheduler.put(task(f"t{number}", priority, number / 1000, f"m{number % 2}"))
        assert order(scheduler) == ["t2", "t4", "t0", "t3", "t1", "t5"]

    @pytest.mark.parametrize(
        ("levels", "bands"), [(1, [0, 0, 0, 0, 0]), (2, [0, 0, 1, 1, 1]), (3, [0, 0, 1, 2, 2]), (5, [0, 1, 2, 3, 4])]
    )
    def test_each_priority_is_mapped_to_a_band_with_0_in_the_middle(self, levels: int, bands: list[int]) -> None:
        scheduler = self.make(priority_levels=levels)
        assert [scheduler.band(task("t", priority)) for priority in (-1000, -1, 0, 1, 1000)] == bands

    def test_a_task_rises_by_a_band_after_each_time_of_ageing(self) -> None:
        scheduler = self.make(aging=10)
        scheduler.put(task("low", -1, 0))
        scheduler.put(task("normal", 0, 9.5))
        scheduler.put(task("high", 1, 9.5))
        taken = [scheduler.take(lambda keys: True, int(9.9 * SECOND)).task_id]
        # Now as high as the other one, and older.
        taken += [scheduler.take(lambda keys: True, 10 * SECOND).task_id]
        assert [*taken, *order(scheduler, 10)] == ["high", "low", "normal"]

    @pytest.mark.parametrize("aging", [1.0, 0.0])
    def test_a_low_task_gets_its_turn_under_a_steady_supply_of_high_ones(self, aging: float) -> None:
        scheduler = self.make(aging=aging)
        scheduler.put(task("low", -1000, 0))
        taken = []
        for number in range(60):
            scheduler.put(task(f"t{number}", 1000, 0.1 * number))
            taken.append(scheduler.take(lambda keys: True, int(0.1 * number * SECOND)).task_id)
        if aging:
            # Two bands above it: after 2 s at the latest.
            assert taken.index("low") in range(19, 22)
        else:
            assert "low" not in taken

    def test_a_newer_task_of_the_lowest_band_gives_its_place_and_none_of_an_equal_one(self) -> None:
        scheduler = self.make(aging=10)
        for name, priority, received in (("a", -1, 0), ("b", 0, 1), ("c", -1, 2), ("d", 0, 3)):
            scheduler.put(task(name, priority, received, f"m{name}"))
        assert scheduler.displace(task("new", -1, 4)) is None
        displaced = []
        while (named := scheduler.displace(task("new", 1, 4))) is not None:
            displaced.append(named)
            scheduler.remove(named)
        assert displaced == ["c", "a", "d", "b"]

    def test_a_task_that_has_risen_is_not_displaced_by_what_it_goes_before(self) -> None:
        scheduler = self.make(aging=10)
        scheduler.put(task("old", -1, 0))
        assert scheduler.take(lambda keys: False, 20 * SECOND) is None
        assert scheduler.displace(task("new", 1, 20)) is None

    @pytest.mark.parametrize("options", [{"priority_levels": 0}, {"aging": -1}, {"aging": float("inf")}])
    def test_settings_out_of_bounds_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=next(iter(options))):
            Plugins().create("schedulers", "priority", options)


class _Own(SchedulerConformance):
    """Not collected: one of the package's schedulers, whether or not its entry point is installed."""

    __test__ = False
    made: type[Scheduler]

    def make(self, **options: Any) -> Any:
        return self.made(self.made.Config(**(self.options | options)))


def test_each_scheduler_of_the_package_has_its_entry_point() -> None:
    text = (ROOT / "plugins/schedulers/pyproject.toml").read_text()
    points = tomllib.loads(text)["project"]["entry-points"]["anywire.schedulers"]
    assert points == {each.name: f"{each.__module__}:{each.__qualname__}" for each in OWN}


OWN: list[type[Scheduler]] = [AttainedService, Edf, Fair, Priority, Wspt]
README = (ROOT / "plugins/schedulers/README.md").read_text()


@pytest.mark.parametrize("made", OWN, ids=lambda made: made.name)
def test_the_settings_of_the_readme_are_the_settings_and_its_example_runs(made: type[Scheduler]) -> None:
    section = README.split(f"\n## {made.name}\n")[1].split("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| (?:.*, )?([^ |]+) \|", section, re.MULTILINE))
    fields = {name: field for name, field in made.Config.model_fields.items() if name != "max_queue_size"}
    assert told.keys() == fields.keys()
    for name, text in told.items():
        default = fields[name].get_default(call_default_factory=True)
        assert text == (
            default if isinstance(default, str) else f"{default:g}" if default else "0" if default == 0 else "none"
        )
    (block,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    options = yaml.safe_load(block)["scheduler"]
    assert options.pop("name") == made.name
    scheduler = made(made.Config(**options))
    for number in range(20):
        scheduler.put(of(f"tenant{number % 3}", f"t{number}", number))
    assert sorted(order(scheduler, 20)) == sorted(f"t{number}" for number in range(20))


class TestPriorityKeepsRoom(_Own):
    __test__ = True
    made = Priority
    options: ClassVar[dict[str, Any]] = {"kept_back": 0.5}

    def test_each_band_above_the_lowest_finds_more_room_and_the_highest_all_of_it(self) -> None:
        scheduler = self.make(max_queue_size=100)
        assert [scheduler.limit(task("t", priority)) for priority in (-1, 0, 1)] == [50, 75, 100]
        assert self.make(max_queue_size=1).limit(task("t", -1)) == 1
        assert self.make(max_queue_size=10, priority_levels=1).limit(task("t", -1)) == 10


class TestEdf(_Own):
    __test__ = True
    made = Edf
    longest_wait = 60.0

    def rank(self, task: QueuedTask) -> tuple[int, int]:
        return task.deadline_ns or task.received_ns + 60 * SECOND, task.received_ns

    def test_a_task_without_a_deadline_is_due_when_patience_ends(self) -> None:
        scheduler = self.make(patience=10)
        for name, received, due in (("none", 5.0, 0.0), ("later", 6.0, 16.0), ("sooner", 7.0, 14.0)):
            scheduler.put(QueuedTask(name, (QueueKey("m", "chat"),), 0, int(received * SECOND), int(due * SECOND)))
        assert order(scheduler) == ["sooner", "none", "later"]


class TestWspt(_Own):
    __test__ = True
    made = Wspt
    longest_wait = 60.0

    def rank(self, task: QueuedTask) -> tuple[float, int]:
        answer = min(task.max_tokens or 256.0, 256.0)
        return (answer + 0.1 * (task.prompt_chars / 4)) / 2.0**task.priority, task.received_ns

    def test_the_expectation_follows_the_answers_of_the_tenant(self) -> None:
        scheduler = self.make()
        for number in range(60):
            scheduler.observed(Outcome(f"o{number}", "a", "", 1.0, 2.0, 3, 10, 1000, "talks"))
        scheduler.observed(Outcome("lost", "a", "agent_lost", 1.0, 2.0, 3, 0, 0, "talks"))
        scheduler.put(of("talks", "long", 0))
        scheduler.put(of("new", "unknown", 1))
        scheduler.put(of("talks", "limited", 2, max_tokens=20))
        assert order(scheduler) == ["limited", "unknown", "long"]

    def test_overdue_tasks_take_every_second_turn(self) -> None:
        scheduler = self.make(longest_wait=10)
        for number in range(3):
            scheduler.put(task(f"old{number}", 0, number, chars=100_000))
            scheduler.put(task(f"new{number}", 0, 50 + number, chars=10))
        assert order(scheduler, 55) == ["old0", "new0", "old1", "new1", "old2", "new2"]


class _FairToTenants(_Own):
    """Not collected: what both schedulers hold that are fair to tenants."""

    __test__ = False

    def may_displace(self, new: QueuedTask, waiting: QueuedTask, inside: Collection[QueuedTask]) -> bool:
        counts = Counter(each.caller.tenant for each in inside)
        most = counts[waiting.caller.tenant]
        return most == max(counts.values()) and most >= counts[new.caller.tenant] + 2

    def test_one_that_sends_much_does_not_hold_up_one_that_sends_little(self) -> None:
        scheduler = self.make()
        for number in range(100):
            scheduler.put(of("greedy", f"g{number}", number))
        scheduler.put(of("modest", "modest", 1000))
        assert "modest" in order(scheduler)[:3]

    def test_a_queue_full_of_one_tenant_has_room_for_another(self) -> None:
        scheduler = self.make()
        for number in range(10):
            scheduler.put(of("greedy", f"g{number}", number))
        assert scheduler.displace(of("modest", "new", 50)) == "g9"
        assert scheduler.displace(of("greedy", "new", 50)) is None


class TestFair(_FairToTenants):
    __test__ = True
    made = Fair

    def unfairness(self, largest: float, running: int) -> float:
        return 500.0 + (2 + running) * largest

    def test_a_tenant_with_twice_the_weight_gets_twice_the_tokens(self) -> None:
        scheduler = self.make(weights={"heavy": 2.0})
        for number in range(120):
            scheduler.put(of("heavy", f"h{number}", number, max_tokens=100))
            scheduler.put(of("light", f"l{number}", number, max_tokens=100))
        names = [name[0] for name in order(scheduler)[:90]]
        assert abs(names.count("h") - 60) <= 6

    def test_a_task_that_is_put_back_costs_nothing_and_goes_first(self) -> None:
        def filled() -> Any:
            scheduler = self.make()
            for number in range(3):
                scheduler.put(of("a", f"a{number}", number))
                scheduler.put(of("b", f"b{number}", number))
            return scheduler

        scheduler = filled()
        for _ in range(20):
            scheduler.put_back(scheduler.take(lambda keys: True, 0))
        assert order(scheduler) == order(filled())

    def test_what_was_used_beyond_the_expected_is_owed_also_by_one_with_nothing_waiting(self) -> None:
        scheduler = self.make(quantum=100, expected_tokens=100)
        scheduler.put(of("a", "a0", 0))
        assert order(scheduler) == ["a0"]
        scheduler.observed(Outcome("a0", "x", "engine_failed", 1.0, 1.0, 1, 0, 1000, "a"))
        for number in range(1, 4):
            scheduler.put(of("a", f"a{number}", number))
            scheduler.put(of("b", f"b{number}", number))
        assert order(scheduler) == ["b1", "b2", "b3", "a1", "a2", "a3"]

    def test_idle_tenants_are_forgotten(self) -> None:
        scheduler = self.make()
        for number in range(3000):
            scheduler.put(of(f"tenant{number}", f"t{number}", number))
            scheduler.take(lambda keys: True, 0)
            scheduler.observed(Outcome(f"t{number}", "x", "", 1.0, 1.0, 1, 0, 1000, f"tenant{number}"))
        assert not scheduler._tenants
        assert not scheduler._turns
        assert len(scheduler._debts) <= 1000
        assert len(scheduler._charges.expected._means) <= 1000
        assert not scheduler._charges._open


class TestAttainedService(_FairToTenants):
    __test__ = True
    made = AttainedService
    longest_wait = 60.0
    options: ClassVar[dict[str, Any]] = {"half_life": 0}

    def unfairness(self, largest: float, running: int) -> float:
        return (2 + running) * largest

    def tokens(self, outcome: Outcome) -> float:
        return outcome.prompt_tokens + 2 * outcome.tokens

    def test_service_counts_half_after_each_half_life(self) -> None:
        def first(now: float) -> str:
            scheduler = self.make(half_life=10, longest_wait=0)
            for number in range(2):
                scheduler.put(of("a", f"a{number}", number))
                scheduler.put(of("b", f"b{number}", number))
            for name, at, tokens in (("a", 0.0, 1000), ("b", now, 400)):
                taken = scheduler.take(lambda keys: True, int(at * SECOND))
                assert taken.task_id == f"{name}0"
                scheduler.observed(Outcome(f"{name}0", "x", "", 1.0, 1.0, 1, 1, tokens, name))
            return str(scheduler.take(lambda keys: True, int(now * SECOND)).task_id)

        assert first(1) == "b1"
        assert first(20) == "a1"

    def test_counts_stay_right_over_any_number_of_half_lives(self) -> None:
        scheduler = self.make(half_life=1, longest_wait=0)
        for number in range(8):
            scheduler.put(of("a", f"a{number}", number))
            scheduler.put(of("b", f"b{number}", number + 0.5))
        for second in (0, 200, 400, 5000, 10**6):
            served = []
            for _ in range(2):
                taken = scheduler.take(lambda keys: True, second * SECOND)
                served.append(taken.caller.tenant)
                tokens = 900 if served[-1] == "a" else 100
                scheduler.observed(Outcome(taken.task_id, "x", "", 1.0, 1.0, 1, 1, tokens, served[-1]))
            assert sorted(served) == ["a", "b"], "what was long ago counts as much as what is new"
        assert scheduler.take(lambda keys: True, (10**6 + 1) * SECOND).caller.tenant == "b"

    def test_sessions_of_one_tenant_are_told_apart_where_that_is_asked(self) -> None:
        scheduler = self.make(by="session")
        for number in range(5):
            scheduler.put(of("t", f"long{number}", number, session="long"))
        taken = scheduler.take(lambda keys: True, 0)
        scheduler.observed(Outcome(taken.task_id, "x", "", 1.0, 1.0, 1, 1, 5000, "t", "long"))
        scheduler.put(of("t", "new", 100, session="new"))
        assert order(scheduler)[0] == "new"

    def test_nobody_saves_up_by_waiting(self) -> None:
        scheduler = self.make()
        for number in range(10):
            scheduler.put(of("busy", f"b{number}", number))
            scheduler.take(lambda keys: True, 0)
        scheduler.put(of("busy", "b10", 20))
        for number in range(5):
            scheduler.put(of("late", f"l{number}", 30 + number))
        assert order(scheduler)[:2] == ["b10", "l0"]

    def test_idle_owners_are_forgotten(self) -> None:
        scheduler = self.make(by="session")
        for number in range(11_000):
            scheduler.put(of("t", f"t{number}", number, session=f"s{number}"))
            scheduler.take(lambda keys: True, 0)
        assert not scheduler._active
        assert len(scheduler._idle) == 10_000


def of(tenant: str, name: str, received: float, max_tokens: int = 0, session: str = "") -> QueuedTask:
    """A task of a tenant with a prompt of 10 tokens."""
    made = task(name, 0, received, chars=40)
    return msgspec.structs.replace(made, caller=Caller(tenant, tenant), max_tokens=max_tokens, session=session)


# The kit sees what is wrong


class _Loses(Fifo):
    def put_back(self, task: QueuedTask) -> None:
        """Forgotten."""


class _Doubles(Fifo):
    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        task = super().take(ready, now_ns)
        if task is not None and task.received_ns % 7 == 3 and task.attempt == 1:
            self.put_back(task)
        return task


class _AsksTwice(Fifo):
    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        return super().take(lambda keys: ready(keys) and ready(keys), now_ns)


class _PutsBackAtTheEnd(Fifo):
    def put_back(self, task: QueuedTask) -> None:
        self._waiting[task.task_id] = task
        self._queues.setdefault(task.keys, ArrivalQueue()).append(task)


class _Starves(Fifo):
    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        newest = max(self._waiting.values(), key=lambda each: each.received_ns, default=None)
        if newest is not None:
            self.remove(newest.task_id)
        return newest


class _DisplacesAnybody(Fifo):
    def displace(self, task: QueuedTask) -> str | None:
        return next(iter(self._waiting), None)


class _UsesPriorityAndDoesNotSaySo(Priority):
    uses_priority = False


class _LetsNothingIn(Fifo):
    def limit(self, task: QueuedTask) -> int:
        return 0


class _NewestOfItsRankFirst(Edf):
    def rank(self, task: QueuedTask) -> tuple[int, int]:
        return super().rank(task)[0], -task.received_ns


class _ForgetsHowLongTasksWait(Wspt):
    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        return super().take(ready, 0)


class _NeverAges(Priority):
    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        return super().take(ready, 0)


class _CountsTasksAndNotTokens(Fair):
    def __init__(self, config: FairConfig) -> None:
        super().__init__(config)
        self._charges.cost = lambda task: 1.0  # type: ignore[method-assign]

    def observed(self, outcome: Outcome) -> None:
        """What was used changes nothing."""


class _PaysNoDebts(AttainedService):
    def observed(self, outcome: Outcome) -> None:
        """What is expected stands."""


class _OwesAttentionToNobody(AttainedService):
    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        return super().take(ready, 0)


class _PutsNewTenantsAtTheEnd(Fair):
    """It sends all of a tenant before the next one has its turn."""

    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        if self._turns:
            self._turns[0].deficit += 1e6
        return super().take(ready, now_ns)


class _SavesUp(AttainedService):
    """A tenant that begins to wait is not lifted, but sent to the end."""

    def put(self, task: QueuedTask) -> None:
        super().put(task)
        account = self._active[self._owner_of(task)]
        if account.waiting == 1:
            self._serve(account, 1e6)


class _GivesWhatIsNotReady(Fifo):
    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        return super().take(ready, now_ns) or super().take(lambda keys: True, now_ns)


class _HoldsUpWhatIsReady(Fifo):
    """Only the task that came first is looked at."""

    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        first = min(self._waiting.values(), key=lambda each: each.received_ns, default=None)
        return super().take(ready, now_ns) if first is not None and ready(first.keys) else None


class _RemovesNothing(Fifo):
    def remove(self, task_id: str) -> bool:
        return task_id in self._waiting


class _CountsWrongly(Fifo):
    def __len__(self) -> int:
        return max(0, super().__len__() - 1)


class _InventsTasks(Fifo):
    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        return super().take(ready, now_ns) or task("invented")


class _DisplacesItself(Fifo):
    def displace(self, task: QueuedTask) -> str | None:
        return task.task_id


class _RemovesWhatItDisplaces(Priority):
    def displace(self, task: QueuedTask) -> str | None:
        named = super().displace(task)
        if named is not None:
            self.remove(named)
        return named


class _UsesPrefixAndDoesNotSaySo(Wspt):
    def rank(self, task: QueuedTask) -> tuple[float, int]:
        return float(sum(task.prefix)), task.received_ns


class _RemembersWhoPassed(Fifo):
    """After ten tasks the newest goes first."""

    lets_pass = True

    def __init__(self, config: SchedulerConfig) -> None:
        super().__init__(config)
        self._taken = 0

    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        self._taken += 1
        newest = max(self._waiting.values(), key=lambda each: each.received_ns, default=None)
        if self._taken > 10 and newest is not None and ready(newest.keys):
            self.remove(newest.task_id)
            return newest
        return super().take(ready, now_ns)


class _ForgetsTheDeadline(Edf):
    def rank(self, task: QueuedTask) -> tuple[int, int]:
        return 0, -task.received_ns


@pytest.mark.parametrize(
    ("planted", "law"),
    [
        (_Loses, "test_what_was_taken_is_always_put_back"),
        (_Doubles, "test_every_task_comes_out_once_or_was_removed"),
        (_AsksTwice, "test_every_task_comes_out_once_or_was_removed"),
        (_PutsBackAtTheEnd, "test_what_is_put_back_has_its_old_place_among_equals"),
        (_Starves, "test_nothing_starves"),
        (_DisplacesAnybody, "test_only_a_waiting_task_of_lower_rank_is_displaced"),
        (_UsesPriorityAndDoesNotSaySo, "test_the_order_follows_from_nothing_that_it_says_it_does_not_use"),
        (_LetsNothingIn, "test_only_a_waiting_task_of_lower_rank_is_displaced"),
        (_Starves, "test_the_order_is_the_promised_one"),
        (_NewestOfItsRankFirst, "test_what_is_put_back_has_its_old_place_among_equals"),
        (_ForgetsHowLongTasksWait, "test_a_task_waits_no_longer_than_promised"),
        (_NeverAges, "test_a_task_waits_no_longer_than_promised"),
        (_CountsTasksAndNotTokens, "test_tenants_that_wait_are_served_alike"),
        (_PaysNoDebts, "test_tenants_that_wait_are_served_alike"),
        (_OwesAttentionToNobody, "test_a_task_waits_no_longer_than_promised"),
        (_PutsNewTenantsAtTheEnd, "test_a_tenant_that_begins_to_wait_is_not_held_up_by_those_with_much"),
        (_SavesUp, "test_a_tenant_that_begins_to_wait_is_not_held_up_by_those_with_much"),
        (Fifo, "test_a_tenant_that_begins_to_wait_is_not_held_up_by_those_with_much"),
        (_GivesWhatIsNotReady, "test_every_task_comes_out_once_or_was_removed"),
        (_HoldsUpWhatIsReady, "test_every_task_comes_out_once_or_was_removed"),
        (_RemovesNothing, "test_every_task_comes_out_once_or_was_removed"),
        (_CountsWrongly, "test_every_task_comes_out_once_or_was_removed"),
        (_InventsTasks, "test_empty_gives_nothing"),
        (_DisplacesItself, "test_empty_gives_nothing"),
        (_RemovesWhatItDisplaces, "test_only_a_waiting_task_of_lower_rank_is_displaced"),
        (_UsesPrefixAndDoesNotSaySo, "test_the_order_follows_from_nothing_that_it_says_it_does_not_use"),
        (_ForgetsTheDeadline, "test_the_order_is_the_promised_one"),
        (_RemembersWhoPassed, "test_a_task_that_passes_leaves_nothing_behind"),
        (Fifo, "test_tenants_that_wait_are_served_alike"),
        (Edf, "test_tenants_that_wait_are_served_alike"),
    ],
)
def test_the_kit_sees_what_is_wrong(planted: type[Scheduler], law: str) -> None:
    class Planted(SchedulerConformance):
        longest_wait = 60.0

        def rank(self, task: QueuedTask) -> int:
            return task.received_ns

        def unfairness(self, largest: float, running: int) -> float:
            return 500.0 + (2 + running) * largest

        def make(self, **options: Any) -> Any:
            return planted(planted.Config(**options))

    seeds = (0,) if getattr(SchedulerConformance, law).__code__.co_argcount > 1 else ()
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(Planted(), law)(*seeds)
