"""How many further attempts all tasks together may cost: a share of the tasks plus a floor, for each model and tenant,
within a window (Finagle's retry budget; Envoy's is a share of what is under way).

Time is counted in tenths of the window. Within any window at most ``floor`` attempts are made beyond ``share`` of the
tasks that were taken in during it and the tenth before.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from anywire.failure_settings import RetryConfig

SLICES = 10
MAX_BUDGETS = 4096
"""Pairs of model and tenant; the one that was used longest ago is forgotten."""


class Budget:
    """Of one model and tenant. ``now_ns`` is monotonic."""

    __slots__ = ("_config", "_retries", "_slice", "_slice_ns", "_sum_retries", "_sum_tasks", "_tasks")

    def __init__(self, config: RetryConfig) -> None:
        self._config = config
        self._slice_ns = max(1, int(config.window * 1e9 / SLICES))
        self._slice = self._sum_tasks = self._sum_retries = 0
        self._tasks = deque([0] * (SLICES + 1), maxlen=SLICES + 1)
        self._retries = deque([0] * (SLICES + 1), maxlen=SLICES + 1)

    def task(self, now_ns: int) -> None:
        """A task was taken in."""
        if now_ns // self._slice_ns != self._slice:
            self._turn(now_ns)
        self._tasks[-1] += 1
        self._sum_tasks += 1

    def left(self, now_ns: int) -> int:
        """How many further attempts may be made now."""
        if now_ns // self._slice_ns != self._slice:
            self._turn(now_ns)
        return max(0, int(self._config.floor + self._config.share * self._sum_tasks) - self._sum_retries)

    def spend(self, attempts: int, now_ns: int) -> None:
        """So many were made, here or by an orchestrator below."""
        if now_ns // self._slice_ns != self._slice:
            self._turn(now_ns)
        self._retries[-1] += attempts
        self._sum_retries += attempts

    def _turn(self, now_ns: int) -> None:
        at = now_ns // self._slice_ns
        for _ in range(min(max(0, at - self._slice), SLICES + 1)):
            self._sum_tasks -= self._tasks[0]
            self._sum_retries -= self._retries[0]
            self._tasks.append(0)
            self._retries.append(0)
        self._slice = at


class RetryBudgets:
    """One `Budget` for each model and tenant."""

    def __init__(self, config: RetryConfig) -> None:
        self._config = config
        self._budgets: OrderedDict[tuple[str, str], Budget] = OrderedDict()

    def of(self, model: str, tenant: str) -> Budget:
        budgets, key = self._budgets, (model, tenant)
        budget = budgets.get(key)
        if budget is None:
            budget = budgets[key] = Budget(self._config)
            if len(budgets) > MAX_BUDGETS:
                budgets.popitem(last=False)
        else:
            budgets.move_to_end(key)
        return budget
