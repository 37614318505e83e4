"""How many tasks may be sent again: a share of the tasks plus a floor, for each model and tenant, within a window
(Finagle's retry budget; Envoy's is a share of what is under way).

Time is counted in tenths of the window. Within any window at most ``floor`` retries are made beyond ``share`` of the
tasks that were under way at some time in it or in the tenth before. What an orchestrator below may spend is kept back
for it when a task is sent there, and what it has not spent is given back at the end.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from anywire.failure_settings import RetryConfig

SLICES = 10
MAX_BUDGETS = 4096
"""Pairs of model and tenant; the one that was used longest ago is forgotten."""


class RetryBudget:
    """Of one model and tenant. ``now_ns`` is monotonic."""

    __slots__ = (
        "_config",
        "_ended",
        "_ended_lately",
        "_kept_back",
        "_next_slice_ns",
        "_slice_ns",
        "_spent",
        "_spent_lately",
        "_sum_ended",
        "_sum_spent",
        "_under_way",
    )

    def __init__(self, config: RetryConfig) -> None:
        self._config = config
        self._slice_ns = max(1, int(config.window * 1e9 / SLICES))
        self._next_slice_ns = self._under_way = self._kept_back = self._sum_ended = self._sum_spent = 0
        self._ended_lately = self._spent_lately = 0
        """In the tenth that is not over."""
        self._ended = deque([0] * SLICES, maxlen=SLICES)
        self._spent = deque([0] * SLICES, maxlen=SLICES)
        """In the tenths before."""

    def begin(self, now_ns: int) -> None:
        """A task is sent for the first time."""
        if now_ns >= self._next_slice_ns:
            self._turn(now_ns)
        self._under_way += 1

    def end(self) -> None:
        """A task that has begun has ended. It is counted in the tenth in which the last one began: never for longer
        than it should be."""
        self._under_way -= 1
        self._ended_lately += 1

    def left(self, now_ns: int) -> int:
        """How many retries may be made now."""
        if now_ns >= self._next_slice_ns:
            self._turn(now_ns)
        config = self._config
        allowed = int(config.floor + config.share * (self._under_way + self._sum_ended + self._ended_lately))
        return max(0, allowed - self._sum_spent - self._spent_lately - self._kept_back)

    def is_used_up(self, now_ns: int) -> bool:
        """Whether no retry may be made now."""
        if now_ns >= self._next_slice_ns:
            self._turn(now_ns)
        if not (self._sum_spent or self._spent_lately or self._kept_back) and self._config.floor:
            return False
        return not self.left(now_ns)

    def spend(self, retries: int, now_ns: int) -> None:
        """So many were made, here or by an orchestrator below."""
        if now_ns >= self._next_slice_ns:
            self._turn(now_ns)
        self._spent_lately += retries

    def keep_back(self, retries: int) -> None:
        """An orchestrator below may make so many."""
        self._kept_back += retries

    def give_back(self, retries: int) -> None:
        """It will make them no more: what it has made is to be spent beside."""
        self._kept_back -= retries

    def _turn(self, now_ns: int) -> None:
        """Begin the tenth that it is now."""
        over = 1 + (now_ns - self._next_slice_ns) // self._slice_ns
        self._next_slice_ns += over * self._slice_ns
        for _ in range(min(over, SLICES + 1)):
            self._sum_ended += self._ended_lately - self._ended[0]
            self._sum_spent += self._spent_lately - self._spent[0]
            self._ended.append(self._ended_lately)
            self._spent.append(self._spent_lately)
            self._ended_lately = self._spent_lately = 0


class RetryBudgets:
    """One `RetryBudget` for each model and tenant."""

    def __init__(self, config: RetryConfig) -> None:
        self._config = config
        self._budgets: OrderedDict[tuple[str, str], RetryBudget] = OrderedDict()
        self._model, self._tenant, self._last = "", "", RetryBudget(config)
        """What was asked for last; nobody has asked for this one."""

    def of(self, model: str, tenant: str) -> RetryBudget:
        if model == self._model and tenant == self._tenant:
            return self._last
        budgets, key = self._budgets, (model, tenant)
        budget = budgets.get(key)
        if budget is None:
            budget = budgets[key] = RetryBudget(self._config)
            if len(budgets) > MAX_BUDGETS:
                budgets.popitem(last=False)
        else:
            budgets.move_to_end(key)
        self._model, self._tenant, self._last = model, tenant, budget
        return budget

    def stats(self, now_ns: int) -> dict[str, int]:
        """How many budgets there are, and how many retries the one with the fewest has left."""
        left = [each.left(now_ns) for each in self._budgets.values()]
        return {"budgets": len(left), "least_left": min(left, default=0)}
