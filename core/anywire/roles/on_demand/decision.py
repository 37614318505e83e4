"""How many agents are started and which are ended, decided from what is known now: pure functions.

An agent is started for tasks that have waited for `after` seconds and that neither a free slot nor an agent that is
starting will take. It is ended once it was not needed for `idle` seconds: the slots of the others would have been
enough for all tasks that were there at once in this time. What was just needed is therefore not ended, and what is
ended is not started again for the same work. Sorts that serve the same models help each other out with both.

Laws, whatever the state: never more than ``most`` agents on demand; a busy agent is never ended; while tasks wait none
is ended; the slots that are left are no fewer than the tasks at once in the last `idle` seconds; deciding again after a
decision was carried out decides nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

MemberState = Literal["starting", "serving", "away", "leaving"]
"""``starting``: it will take tasks, and does not yet. ``serving``: it takes tasks. ``away``: it is there or was, and
gets none now (it was lost, drained, or fails). ``leaving``: it is being ended."""


class Member(msgspec.Struct, frozen=True):
    """One agent of a sort. ``on_demand`` ones may be ended, the others always run. ``running`` are tasks that it has
    now. ``age`` is the time in seconds since it first served, or since it was started where it never did."""

    agent_id: str
    state: MemberState = "serving"
    on_demand: bool = False
    slots: int = 1
    running: int = 0
    age: float = 0.0


class SortNow(msgspec.Struct, frozen=True):
    """Agents of one sort, and the tasks for them. ``most`` bounds those on demand. ``slots`` are those that one more
    agent would have. ``waiting`` tasks have no agent, the ``overdue`` ones of them for `after` seconds or longer.
    ``peak`` is how many tasks there were at most at once within the last `idle` seconds. ``may_start`` is false for a
    while after one could not be started. ``models`` are those that its agents serve; tasks of a model that several
    sorts serve are counted in each of them."""

    members: Sequence[Member]
    most: int
    slots: int = 1
    waiting: int = 0
    overdue: int = 0
    peak: int = 0
    may_start: bool = True
    models: frozenset[str] = frozenset()

    @property
    def on_demand(self) -> int:
        """Agents on demand that there are, those that are leaving included."""
        return sum(each.on_demand for each in self.members)


class Decision(msgspec.Struct, frozen=True):
    """``start`` says how many agents of each sort, by its place in the list; ``end`` names agents."""

    start: tuple[int, ...]
    end: tuple[str, ...] = ()


def decide(sorts: Sequence[SortNow], most: int, idle: float) -> Decision:
    """What is to be done now. ``most`` bounds the agents on demand of all sorts together. Sorts that come first get
    what is left of it first."""
    left = most - sum(each.on_demand for each in sorts)
    start = [0] * len(sorts)
    for number, each in enumerate(sorts):
        elsewhere = sum(
            _coming(other, idle) + start[place] * other.slots
            for place, other in enumerate(sorts)
            if place != number and other.models & each.models
        )
        start[number] = max(0, min(_missing(each, elsewhere), each.most - each.on_demand, left))
        left -= start[number]
    return Decision(tuple(start), tuple(name for alike in _alike(sorts) for name in _unneeded(alike, idle)))


def _coming(sort: SortNow, within: float) -> int:
    """Slots of agents that started less than ``within`` seconds ago: others do not wait longer for them."""
    return sum(each.slots for each in sort.members if each.state == "starting" and each.age < within)


def _alike(sorts: Sequence[SortNow]) -> list[list[SortNow]]:
    """The sorts, those together that serve the very same models: the agents of one do for the tasks of all."""
    groups: dict[object, list[SortNow]] = {}
    for number, each in enumerate(sorts):
        groups.setdefault(each.models or number, []).append(each)
    return list(groups.values())


def _missing(sort: SortNow, elsewhere: int) -> int:
    """Agents that the overdue tasks lack, where other sorts will have ``elsewhere`` slots for them."""
    if not sort.overdue or not sort.may_start:
        return 0
    serving = [each for each in sort.members if each.state == "serving"]
    if any(each.running < each.slots for each in serving):
        # A slot is free and the task is not there: it waits for something else, which one more agent does not change.
        return 0
    coming = elsewhere + _coming(sort, math.inf)
    return math.ceil(max(0, sort.overdue - coming) / max(1, sort.slots))


def _unneeded(alike: Sequence[SortNow], idle: float) -> list[str]:
    """Those that may be ended of sorts that serve the same models, the newest first."""
    if any(sort.waiting for sort in alike):
        return []
    members = [each for sort in alike for each in sort.members]
    spare = sum(each.slots for each in members if each.state == "serving") - max(sort.peak for sort in alike)
    named = []
    for each in sorted(members, key=lambda each: each.age):
        if not each.on_demand or each.state == "leaving" or each.running or each.age < idle:
            continue
        needs = each.slots if each.state == "serving" else 0
        if spare >= needs:
            spare -= needs
            named.append(each.agent_id)
    return named
