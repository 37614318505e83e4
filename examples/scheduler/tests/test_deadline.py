"""The conformance kit, and the law this scheduler is for."""

import random

import pytest

from anywire.errors import ConfigError
from anywire.plugins import Plugins
from anywire.scheduler import QueuedTask, QueueKey
from anywire.testing.strategy_kit import SchedulerConformance

SECOND = 10**9


def task(number: int, model: str, deadline: float = 0.0, received: float = 0.0) -> QueuedTask:
    keys = (QueueKey(model, "chat"),)
    return QueuedTask(f"t{number}", keys, 0, int(received * SECOND), int(deadline * SECOND))


class TestDeadlineFirst(SchedulerConformance):
    scheduler = "deadline_first"
    longest_wait = 60.0

    def rank(self, task: QueuedTask) -> int:
        return task.deadline_ns

    def outranks(self, new: QueuedTask, waiting: QueuedTask) -> bool:
        return new.deadline_ns < waiting.deadline_ns


@pytest.mark.parametrize("seed", range(20))
def test_what_is_due_first_is_sent_first_whatever_its_model(seed: int) -> None:
    rng = random.Random(seed)
    scheduler = Plugins().create("schedulers", "deadline_first", {})
    deadlines = rng.sample(range(1, 1000), 50)
    for number, deadline in enumerate(deadlines):
        scheduler.put(task(number, rng.choice(["m1", "m2"]), deadline))
    taken = [scheduler.take(lambda keys: True, 0).deadline_ns // SECOND for _ in deadlines]
    assert taken == sorted(deadlines)


def test_a_task_without_a_deadline_is_due_when_patience_ends() -> None:
    scheduler = Plugins().create("schedulers", "deadline_first", {"patience": 10})
    scheduler.put(task(0, "m", received=5))
    scheduler.put(task(1, "m", 16, received=6))
    scheduler.put(task(2, "m", 14, received=7))
    assert [scheduler.take(lambda keys: True, 0).task_id for _ in range(3)] == ["t2", "t0", "t1"]


def test_when_everything_is_full_what_is_due_last_gives_its_place() -> None:
    scheduler = Plugins().create("schedulers", "deadline_first", {})
    scheduler.put(task(0, "m", 50))
    scheduler.put(task(1, "m", 70))
    assert scheduler.displace(task(2, "m", 60)) == "t1"
    assert scheduler.displace(task(2, "m", 80)) is None


def test_a_patience_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"scheduler\.patience"):
        Plugins().create("schedulers", "deadline_first", {"patience": 0})
