"""Agents that offer the same, and the views of them that selectors get."""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import get_args

import msgspec

from anywire.messages import Kind
from anywire.offers import Offer
from anywire.selector import AgentView, Candidates

FEW = 16
"""So many free agents are sorted by load when a selector asks; of more, the order is kept as loads change."""

PASSED_OVER = 16
"""So many agents are passed over in the order of all in the time in which one more group's order is merged."""

KINDS: tuple[str, ...] = get_args(Kind)

Names = tuple[str, tuple[str, ...]]
"""What makes a group: the text of the offers, and the capabilities."""

Place = tuple[float, int, int, AgentView]
"""A `rank` and whose it is. No two have the same ordinal, so the order of places is that of ranks, without a call."""


class Member(msgspec.Struct, eq=False):
    """An agent in the registry: its view, its links, and the one in use."""

    view: AgentView
    links: set[int]
    link: int
    group: Group | None = None
    free: bool = False
    ready: bool = False
    slots: int = 0
    is_barred: bool = False
    """Whether it serves nobody, whatever it says: it is quarantined, or an operator has ordered it."""
    room: int | None = None
    """Slots that it has been given so far, where it begins slowly."""
    models: tuple[str, ...] = ()
    """``ready``, ``slots`` and ``models`` as they are in the totals."""
    place: Place | tuple[()] = ()
    """Its place in the order of loads, as it stands there."""

    def load_changed(self) -> None:
        """It is free, and its load is another one, while orders of loads are kept."""
        view, old, group = self.view, self.place, self.group
        assert group is not None
        self.place = new = (view.in_flight / (view.status.slots or 1), view.last_sent, view.ordinal, view)
        loads = group.loads
        if loads is not None:
            # The one that got a task was most often the first.
            del loads[0 if loads[0] is old else bisect_left(loads, old)]
            insort(loads, new)
        group.orders.moved(old, new)


def rank(agent: AgentView) -> tuple[float, int, int]:
    """By `AgentView.load`, of equals the one that got a task longest ago."""
    return agent.in_flight / (agent.status.slots or 1), agent.last_sent, agent.ordinal


def _place(agent: AgentView) -> Place:
    return agent.in_flight / (agent.status.slots or 1), agent.last_sent, agent.ordinal, agent


def by_ordinal(agent: AgentView) -> int:
    return agent.ordinal


class Orders:
    """What all groups share: every agent in one of them by id (``members``), and the order of loads of all that are
    free, once it is asked for. ``kept``: this order or some group's is kept up to date, and must be told of each
    change."""

    __slots__ = ("_loads", "kept", "members")

    def __init__(self) -> None:
        self.kept = False
        self.members: dict[str, Member] = {}
        self._loads: list[Place] | None = None

    def by_load(self) -> list[Place]:
        if self._loads is None:
            self._loads = self.sorted(member for member in self.members.values() if member.free)
        return self._loads

    def sorted(self, members: Iterable[Member]) -> list[Place]:
        """In the order of their loads, which is kept from now on. Who has a place in another order has the same one
        here: they are brought in line with its load together."""
        self.kept = True
        places = []
        for member in members:
            member.place = place = member.place or _place(member.view)
            places.append(place)
        places.sort()
        return places

    def moved(self, old: Place | tuple[()], new: Place | None) -> None:
        """A free agent has another place now, or none, or it is free now and had none."""
        if self._loads is not None:
            _move(self._loads, old, new)


