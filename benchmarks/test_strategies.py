"""What a choice costs: the installed selectors among many agents, the installed schedulers with many tasks waiting."""

import itertools
import random
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from anywire.caller import Caller
from anywire.messages import AgentInfo, AgentStatus
from anywire.offers import offers, offers_text, read_offers
from anywire.pipeline.fleet.groups import Group, GroupsView, Member, Orders
from anywire.scheduler import Outcome, QueuedTask, QueueKey, Ready, Scheduler
from anywire.selector import AgentView, Choice, Selector

SLOTS = 8
KEYS = tuple(QueueKey(f"model-{number}", "chat") for number in range(8))
ONE_KEY = KEYS[5:6]
TASKS = 200
TENANTS = [Caller(f"key-{number}", f"tenant-{number}") for number in range(100)]
OFFERED = offers_text(offers(KEYS[0].model))


def agents(count: int) -> list[AgentView]:
    """Each with a free slot, busy as chance will have it."""
    chance = random.Random(count)
    return [
        AgentView(
            AgentInfo(f"agent-{number}", 1, capabilities=("chat",)),
            AgentStatus(f"agent-{number}", 1, "ready", OFFERED, SLOTS),
            number,
            "memory",
            chance.randrange(SLOTS),
            latency_ema_ms=chance.uniform(1, 100),
        )
        for number in range(count)
    ]


def tasks() -> Iterator[QueuedTask]:
    """Each prompt has one of 32 beginnings of 11 blocks, about 1,400 tokens, and a question of its own; each task is
    one of 64 sessions'. Round and round."""
    chance = random.Random(0)
    beginnings = [tuple(chance.getrandbits(64) for _ in range(11)) for _ in range(32)]
    return itertools.cycle(
        [
            QueuedTask(
                f"task-{number}",
                KEYS[:1],
                prompt_chars=6000,
                session=f"session-{number % 64}",
                prefix=(*chance.choice(beginnings), chance.getrandbits(64)),
            )
            for number in range(2000)
        ]
    )


@pytest.mark.parametrize("candidates", [1, 10, 100, 1000])
@pytest.mark.benchmark(group="selector: a choice")
def test_choice(benchmark: BenchmarkFixture, selector: Selector, candidates: int) -> None:
    orders = Orders()
    group = Group((OFFERED, ("chat",)), read_offers(OFFERED), orders)
    for agent in agents(candidates):
        group.members[agent.agent_id] = orders.members[agent.agent_id] = member = Member(agent, {0}, 0, group, True)
        group.add_free(member)
    free = GroupsView([group], orders)
    waiting = tasks()

    def choose() -> AgentView | None:
        task = next(waiting)
        chosen = selector.select(task, free)
        agent = chosen.agent if isinstance(chosen, Choice) else chosen
        if agent is not None:
            selector.observed(Outcome(task.task_id, agent.agent_id, "", 10.0, 100.0, 20))
        return agent

    agent = benchmark(choose)
    assert agent is None or free.get(agent.agent_id) is agent


class Waiting:
    """A scheduler with so many tasks waiting, over all `KEYS`, and more to come."""

    def __init__(self, scheduler: Scheduler, count: int) -> None:
        self.scheduler, self.count = scheduler, count
        self._numbers = itertools.count(1)
        for key in itertools.islice(itertools.cycle(KEYS), count):
            self.put((key,))

    def put(self, keys: tuple[QueueKey, ...]) -> None:
        number = next(self._numbers)
        tenant = TENANTS[number % len(TENANTS)]
        self.scheduler.put(QueuedTask(f"task-{number}", keys, number % 3 - 1, number, prompt_chars=300, caller=tenant))

    def one_in_one_out(self, ready: Ready) -> None:
        task = self.scheduler.take(ready, self.count)
        assert task is not None
        self.put(task.keys)


@pytest.mark.parametrize("ready", ["all", "one"])
@pytest.mark.parametrize("waiting", [1_000, 10_000])
@pytest.mark.benchmark(group="scheduler: a task taken, another put")
def test_take_and_put(benchmark: BenchmarkFixture, scheduler: Scheduler, waiting: int, ready: str) -> None:
    """``ready`` is how many of the eight keys have a free agent."""
    queue = Waiting(scheduler, waiting)
    is_ready = (lambda keys: True) if ready == "all" else (lambda keys: keys == ONE_KEY)
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
