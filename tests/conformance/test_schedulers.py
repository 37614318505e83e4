from pathlib import Path
from typing import Any

import pytest
from anywire_schedulers.priority import Priority

from anywire.builtin.fifo import Fifo
from anywire.errors import ConfigError
from anywire.plugins import Plugins
from anywire.scheduler import QueuedTask, QueueKey, Ready, Scheduler
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
        self.put(task)


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
    ],
)
def test_the_kit_sees_what_is_wrong(planted: type[Scheduler], law: str) -> None:
    class Planted(SchedulerConformance):
        def make(self, **options: Any) -> Any:
            return planted(planted.Config(**options))

    seeds = () if law in ("test_what_was_taken_is_always_put_back", "test_nothing_starves") else (0,)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(Planted(), law)(*seeds)
