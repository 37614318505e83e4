"""First who has been served least."""

from __future__ import annotations

from typing import ClassVar, Literal

import pydantic

from anywire.scheduler import Outcome, QueuedTask, Ready, Scheduler, SchedulerConfig
from anywire.scheduler_tools.arrival_queue import ArrivalQueue, arrival, newest_of_largest
from anywire.scheduler_tools.charges import Charges
from anywire.scheduler_tools.ranked_queues import Keys, Rank, RankedQueues, asked_once

MAX_IDLE = 10_000
"""Owners with nothing waiting whose service is kept; the one that was idle for longest is forgotten."""
MAX_HALVINGS = 256
"""Half-lives after which all counts are brought down together, so that they stay in a float's range."""

Owner = tuple[str, str]


class AttainedServiceConfig(SchedulerConfig):
    by: Literal["tenant", "session"] = pydantic.Field(
        default="tenant",
        description="Whose service is counted: the tenant's, or that of each of its sessions; a task without a session "
        "counts for its tenant.",
    )
    half_life: float = pydantic.Field(
        default=300.0, ge=0, le=1e9, description="Seconds after which service counts half. 0: it counts for ever."
    )
    longest_wait: float = pydantic.Field(
        default=60.0,
        ge=0,
        le=1e9,
        description="Seconds after which an owner of which nothing was sent goes first. 0: it may wait for as long as "
        "others have been served less.",
    )
    answer_weight: float = pydantic.Field(
        default=2.0, ge=0, le=100, description="What a token of an answer counts, in times of a token of a prompt."
    )
    expected_tokens: float = pydantic.Field(
        default=256.0, ge=1, le=1e6, description="Tokens of an answer of a tenant of which none has been seen yet."
    )


class _Account:
    """One owner. ``attained`` is its service, counted as if all of it had been at the beginning of the epoch;
    ``since_ns`` is when a task of it was sent last, or when it began to wait. ``ranks`` are the places of its queues by
    service and by wait."""

    __slots__ = ("attained", "queues", "ranks", "since_ns", "waiting")

    def __init__(self) -> None:
        self.attained, self.since_ns, self.waiting = 0.0, 0, 0
        self.queues: dict[Keys, ArrivalQueue] = {}
        self.ranks: dict[Keys, tuple[Rank, Rank]] = {}


