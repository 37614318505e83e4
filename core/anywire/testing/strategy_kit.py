"""The conformance kits for schedulers and selectors: laws that hold whatever the strategy."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import pytest

from anywire.errors import QueueFull
from anywire.messages import AgentInfo, AgentStatus
from anywire.plugins import Plugins
from anywire.scheduler import QueuedTask, QueueKey, Scheduler
from anywire.selector import AgentView, Outcome, Selector


def _task(number: int, rng: random.Random) -> QueuedTask:
    key = QueueKey(rng.choice(["m1", "m2", "m3"]), "chat")
    return QueuedTask(f"t{number}", key, rng.randint(-2, 2), number, number + 10**9, rng.randint(1, 5000))


class SchedulerConformance:
    """Subclass it and name the scheduler."""

    scheduler: str
    options: ClassVar[dict[str, Any]] = {}
    plugins: tuple[str, ...] = ()

    def make(self, **options: Any) -> Any:
        plugins = Plugins()
        for source in self.plugins:
            plugins.add(source)
        return plugins.create("schedulers", self.scheduler, {**self.options, **options})

    def test_empty_gives_nothing(self) -> None:
        scheduler: Scheduler = self.make()
        assert scheduler.take(lambda key: True) is None
        assert len(scheduler) == 0
        assert not scheduler.remove("nobody")

    def test_full_raises_and_keeps_nothing(self) -> None:
        scheduler: Scheduler = self.make(max_queue_size=3)
        rng = random.Random(0)
        for number in range(3):
            scheduler.put(_task(number, rng))
        with pytest.raises(QueueFull, match="3"):
            scheduler.put(_task(3, rng))
        assert len(scheduler) == 3
        scheduler.put_back(_task(4, rng))
        assert len(scheduler) == 4

    @pytest.mark.parametrize("seed", range(20))
    def test_every_task_comes_out_once_or_was_removed(self, seed: int) -> None:
        rng = random.Random(seed)
        scheduler: Scheduler = self.make(max_queue_size=10_000)
        inside: dict[str, QueuedTask] = {}
        taken: list[str] = []
        for number in range(400):
            match rng.choice(["put", "put", "put", "take", "take", "remove", "put_back"]):
                case "put":
                    task = _task(number, rng)
                    scheduler.put(task)
                    inside[task.task_id] = task
                case "take":
                    ready = set(rng.sample(["m1", "m2", "m3"], rng.randint(0, 3)))
                    asked: list[QueueKey] = []

                    def is_ready(key: QueueKey, ready: set[str] = ready, asked: list[QueueKey] = asked) -> bool:
                        asked.append(key)
                        return key.model in ready

                    got = scheduler.take(is_ready)
                    assert len(asked) == len(set(asked)), "ready is asked at most once per key"
                    if got is None:
                        assert not [task for task in inside.values() if task.key.model in ready]
                    else:
                        assert got.key.model in ready
                        del inside[got.task_id]
                        taken.append(got.task_id)
                case "remove" if inside:
                    victim = rng.choice(sorted(inside))
                    assert scheduler.remove(victim)
                    assert not scheduler.remove(victim)
                    del inside[victim]
                case "put_back" if taken:
                    task = _task(int(taken.pop()[1:]), rng)
                    scheduler.put_back(task)
                    inside[task.task_id] = task
            assert len(scheduler) == len(inside)
        left = set()
        while (got := scheduler.take(lambda key: True)) is not None:
            left.add(got.task_id)
        assert left == set(inside)

    def test_nothing_starves(self) -> None:
        """With a steady supply of newer equals, a task still comes out in the end."""
        scheduler: Scheduler = self.make(max_queue_size=1000)
        key = QueueKey("m", "chat")
        scheduler.put(QueuedTask("old", key, 0, 0, 10**12, 100))
        for number in range(1, 500):
            scheduler.put(QueuedTask(f"t{number}", key, 0, number, 10**12 + number, 100))
            got = scheduler.take(lambda key: True)
            assert got is not None
            if got.task_id == "old":
                return
        pytest.fail("the oldest of equal tasks never came out")


def _agents(count: int, rng: random.Random) -> list[AgentView]:
    views = []
    for ordinal in range(count):
        slots = rng.randint(1, 8)
        info = AgentInfo(f"a{ordinal}", 1, capabilities=("chat",))
        status = AgentStatus(f"a{ordinal}", 1, "ready", ("m",), slots)
        views.append(AgentView(info, status, ordinal, "memory", in_flight=rng.randint(0, slots - 1)))
    return views


class SelectorConformance:
    """Subclass it and name the selector."""

    selector: str
    options: ClassVar[dict[str, Any]] = {}
    plugins: tuple[str, ...] = ()
    fair: bool = True
    """Whether equal, idle agents get equal shares."""

    def make(self) -> Any:
        plugins = Plugins()
        for source in self.plugins:
            plugins.add(source)
        return plugins.create("selectors", self.selector, self.options)

    def _choices(self, seed: int) -> list[str]:
        """The choices of a new selector in a history that follows from ``seed`` alone."""
        rng = random.Random(seed)
        selector: Selector = self.make()
        views = _agents(rng.randint(1, 8), rng)
        chosen = []
        for number in range(200):
            candidates = sorted(rng.sample(views, rng.randint(1, len(views))), key=lambda view: view.ordinal)
            agent = selector.select(_task(number, rng), candidates)
            assert agent is None or any(agent is candidate for candidate in candidates)
            if agent is None:
                chosen.append("")
                continue
            chosen.append(agent.agent_id)
            agent.latency_ema_ms = rng.uniform(1, 100)
            selector.observed(Outcome(f"t{number}", agent.agent_id, rng.choice(["", "engine_failed"]), 1.0, 2.0, 3))
        return chosen

    @pytest.mark.parametrize("seed", range(20))
    def test_chooses_a_candidate_and_the_same_one_again(self, seed: int) -> None:
        assert self._choices(seed) == self._choices(seed)

    def test_one_candidate_is_chosen(self) -> None:
        rng = random.Random(0)
        (only,) = _agents(1, rng)
        assert self.make().select(_task(0, rng), [only]) is only

    def test_equal_agents_get_equal_shares(self) -> None:
        if not self.fair:
            pytest.skip("this strategy does not mean to be fair")
        rng = random.Random(0)
        selector: Selector = self.make()
        views = _agents(4, rng)
        for view in views:
            view.in_flight = 0
        counts = dict.fromkeys((view.agent_id for view in views), 0)
        for number in range(400):
            agent = selector.select(_task(number, rng), views)
            assert agent is not None
            counts[agent.agent_id] += 1
        assert all(60 <= count <= 140 for count in counts.values()), counts
