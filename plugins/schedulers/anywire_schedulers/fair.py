"""Equal shares for tenants, by tokens."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator
from typing import Annotated, ClassVar

import pydantic

from anywire.scheduler import Outcome, QueuedTask, QueueKey, Ready, Scheduler, SchedulerConfig
from anywire.scheduler_tools.arrival_queue import ArrivalQueue, newest_of_largest
from anywire.scheduler_tools.charges import Charges
from anywire.scheduler_tools.ranked_queues import asked_once

MAX_DEBTORS = 1000
"""Tenants with nothing waiting whose debt is kept; the oldest debt beyond them is forgotten."""


class FairConfig(SchedulerConfig):
    quantum: float = pydantic.Field(
        default=64.0, ge=1, le=1e9, description="Tokens that a tenant may use more each time its turn comes."
    )
    weights: dict[str, Annotated[float, pydantic.Field(gt=0.001, le=1000)]] = pydantic.Field(
        default_factory=dict, description="Share of a tenant, in times of the share of one that is not named here."
    )
    expected_tokens: float = pydantic.Field(
        default=256.0, ge=1, le=1e6, description="Tokens of an answer of a tenant of which none has been seen yet."
    )


class _Tenant:
    """One that has tasks waiting. ``deficit`` are the tokens it may use, below 0 when it has used too many. ``served``
    says whether it was given its quantum in the turn that it has now."""

    __slots__ = ("deficit", "name", "quantum", "queues", "served", "waiting")

    def __init__(self, name: str, quantum: float, deficit: float) -> None:
        self.name, self.quantum, self.deficit = name, quantum, deficit
        self.queues: dict[tuple[QueueKey, ...], ArrivalQueue] = {}
        self.served, self.waiting = False, 0

    def first(self, ready: Ready) -> QueuedTask | None:
        """The oldest of its tasks that could be sent."""
        best: QueuedTask | None = None
        for keys, queue in self.queues.items():
            if (best is None or queue[0].received_ns < best.received_ns) and ready(keys):
                best = queue[0]
        return best


class Fair(Scheduler):
    """Tenants take turns; in its turn a tenant gets ``quantum`` tokens more and sends its oldest tasks while they cost
    no more than it has.

    Method: deficit round robin (Shreedhar and Varghese 1995, "Efficient Fair Queueing using Deficit Round Robin"), with
    tokens in place of bytes. How long an answer becomes is not known before, so a task is charged what is expected
    (`Charges`), and the difference when its attempt has ended. Rounds in which nobody could send anything are counted
    at once. A tenant for which no agent is free misses its turn and gets nothing for it. What a tenant has not used
    when nothing of it waits any more is lost; what it has used too much is remembered.

    Two tenants that both have tasks waiting all the time differ by at most one quantum, two of the most expensive tasks
    and what is expected wrongly of the tasks that run. Nobody starves: a task is sent after those of its tenant before
    it and as many rounds as these cost quanta.

    When everything is full, a task takes the place of the newest task of the tenant with the most tasks waiting, if
    that one has at least two more than its own tenant (McKenney 1990, "Stochastic Fairness Queueing").

    Taking looks at one tenant for each quantum that tasks cost, at all tenants twice at most, and at the sets of keys
    of each, and only at the sets of keys where none has a free agent. Putting costs O(1), removing from the middle what
    `ArrivalQueue` says.
    """

    name: ClassVar[str] = "fair"
    Config: ClassVar[type[SchedulerConfig]] = FairConfig

    def __init__(self, config: FairConfig) -> None:
        super().__init__(config)
        self._settings, self._charges = config, Charges(config.expected_tokens)
        self._turns: deque[_Tenant] = deque()
        """Those that have tasks waiting. The first one has its turn."""
        self._tenants: dict[str, _Tenant] = {}
        self._debts: dict[str, float] = {}
        self._waiting: dict[str, QueuedTask] = {}
        self._keys = Counter[tuple[QueueKey, ...]]()
        """How many of them have which keys."""

    def put(self, task: QueuedTask) -> None:
        tenant = self._tenants.get(task.caller.tenant)
        if tenant is None:
            tenant = self._new(task.caller.tenant)
            self._turns.append(tenant)
        self._enter(tenant, task)

    def put_back(self, task: QueuedTask) -> None:
        tenant = self._tenants.get(task.caller.tenant)
        if tenant is None:
            tenant = self._new(task.caller.tenant)
            tenant.served = True
            self._turns.appendleft(tenant)
        tenant.deficit += self._charges.undo(task)
        self._enter(tenant, task)

    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        ready = asked_once(ready)
        if not any(map(ready, self._keys)):
            return None
        found: list[tuple[_Tenant, QueuedTask]] = []
        for tenant, task in self._heads(ready):
            if not tenant.served:
                tenant.served = True
                tenant.deficit += tenant.quantum
            if self._charges.cost(task) <= tenant.deficit:
                return self._send(tenant, task)
            tenant.served = False
            found.append((tenant, task))
        if not found:
            return None
        rounds, winner = min(((self._rounds(*each), at) for at, each in enumerate(found)))
        for at, (tenant, _) in enumerate(found):
            tenant.deficit += (rounds - (at > winner)) * tenant.quantum
        tenant, task = found[winner]
        tenant.served = True
        while self._turns[0] is not tenant:
            self._turns.rotate(-1)
        return self._send(tenant, task)

    def remove(self, task_id: str) -> bool:
        task = self._waiting.pop(task_id, None)
        if task is None:
            return False
        tenant = self._tenants[task.caller.tenant]
        queue = tenant.queues[task.keys]
        queue.discard(task)
        tenant.waiting -= 1
        self._keys[task.keys] -= 1
        if not queue:
            del tenant.queues[task.keys]
            if not self._keys[task.keys]:
                del self._keys[task.keys]
        if not tenant.waiting:
            self._turns.remove(tenant)
            del self._tenants[tenant.name]
            self._remember(tenant.name, tenant.deficit)
        return True

    def displace(self, task: QueuedTask) -> str | None:
        return newest_of_largest(self._turns, self._tenants.get(task.caller.tenant))

    def observed(self, outcome: Outcome) -> None:
        owed = self._charges.settle(outcome)
        tenant = self._tenants.get(outcome.tenant)
        if tenant is not None:
            tenant.deficit -= owed
        else:
            self._remember(outcome.tenant, self._debts.get(outcome.tenant, 0.0) - owed)

    def __len__(self) -> int:
        return len(self._waiting)

    def _new(self, name: str) -> _Tenant:
        quantum = self._settings.quantum * self._settings.weights.get(name, 1.0)
        tenant = self._tenants[name] = _Tenant(name, quantum, self._debts.pop(name, 0.0))
        return tenant

    def _enter(self, tenant: _Tenant, task: QueuedTask) -> None:
        self._waiting[task.task_id] = task
        self._keys[task.keys] += 1
        tenant.waiting += 1
        tenant.queues.setdefault(task.keys, ArrivalQueue()).add(task)

    def _heads(self, ready: Ready) -> Iterator[tuple[_Tenant, QueuedTask]]:
        """Each tenant that could send, in turn, with its oldest task; ends after one round. It is the first of
        ``_turns`` while it is given out."""
        for _ in range(len(self._turns)):
            tenant = self._turns[0]
            task = tenant.first(ready)
            if task is not None:
                yield tenant, task
            self._turns.rotate(-1)

    def _rounds(self, tenant: _Tenant, task: QueuedTask) -> int:
        """How many quanta it lacks."""
        return math.ceil((self._charges.cost(task) - tenant.deficit) / tenant.quantum)

    def _send(self, tenant: _Tenant, task: QueuedTask) -> QueuedTask:
        tenant.deficit -= self._charges.charge(task)
        self.remove(task.task_id)
        return task

    def _remember(self, name: str, deficit: float) -> None:
        """Keep the debt of a tenant that has nothing waiting."""
        self._debts.pop(name, None)
        if deficit < 0:
            self._debts[name] = deficit
            if len(self._debts) > MAX_DEBTORS:
                del self._debts[next(iter(self._debts))]