class AttainedService(Scheduler):
    """The oldest task of the owner that has been served least, in tokens; those of answers count double.

    Method: least attained service. For tenants as in VTC (Sheng et al. 2024, "Fairness in Serving Large Language
    Models"): weights 1 and 2, and a tenant that begins to wait is lifted to the least that those who wait have
    attained, or the last one who waited, so that nobody saves up. For sessions as in Autellix (Luo et al. 2025,
    "Autellix: An Efficient Serving Engine for LLM Agents as General Programs"): a new one begins with nothing. A
    task is charged what is expected when it is taken (`Charges`), and the difference when its attempt has ended.
    Service loses half its weight in each ``half_life``: new service counts more instead of old service less, so that
    the order of those who wait stays as it is.

    Owners that both have tasks waiting all the time differ by at most two of the most expensive tasks and what is
    expected wrongly of the tasks that run. Nobody starves: an owner of which nothing was sent for ``longest_wait`` goes
    first, and of several the one that waits longest. Within an owner tasks go in the order they came.

    When everything is full, a task takes the place of the newest task of the owner with the most tasks waiting, if that
    one has at least two more than its own owner.

    Putting and taking cost O(log m) comparisons for m owners that wait, for each set of keys of the owner. Removing
    costs that and what `ArrivalQueue` says, displacing a look at each owner that waits.
    """

    name: ClassVar[str] = "attained_service"
    Config: ClassVar[type[SchedulerConfig]] = AttainedServiceConfig

    def __init__(self, config: AttainedServiceConfig) -> None:
        super().__init__(config)
        self._settings = config
        self._half_life_ns, self._longest_ns = int(config.half_life * 1e9), int(config.longest_wait * 1e9)
        self._charges = Charges(config.expected_tokens, config.answer_weight)
        self._active: dict[Owner, _Account] = {}
        self._idle: dict[Owner, _Account] = {}
        self._by_service: RankedQueues[_Account] = RankedQueues()
        self._by_wait: RankedQueues[_Account] = RankedQueues()
        self._waiting: dict[str, QueuedTask] = {}
        self._last_left = 0.0
        """What the tenant had attained that was the last to have nothing waiting any more."""
        self._now_ns = self._epoch_ns = 0

    def put(self, task: QueuedTask) -> None:
        self._enter(task).add(task)
        self._place(self._active[self._owner_of(task)], task.keys)

    def put_back(self, task: QueuedTask) -> None:
        self._enter(task).add(task)
        account = self._active[self._owner_of(task)]
        self._serve(account, -self._charges.undo(task))

    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        self._now_ns = now_ns
        if self._half_life_ns and now_ns - self._epoch_ns > MAX_HALVINGS * self._half_life_ns:
            self._begin_epoch()
        ready = asked_once(ready)
        account: _Account | None = None
        if self._longest_ns:
            account = self._by_wait.first(ready, below=(now_ns - self._longest_ns + 1,))
        if account is None:
            account = self._by_service.first(ready)
        if account is None:
            return None
        task = min((queue[0] for keys, queue in account.queues.items() if ready(keys)), key=arrival)
        account.since_ns = now_ns
        self._drop(task, account)
        self._serve(account, self._charges.charge(task))
        self._leave(task, account)
        return task

    def remove(self, task_id: str) -> bool:
        task = self._waiting.get(task_id)
        if task is None:
            return False
        account = self._active[self._owner_of(task)]
        self._drop(task, account)
        self._place(account, task.keys)
        self._leave(task, account)
        return True

    def displace(self, task: QueuedTask) -> str | None:
        return newest_of_largest(self._active.values(), self._active.get(self._owner_of(task)))

    def observed(self, outcome: Outcome) -> None:
        owed = self._charges.settle(outcome)
        owner = self._owner(outcome.tenant, outcome.session)
        account = self._active.get(owner) or self._idle.get(owner)
        if account is not None:
            self._serve(account, owed)

    def __len__(self) -> int:
        return len(self._waiting)

    def _owner(self, tenant: str, session: str) -> Owner:
        return tenant, session if self._settings.by == "session" else ""

    def _owner_of(self, task: QueuedTask) -> Owner:
        return self._owner(task.caller.tenant, task.session)

    def _enter(self, task: QueuedTask) -> ArrivalQueue:
        """Count a task that begins to wait; returns the queue for it."""
        owner = self._owner_of(task)
        account = self._active.get(owner)
        if account is None:
            account = self._idle.pop(owner, None) or _Account()
            if self._settings.by == "tenant":
                least = self._by_service.first(lambda keys: True)
                account.attained = max(account.attained, least.attained if least is not None else self._last_left)
            account.since_ns = task.received_ns
            self._active[owner] = account
        account.waiting += 1
        self._waiting[task.task_id] = task
        return account.queues.setdefault(task.keys, ArrivalQueue())

    def _drop(self, task: QueuedTask, account: _Account) -> None:
        """Take a task out of its queue, whose place is to be looked at then."""
        del self._waiting[task.task_id]
        account.queues[task.keys].discard(task)
        account.waiting -= 1

    def _leave(self, task: QueuedTask, account: _Account) -> None:
        """Count the owner of ``task`` among the idle if nothing of it waits any more."""
        if not account.waiting:
            owner, self._last_left = self._owner_of(task), account.attained
            self._idle[owner] = self._active.pop(owner)
            if len(self._idle) > MAX_IDLE:
                del self._idle[next(iter(self._idle))]

    def _serve(self, account: _Account, tokens: float) -> None:
        """Count tokens, in the units of now."""
        if self._half_life_ns:
            tokens *= 2.0 ** ((self._now_ns - self._epoch_ns) / self._half_life_ns)
        account.attained = max(0.0, account.attained + tokens)
        for keys in tuple(account.queues):
            self._place(account, keys)

    def _place(self, account: _Account, keys: Keys) -> None:
        """Put one of its queues where it belongs; forget it when it is empty."""
        old = account.ranks.pop(keys, None)
        if old is not None:
            self._by_service.remove(keys, old[0], account)
            self._by_wait.remove(keys, old[1], account)
        queue = account.queues[keys]
        if not queue:
            del account.queues[keys]
            return
        by_service, by_wait = (account.attained, queue[0].received_ns), (account.since_ns,)
        account.ranks[keys] = by_service, by_wait
        self._by_service.add(keys, by_service, account)
        self._by_wait.add(keys, by_wait, account)

    def _begin_epoch(self) -> None:
        """Bring all counts to the units of now; who has hardly any service left is forgotten when idle."""
        factor = 0.5 ** min((self._now_ns - self._epoch_ns) / self._half_life_ns, 1000.0)
        self._epoch_ns = self._now_ns
        self._last_left *= factor
        for account in (*self._active.values(), *self._idle.values()):
            account.attained *= factor
            for keys in tuple(account.queues):
                self._place(account, keys)
        self._idle = {owner: account for owner, account in self._idle.items() if account.attained >= 1.0}
