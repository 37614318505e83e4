"""Each scheduler against a plain model of what it promises, on any sequence of calls."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from anywire_schedulers.attained_service import AttainedService, AttainedServiceConfig
from anywire_schedulers.edf import Edf, EdfConfig
from anywire_schedulers.fair import Fair, FairConfig
from anywire_schedulers.priority import Priority, PriorityConfig
from anywire_schedulers.wspt import Wspt, WsptConfig
from hypothesis import given
from hypothesis import strategies as st

from anywire.builtin.fifo import Fifo
from anywire.caller import Caller
from anywire.fairness import jain_index
from anywire.scheduler import Outcome, QueuedTask, QueueKey, Scheduler

SECOND = 10**9
SCHEDULERS: list[type[Scheduler]] = [Fifo, Priority, Edf, Fair, AttainedService, Wspt]

KEYS = st.sampled_from([(QueueKey("m1", "chat"),), (QueueKey("m2", "chat"),), (QueueKey("m1", "chat", ("vision",)),)])
TASKS = st.builds(
    QueuedTask,
    task_id=st.just(""),
    keys=KEYS,
    priority=st.integers(-3, 3),
    deadline_ns=st.sampled_from([0, SECOND, 5 * SECOND, 100 * SECOND]),
    prompt_chars=st.integers(0, 20_000),
    max_tokens=st.sampled_from([0, 1, 50, 5000]),
    caller=st.sampled_from([Caller(), Caller("a", "a"), Caller("b", "b")]),
    session=st.sampled_from(["", "s1", "s2"]),
)
READY = st.sets(KEYS, min_size=1)
CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), TASKS),
        st.tuples(st.just("take"), READY),
        st.tuples(st.just("remove"), st.integers(0, 50)),
        st.tuples(st.just("put_back"), st.integers(0, 50)),
        st.tuples(st.just("observed"), st.integers(0, 50), st.integers(0, 10_000), st.sampled_from(["", "refused"])),
        st.tuples(st.just("pass"), st.sampled_from([1, SECOND, 100 * SECOND])),
    ),
    max_size=60,
)


class Driven:
    """A scheduler as the pipeline calls it; what it says is checked against what is known to wait."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.waiting: dict[str, QueuedTask] = {}
        self.running: list[QueuedTask] = []
        self.now = self.numbers = 0

    def put(self, task: QueuedTask) -> None:
        self.numbers += 1
        self.now += 1
        deadline = self.now + task.deadline_ns if task.deadline_ns else 0
        task = msgspec.structs.replace(task, task_id=f"t{self.numbers}", received_ns=self.now, deadline_ns=deadline)
        self.scheduler.put(task)
        self.waiting[task.task_id] = task

    def take(self, ready: set[tuple[QueueKey, ...]]) -> QueuedTask | None:
        self.now += 1
        asked: Counter[tuple[QueueKey, ...]] = Counter()

        def is_ready(keys: tuple[QueueKey, ...]) -> bool:
            asked[keys] += 1
            return keys in ready

        could = [task for task in self.waiting.values() if task.keys in ready]
        task = self.scheduler.take(is_ready, self.now)
        assert max(asked.values(), default=0) <= 1
        assert (task is None) == (not could)
        if task is not None:
            assert self.waiting.pop(task.task_id) is task
            assert task.keys in ready
            self.running.append(task)
        return task

    def remove(self, number: int) -> None:
        name = f"t{number}"
        assert self.scheduler.remove(name) == (self.waiting.pop(name, None) is not None)

    def put_back(self, number: int) -> None:
        if self.running:
            task = self.running.pop(number % len(self.running))
            self.scheduler.put_back(task)
            self.waiting[task.task_id] = task

    def observed(self, number: int, tokens: int, error: str) -> None:
        if self.running:
            task = self.running.pop(number % len(self.running))
            outcome = Outcome(task.task_id, "x", error, 1.0, 2.0, 3, 7, tokens, task.caller.tenant, task.session)
            self.scheduler.observed(outcome)

    def let_pass(self, ns: int) -> None:
        self.now += ns

    def call(self, call: tuple[Any, ...]) -> None:
        name, *arguments = call
        getattr(self, "let_pass" if name == "pass" else name)(*arguments)
        assert len(self.scheduler) == len(self.waiting)


def every_key() -> set[tuple[QueueKey, ...]]:
    return {(QueueKey("m1", "chat"),), (QueueKey("m2", "chat"),), (QueueKey("m1", "chat", ("vision",)),)}


@pytest.mark.parametrize("made", SCHEDULERS, ids=lambda made: made.name)
@given(calls=CALLS)
def test_nothing_is_lost_and_nothing_comes_twice(made: type[Scheduler], calls: list[tuple[Any, ...]]) -> None:
    driven = Driven(made(made.Config()))
    for call in calls:
        driven.call(call)
    while driven.take(every_key()) is not None:
        pass
    assert not driven.waiting
    assert len(driven.scheduler) == 0


def expected_work(task: QueuedTask) -> float:
    return ((min(task.max_tokens, 256) if task.max_tokens else 256) + task.prompt_chars / 40) / 2.0**task.priority


