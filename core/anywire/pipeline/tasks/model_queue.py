"""The tasks that wait for one model: how fast they leave, how long a new one would wait, and when refused clients are
to come back.

**The prediction.** A new task waits for those that wait already for its model (where the scheduler goes by priority,
for those of them whose priority is not below its own), each for the mean time between two tasks that leave the queue:
``(ahead + 1) * interval``. The interval is measured while tasks wait, from one that is sent to the next, as a mean of
the last `MEMORY` or so. There is no prediction before `LEAST` were measured, nor when nobody has waited for `STALE`
seconds. It knows nothing of the lengths of the requests ahead, nor of a scheduler that goes by something else than
order and priority (fairness, deadlines): for those it tells what the mean of all waits. How long the answer itself
takes once it is sent is the mean of the last ones of the model, in proportion to their tokens where the request allows
fewer; one that was given up counts for as long as it ran, where that is more than the mean. How far the prediction was
off is counted for each task that was sent (`anywire.pipeline.queue.waiting.Waiting.stats`); a task that ended in the
queue says nothing.
"""

from __future__ import annotations

import random
from collections import Counter

LEAST = 8
"""Tasks that must have left the queue before anything is predicted."""
LEAST_ANSWERS = 4
"""Answers that must have been measured before it is said how long one takes."""
TRIED_AGAIN = 4
"""Answers' times without one after which a task is sent although it is not expected to be answered in time: how else
would it be known that answers are quicker than before."""
MEMORY = 32
"""Tasks over which the mean is taken."""
STALE = 300.0
"""Seconds without anybody waiting after which what was measured before says nothing."""
LONGEST = 30.0
"""Seconds that a refused client is told to wait at most, spread. OpenAI's clients wait up to 60 for a limit."""
SHORTEST = 0.05
UNKNOWN_INTERVAL = 1.0
"""Seconds between two tasks that leave the queue of one slot, where nothing is measured yet."""


class ModelQueue:
    """The tasks that wait for one model."""

    def __init__(self) -> None:
        self.waiting = 0
        self.priorities: Counter[int] = Counter()
        """How many of them have which priority."""
        self.interval = 0.0
        self.measured = 0
        self._answers, self._answer_s, self._answer_tokens, self._answered_at = 0, 0.0, 0.0, 0.0
        self._since = self._empty_since = 0.0
        self._returns = 0.0
        """When the last one that was refused is to come back."""

    def entered(self, now: float, priority: int) -> None:
        if not self.waiting:
            self._since = now
            if self.measured and now - self._empty_since > STALE:
                self.measured = 0
        self.waiting += 1
        self.priorities[priority] += 1

    def left(self, now: float, priority: int, sent: bool) -> None:
        self.waiting -= 1
        self.priorities[priority] -= 1
        if not self.priorities[priority]:
            del self.priorities[priority]
        if sent:
            self.measured += 1
            self.interval += (now - self._since - self.interval) / min(self.measured, MEMORY)
            self._since = now
        if not self.waiting:
            self._empty_since = now

    def answered(self, now: float, seconds: float, tokens: int) -> None:
        """A task was answered with so many tokens, so long after it was sent."""
        self._answers += 1
        self._answered_at = now
        weight = 1 / min(self._answers, MEMORY)
        self._answer_s += weight * (seconds - self._answer_s)
        self._answer_tokens += weight * (tokens - self._answer_tokens)

    def given_up(self, now: float, seconds: float) -> None:
        """A task was not answered within so long after it was sent."""
        if seconds >= self._answer_s:
            self._answers += 1
            self._answered_at = now
            self._answer_s += (seconds - self._answer_s) / min(self._answers, MEMORY)

    def is_too_late(self, now: float, left: float, max_tokens: int) -> bool:
        """Whether a task that is sent now would not be answered in the seconds that are left."""
        takes = self.answer_time(max_tokens)
        return takes > left and now - self._answered_at < TRIED_AGAIN * self._answer_s

    def answer_time(self, max_tokens: int) -> float:
        """Seconds that an answer of at most ``max_tokens`` (0: any length) takes; 0 before `LEAST_ANSWERS`."""
        if self._answers < LEAST_ANSWERS:
            return 0.0
        shorter = 0 < max_tokens < self._answer_tokens
        return self._answer_s * (max_tokens / self._answer_tokens if shorter else 1.0)

    def ahead(self, priority: int, by_priority: bool) -> int:
        """How many go before a new task, where they go ``by_priority`` or in their order."""
        if not by_priority or len(self.priorities) < 2:
            return self.waiting
        return sum(number for each, number in self.priorities.items() if each >= priority)

    def wait_of_next(self, ahead: int) -> float | None:
        """Seconds that a new task with so many ahead of it would wait; None when that is not known."""
        return (ahead + 1) * self.interval if self.measured >= LEAST else None

    def come_back(self, now: float, slots: int, rng: random.Random) -> float:
        """Seconds after which one that is refused now is to come back: one after the other, as fast as tasks leave the
        queue of ``slots``, in random order within an interval; where so many are to come back that the last one would
        wait too long, at random within `LONGEST`."""
        interval = self.interval if self.measured >= LEAST else UNKNOWN_INTERVAL / max(1, slots)
        self._returns = max(now, self._returns) + interval
        if self._returns > now + LONGEST:
            self._returns = now + LONGEST
            return rng.uniform(SHORTEST, LONGEST)
        return max(SHORTEST, self._returns - now - rng.random() * interval)


class Wait:
    """One task that waits. ``queue`` is that of its first model, None while it is held for a service."""

    __slots__ = ("predicted", "queue", "since")

    def __init__(self, queue: ModelQueue | None, since: float, predicted: float | None) -> None:
        self.queue, self.since, self.predicted = queue, since, predicted
