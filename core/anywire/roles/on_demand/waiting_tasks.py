"""The tasks of the models of one orchestrator: which wait since when, and how many there were at once lately."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable
from itertools import chain


class Peak:
    """The highest value of a number within the last ``window`` seconds. Values that are not the highest any more, and
    cannot become it again, are not kept."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._value = 0
        self._earlier: deque[tuple[float, int]] = deque()
        """When a value ended, and the value: falling from left to right."""

    def set(self, value: int, now: float) -> None:
        """The number is ``value`` from ``now`` on."""
        if value == self._value:
            return
        while self._earlier and self._earlier[-1][1] <= self._value:
            self._earlier.pop()
        self._earlier.append((now, self._value))
        self._value = value

    def highest(self, now: float) -> int:
        while self._earlier and self._earlier[0][0] <= now - self._window:
            self._earlier.popleft()
        return max(self._value, self._earlier[0][1] if self._earlier else 0)

    def falls_in(self, now: float) -> float | None:
        """Seconds until the highest value may be another one; None when it is the number now."""
        if self.highest(now) == self._value:
            return None
        return max(0.0, self._earlier[0][0] + self._window - now)


class WaitingTasks:
    """Every task that has not ended, with its model. Times are seconds of one clock. What is told twice, or of a task
    that is not known, changes nothing."""

    def __init__(self) -> None:
        self._models: dict[str, str] = {}
        self._counts = Counter[str]()
        """How many there are for each model."""
        self._since: dict[str, dict[str, float]] = {}
        """By model, those that wait."""

    def admitted(self, task_id: str, model: str, now: float) -> None:
        if task_id not in self._models:
            self._models[task_id] = model
            self._counts[model] += 1
            self.waits_again(task_id, now)

    def waits_again(self, task_id: str, now: float) -> None:
        if task_id in self._models:
            self._since.setdefault(self._models[task_id], {}).setdefault(task_id, now)

    def is_for(self, task_id: str, model: str) -> None:
        """It is for another model from now on."""
        if task_id in self._models:
            since = self.sent(task_id)
            self._leave(self._models[task_id])
            self._models[task_id] = model
            self._counts[model] += 1
            if since is not None:
                self.waits_again(task_id, since)

    def sent(self, task_id: str) -> float | None:
        """It waits no longer; since when it did."""
        model = self._models.get(task_id, "")
        waiting = self._since.get(model, {})
        since = waiting.pop(task_id, None)
        if since is not None and not waiting:
            del self._since[model]
        return since

    def ended(self, task_id: str) -> None:
        if task_id in self._models:
            self.sent(task_id)
            self._leave(self._models.pop(task_id))

    def at_once(self, models: Iterable[str]) -> int:
        """Tasks of these models that have not ended."""
        return sum(self._counts[model] for model in models if model in self._counts)

    def waiting(self, models: Collection[str]) -> list[float]:
        """Since when tasks of these models wait, the longest first."""
        return sorted(chain.from_iterable(self._since[model].values() for model in models if model in self._since))

    def _leave(self, model: str) -> None:
        self._counts[model] -= 1
        if not self._counts[model]:
            del self._counts[model]
