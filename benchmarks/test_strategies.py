"""What a choice costs: the installed selectors among many agents, the installed schedulers with many tasks waiting."""

import itertools
import random
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from anywire.messages import AgentInfo, AgentStatus
from anywire.scheduler import QueuedTask, QueueKey, Scheduler
from anywire.selector import AgentView, Selector

SLOTS = 8
KEYS = [QueueKey(f"model-{number}", "chat") for number in range(8)]
ONE_KEY = KEYS[5]
TASKS = 200


def agents(count: int) -> list[AgentView]:
    """Each with a free slot, busy as chance will have it."""
    chance = random.Random(count)
    return [
        AgentView(
            AgentInfo(f"agent-{number}", 1, capabilities=("chat",)),
            AgentStatus(f"agent-{number}", 1, "ready", (KEYS[0].model,), SLOTS),
            number,
            "memory",
            chance.randrange(SLOTS),
            latency_ema_ms=chance.uniform(1, 100),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("candidates", [2, 16, 128])
@pytest.mark.benchmark(group="selector: a choice")
def test_choice(benchmark: BenchmarkFixture, selector: Selector, candidates: int) -> None:
    views = agents(candidates)
    chosen = benchmark(selector.select, QueuedTask("task", KEYS[0]), views)
    assert chosen is None or chosen in views


class Waiting:
    """A scheduler with so many tasks waiting, over all `KEYS`, and more to come."""

    def __init__(self, scheduler: Scheduler, count: int) -> None:
        self.scheduler, self.count = scheduler, count
        self._numbers = itertools.count(1)
        for key in itertools.islice(itertools.cycle(KEYS), count):
            self.put(key)

    def put(self, key: QueueKey) -> None:
        number = next(self._numbers)
        self.scheduler.put(QueuedTask(f"task-{number}", key, 0, number, prompt_chars=300))

    def one_in_one_out(self, ready: Callable[[QueueKey], bool]) -> None:
        task = self.scheduler.take(ready)
        assert task is not None
        self.put(task.key)


@pytest.mark.parametrize("ready", ["all", "one"])
@pytest.mark.parametrize("waiting", [1_000, 10_000])
@pytest.mark.benchmark(group="scheduler: a task taken, another put")
def test_take_and_put(benchmark: BenchmarkFixture, scheduler: Scheduler, waiting: int, ready: str) -> None:
    """``ready`` is how many of the eight keys have a free agent."""
    queue = Waiting(scheduler, waiting)
    is_ready = (lambda key: True) if ready == "all" else (lambda key: key == ONE_KEY)
    benchmark(queue.one_in_one_out, is_ready)
    assert len(scheduler) == waiting


@pytest.mark.parametrize("waiting", [1_000, 10_000])
@pytest.mark.benchmark(group="scheduler: a waiting task cancelled")
def test_cancel(benchmark: BenchmarkFixture, scheduler: Scheduler, waiting: int) -> None:
    Waiting(scheduler, waiting)
    doomed = iter(random.Random(0).sample(range(1, waiting + 1), TASKS))
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        scheduler.remove, setup=lambda: ((f"task-{next(doomed)}",), {}), rounds=TASKS
    )
    assert len(scheduler) >= waiting - TASKS