class Group:
    """Agents with the same offers and capabilities. ``free`` are those that can take a task now, by ordinal; ``slots``
    counts those of all that are ready."""

    __slots__ = ("_views", "free", "loads", "members", "names", "offers", "orders", "slots")

    def __init__(self, names: Names, offered: tuple[Offer, ...], orders: Orders) -> None:
        self.names, self.orders = names, orders
        kinds = tuple(dict.fromkeys(each for each in names[1] if each in KINDS))
        self.offers: dict[tuple[str, str], Offer] = {
            (offer.model, kind): offer for offer in offered for kind in offer.kinds or kinds
        }
        self.members: dict[str, Member] = {}
        self.free: list[AgentView] = []
        self.slots = 0
        self.loads: list[Place] | None = None
        self._views: list[GroupsView] = []

    def keep(self, view: GroupsView) -> None:
        """Tell a view of several groups from now on who is free."""
        # All views are closed at once.
        if self._views and self._views[0].closed:
            self._views.clear()
        self._views.append(view)

    def lacks(self, served: tuple[str, str], needs: tuple[str, ...]) -> bool:
        """Whether its offer has not all that is needed."""
        return any(map(self.offers[served].lacks, needs))

    def does_all_of(self, other: Group, served: tuple[str, str]) -> bool:
        """Whether it does every such task that ``other`` does, whatever it needs."""
        mine, theirs = self.offers[served], other.offers[served]
        named = (*mine.features, *theirs.features)
        return not any(mine.lacks(need) and not theirs.lacks(need) for need in named)

    def add_free(self, member: Member) -> None:
        insort(self.free, member.view, key=by_ordinal)
        for view in self._views:
            view.add_free(member.view)
        if self.orders.kept:
            self._move(member, _place(member.view))

    def remove_free(self, member: Member) -> None:
        del self.free[bisect_left(self.free, member.view.ordinal, key=by_ordinal)]
        for view in self._views:
            view.remove_free(member.view)
        if self.orders.kept:
            self._move(member, None)

    def by_load(self) -> Iterator[AgentView]:
        if len(self.free) <= FEW:
            return iter(sorted(self.free, key=rank)) if len(self.free) > 1 else iter(self.free)
        if self.loads is None:
            self.loads = self.orders.sorted(self.members[agent.agent_id] for agent in self.free)
        return (place[3] for place in self.loads)

    def _move(self, member: Member, new: Place | None) -> None:
        old, member.place = member.place, new or ()
        if self.loads is not None:
            _move(self.loads, old, new)
        self.orders.moved(old, new)


def _move(loads: list[Place], old: Place | tuple[()], new: Place | None) -> None:
    if old:
        del loads[bisect_left(loads, old)]
    if new:
        insort(loads, new)


class GroupsView:
    """`anywire.selector.Candidates` over groups, as they are now. ``free`` are those that can take a task: the list of
    a group that is alone, or one of its own of several groups, in no order, so that nothing but iterating looks at each
    group. ``closed``: that one is not kept any more."""

    __slots__ = ("_among", "_at", "_orders", "closed", "free", "groups")

    def __init__(self, groups: Sequence[Group], orders: Orders) -> None:
        self.groups, self._among, self._orders = groups, frozenset(groups), orders
        self.closed = False
        self.free: list[AgentView] = groups[0].free if len(groups) == 1 else []
        self._at: dict[str, int] = {}
        if len(groups) > 1:
            for group in groups:
                group.keep(self)
                for agent in group.free:
                    self.add_free(agent)

    def close(self) -> None:
        """Its groups are others from now on: whoever still has it sees those that it had."""
        self.closed = len(self.groups) > 1

    def add_free(self, agent: AgentView) -> None:
        if self.closed:  # only some of its groups may still know it
            return
        self._at[agent.agent_id] = len(self.free)
        self.free.append(agent)

    def remove_free(self, agent: AgentView) -> None:
        if self.closed:
            return
        last = self.free.pop()
        at = self._at.pop(agent.agent_id)
        if last is not agent:
            self.free[at], self._at[last.agent_id] = last, at

    def __bool__(self) -> bool:
        return bool(self.free if not self.closed else self._agents())

    def __len__(self) -> int:
        return len(self.free if not self.closed else self._agents())

    def __iter__(self) -> Iterator[AgentView]:
        groups = self.groups
        if len(groups) == 1:
            return iter(groups[0].free)
        if len(groups) <= FEW:
            return merge(*(group.free for group in groups), key=by_ordinal)
        return iter(sorted(self._agents(), key=by_ordinal))

    def get(self, agent_id: str) -> AgentView | None:
        member = self._orders.members.get(agent_id)
        if member is None or not member.free or member.group not in self._among:
            return None
        return member.view

    def has_others(self, agent_ids: Iterable[str]) -> bool:
        """Whether somebody who is ready serves it, be it busy, beside these agents."""
        members = self._orders.members
        theirs = sum(
            members[agent_id].slots
            for agent_id in agent_ids
            if agent_id in members and members[agent_id].group in self._among
        )
        return theirs < sum(group.slots for group in self.groups)

    def by_load(self) -> Iterator[AgentView]:
        groups = self.groups
        if len(groups) == 1:
            return groups[0].by_load()
        free, members = self._agents(), len(self._orders.members)
        if len(free) <= FEW:
            return iter(sorted(free, key=rank))
        if members > PASSED_OVER * len(groups):
            return merge(*(group.by_load() for group in groups), key=rank)
        if members > PASSED_OVER * len(free):
            return iter(sorted(free, key=rank))
        all_members, among = self._orders.members, self._among
        return (place[3] for place in self._orders.by_load() if all_members[place[3].agent_id].group in among)

    def sample(self, k: int, rng: random.Random) -> Sequence[AgentView]:
        free = self._agents()
        return [free[index] for index in rng.sample(range(len(free)), min(k, len(free)))]

    def some(self, count: int) -> list[AgentView]:
        """At most so many of them, by ordinal; of more, any."""
        agents = self._agents()[:count]
        return agents if len(self.groups) == 1 else sorted(agents, key=by_ordinal)

    def _agents(self) -> list[AgentView]:
        return self.free if not self.closed else [agent for group in self.groups for agent in group.free]


