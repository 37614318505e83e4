"""Queues in order of rank, one for each set of keys."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any, Generic, TypeVar

from anywire.scheduler import QueueKey, Ready

Item = TypeVar("Item")
Keys = tuple[QueueKey, ...]
Rank = tuple[Any, ...]
"""Ranks that are compared with each other have the same types in the same places."""


class RankedQueues(Generic[Item]):
    """Items by the keys of tasks; in each queue the one of the smallest rank first, of equals the one that was added
    first. An item that is removed leaves nothing behind.

    With n items in a queue, `add` and `remove` cost O(log n) comparisons and the moving of n references, some
    microseconds for 10,000; `first` costs a look at each set of keys.
    """

    __slots__ = ("_queues",)

    def __init__(self) -> None:
        self._queues: dict[Keys, tuple[list[Rank], list[Item]]] = {}

    def add(self, keys: Keys, rank: Rank, item: Item) -> None:
        queue = self._queues.get(keys)
        if queue is None:
            queue = self._queues[keys] = ([], [])
        ranks, items = queue
        at = bisect_right(ranks, rank)
        ranks.insert(at, rank)
        items.insert(at, item)

    def remove(self, keys: Keys, rank: Rank, item: Item) -> None:
        """Remove what was added with these arguments. Raises IndexError or KeyError when it is not there."""
        ranks, items = self._queues[keys]
        at = bisect_left(ranks, rank)
        while items[at] is not item:
            at += 1
        del ranks[at], items[at]
        if not items:
            del self._queues[keys]

    def first(self, ready: Ready, below: Rank | None = None) -> Item | None:
        """The item of the smallest rank among those for whose keys ``ready`` is true; None when there is none, or none
        whose rank is less than ``below``. ``ready`` is asked only for keys that could win."""
        best, found = below, None
        for keys, (ranks, items) in self._queues.items():
            if (best is None or ranks[0] < best) and ready(keys):
                best, found = ranks[0], items[0]
        return found


def asked_once(ready: Ready) -> Ready:
    """``ready`` for a scheduler that needs its answer several times in one `Scheduler.take`: it is asked once for the
    same keys."""
    answers: dict[Keys, bool] = {}

    def answer(keys: Keys) -> bool:
        known = answers.get(keys)
        if known is None:
            known = answers[keys] = ready(keys)
        return known

    return answer