@pytest.mark.parametrize(
    ("scheduler", "rank"),
    [
        (Fifo(Fifo.Config()), lambda task: task.received_ns),
        (Edf(EdfConfig()), lambda task: (task.deadline_ns or task.received_ns + 60 * SECOND, task.received_ns)),
        (Wspt(WsptConfig(longest_wait=0)), lambda task: (expected_work(task), task.received_ns)),
        (Priority(PriorityConfig(aging=0)), lambda task: (-min(max(task.priority, -1), 1), task.received_ns)),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
@given(calls=CALLS)
def test_what_is_taken_has_the_smallest_rank_of_all_that_are_ready(
    scheduler: Scheduler, rank: Callable[[QueuedTask], Any], calls: list[tuple[Any, ...]]
) -> None:
    driven = Driven(type(scheduler)(scheduler.config))
    for call in calls:
        if call[0] == "observed":
            continue
        could = [task for task in driven.waiting.values() if call[0] == "take" and task.keys in call[1]]
        if could:
            assert driven.take(call[1]) is min(could, key=rank)
        else:
            driven.call(call)


class RoundByRound:
    """Deficit round robin as the paper has it, a round at a time, for tasks that are all ready."""

    def __init__(self, quantum: float) -> None:
        self.quantum = quantum
        self.turns: deque[str] = deque()
        self.queues: dict[str, deque[tuple[str, float]]] = {}
        self.deficits: dict[str, float] = {}
        self.begun = False

    def put(self, tenant: str, task_id: str, cost: float) -> None:
        if tenant not in self.queues:
            self.queues[tenant], self.deficits[tenant] = deque(), 0.0
            self.turns.append(tenant)
        self.queues[tenant].append((task_id, cost))

    def take(self) -> str:
        while True:
            tenant = self.turns[0]
            if not self.begun:
                self.deficits[tenant] += self.quantum
                self.begun = True
            task_id, cost = self.queues[tenant][0]
            if cost <= self.deficits[tenant]:
                self.queues[tenant].popleft()
                self.deficits[tenant] -= cost
                if not self.queues[tenant]:
                    del self.queues[tenant], self.deficits[tenant]
                    self.turns.popleft()
                    self.begun = False
                return task_id
            self.turns.rotate(-1)
            self.begun = False


@given(
    quantum=st.sampled_from([1, 7, 100, 5000]),
    calls=st.lists(st.one_of(st.none(), st.tuples(st.sampled_from("abcd"), st.integers(1, 300))), max_size=60),
)
def test_fair_sends_in_the_order_of_deficit_round_robin(quantum: int, calls: list[tuple[str, int] | None]) -> None:
    scheduler, model = Fair(FairConfig(quantum=quantum)), RoundByRound(quantum)
    waiting = 0
    for number, call in enumerate([*calls, *([None] * len(calls))]):
        if call is not None:
            tenant, cost = call
            scheduler.put(
                QueuedTask(f"t{number}", (QueueKey("m", "chat"),), 0, number, max_tokens=cost,
                           caller=Caller(tenant, tenant))
            )  # fmt: skip
            model.put(tenant, f"t{number}", min(cost, 256))
            waiting += 1
        elif waiting:
            taken = scheduler.take(lambda keys: True, number)
            assert taken is not None
            assert taken.task_id == model.take()
            waiting -= 1


@given(calls=CALLS)
def test_the_deficit_of_no_tenant_grows_beyond_its_bound(calls: list[tuple[Any, ...]]) -> None:
    """At most a quantum and the most expensive task, while what is expected holds."""
    scheduler = Fair(FairConfig(quantum=100))
    driven = Driven(scheduler)
    for call in calls:
        if call[0] not in ("observed", "put_back"):
            driven.call(call)
            deficits = [tenant.deficit for tenant in scheduler._turns]
            assert all(-1e-6 <= deficit <= 100 + 20_000 / 4 + 256 for deficit in deficits)


@given(calls=CALLS)
def test_the_owner_that_was_served_least_goes_first(calls: list[tuple[Any, ...]]) -> None:
    """Without lifting, decay and a longest wait: service is what was charged and settled."""
    scheduler = AttainedService(AttainedServiceConfig(by="session", half_life=0, longest_wait=0))
    driven = Driven(scheduler)
    for call in calls:
        could = [task for task in driven.waiting.values() if call[0] == "take" and task.keys in call[1]]
        accounts = {owner: account.attained for owner, account in (scheduler._active | scheduler._idle).items()}
        if could:
            taken = driven.take(call[1])
            assert taken is not None
            owners = {(task.caller.tenant, task.session) for task in could}
            assert accounts[taken.caller.tenant, taken.session] == min(accounts[owner] for owner in owners)
            own = [task for task in could if (task.caller.tenant, task.session) == (taken.caller.tenant, taken.session)]
            assert taken is min(own, key=lambda task: task.received_ns)
        else:
            driven.call(call)
    assert all(math.isfinite(account.attained) and account.attained >= 0 for account in scheduler._active.values())


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=50))
def test_jains_index_is_between_a_share_for_one_and_1(values: list[float]) -> None:
    index = jain_index(values)
    assert 1 / len(values) - 1e-9 <= index <= 1 + 1e-9
    assert jain_index([5.0] * len(values)) == pytest.approx(1.0)
    assert jain_index([5.0] + [0.0] * (len(values) - 1)) == pytest.approx(1 / len(values))