NOBODY = GroupsView((), Orders())


class Without:
    """`anywire.selector.Candidates` without some of them. What it costs depends on how many are left out, and not on
    how many there are."""

    __slots__ = ("_candidates", "left_out")

    def __init__(self, candidates: Candidates, left_out: Iterable[str]) -> None:
        self._candidates = candidates
        self.left_out = {each: agent for each in left_out if (agent := candidates.get(each)) is not None}
        """Those that would be there, by id."""

    def __len__(self) -> int:
        return len(self._candidates) - len(self.left_out)

    def __iter__(self) -> Iterator[AgentView]:
        return (agent for agent in self._candidates if agent.agent_id not in self.left_out)

    def get(self, agent_id: str) -> AgentView | None:
        return None if agent_id in self.left_out else self._candidates.get(agent_id)

    def by_load(self) -> Iterator[AgentView]:
        return (agent for agent in self._candidates.by_load() if agent.agent_id not in self.left_out)

    def some(self, count: int) -> list[AgentView]:
        """See `some`."""
        found = some(self._candidates, count + len(self.left_out))
        return [agent for agent in found if agent.agent_id not in self.left_out][:count]

    def sample(self, k: int, rng: random.Random) -> Sequence[AgentView]:
        drawn = self._candidates.sample(k + len(self.left_out), rng)
        return [agent for agent in drawn if agent.agent_id not in self.left_out][:k]


def some(candidates: Candidates, count: int) -> Iterable[AgentView]:
    """At most so many of them, by ordinal: the first ones, or any where finding the first ones would cost a look at
    each group."""
    if type(candidates) is GroupsView:
        return candidates.some(count)
    if type(candidates) is Without:
        return candidates.some(count)
    return islice(candidates, count)


def has_others(candidates: Candidates, agent_ids: Collection[str]) -> bool:
    """Whether there is one beside these agents."""
    return len(candidates) > len(agent_ids) or any(agent.agent_id not in agent_ids for agent in candidates)


def least_loaded(candidates: Candidates) -> AgentView | None:
    """The built-in choice: the smallest load, of equals the one that got a task longest ago. None when the last one has
    gone while a plugin was asked."""
    return next(candidates.by_load(), None)
