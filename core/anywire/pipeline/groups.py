"""Agents that offer the same, and the views of them that selectors get."""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
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


class Member(msgspec.Struct, eq=False):
    """An agent in the registry: its view, its links, and the one in use."""

    view: AgentView
    links: set[int]
    link: int
    group: Group | None = None
    free: bool = False
    ready: bool = False
    slots: int = 0
    models: tuple[str, ...] = ()
    """``ready``, ``slots`` and ``models`` as they are in the totals."""
    rank: tuple[float, int, int] = (0.0, 0, 0)
    """Its place in the order of loads, as it stands there."""


def rank(agent: AgentView) -> tuple[float, int, int]:
    """By `AgentView.load`, of equals the one that got a task longest ago."""
    return agent.in_flight / (agent.status.slots or 1), agent.last_sent, agent.ordinal


def by_ordinal(agent: AgentView) -> int:
    return agent.ordinal


def _by_rank(member: Member) -> tuple[float, int, int]:
    return member.rank


class Orders:
    """What all groups share: every agent in one of them by id (``members``), and the order of loads of all that are
    free, once it is asked for. ``kept``: this order or some group's is kept up to date, and must be told of each
    change."""

    __slots__ = ("_loads", "kept", "members")

    def __init__(self) -> None:
        self.kept = False
        self.members: dict[str, Member] = {}
        self._loads: list[Member] | None = None

    def by_load(self) -> list[Member]:
        if self._loads is None:
            self._loads = self.sorted(member for member in self.members.values() if member.free)
        return self._loads

    def sorted(self, members: Iterable[Member]) -> list[Member]:
        """In the order of their loads, which is kept from now on."""
        self.kept = True
        members = list(members)
        for member in members:
            member.rank = rank(member.view)
        return sorted(members, key=_by_rank)

    def add_free(self, member: Member) -> None:
        if self._loads is not None:
            insort(self._loads, member, key=_by_rank)

    def remove_free(self, member: Member) -> None:
        if self._loads is not None:
            del self._loads[bisect_left(self._loads, member.rank, key=_by_rank)]


class Group:
    """Agents with the same offers and capabilities. ``free`` are those that can take a task now, by ordinal."""

    __slots__ = ("_loads", "_orders", "free", "members", "names", "offers")

    def __init__(self, names: Names, offered: tuple[Offer, ...], orders: Orders) -> None:
        self.names, self._orders = names, orders
        kinds = tuple(dict.fromkeys(each for each in names[1] if each in KINDS))
        self.offers: dict[tuple[str, str], Offer] = {
            (offer.model, kind): offer for offer in offered for kind in offer.kinds or kinds
        }
        self.members: dict[str, Member] = {}
        self.free: list[AgentView] = []
        self._loads: list[Member] | None = None

    def lacks(self, served: tuple[str, str], needs: tuple[str, ...]) -> bool:
        """Whether its offer says no to one of the needs."""
        features = self.offers[served].features
        return any(features.get(need) is False for need in needs)

    def does_all_of(self, other: Group, served: tuple[str, str]) -> bool:
        """Whether it does every such task that ``other`` does, whatever it needs."""
        theirs = other.offers[served].features
        return all(does or theirs.get(need) is False for need, does in self.offers[served].features.items())

    def add_free(self, member: Member) -> None:
        insort(self.free, member.view, key=by_ordinal)
        if self._orders.kept:
            self._add_load(member)

    def remove_free(self, member: Member) -> None:
        del self.free[bisect_left(self.free, member.view.ordinal, key=by_ordinal)]
        if self._orders.kept:
            self._remove_load(member)

    def load_changed(self, member: Member) -> None:
        """A free agent's load is another one."""
        if self._orders.kept:
            self._remove_load(member)
            self._add_load(member)

    def by_load(self) -> Iterator[AgentView]:
        if len(self.free) <= FEW:
            return iter(sorted(self.free, key=rank)) if len(self.free) > 1 else iter(self.free)
        if self._loads is None:
            self._loads = self._orders.sorted(self.members[agent.agent_id] for agent in self.free)
        return (member.view for member in self._loads)

    def _add_load(self, member: Member) -> None:
        member.rank = rank(member.view)
        if self._loads is not None:
            insort(self._loads, member, key=_by_rank)
        self._orders.add_free(member)

    def _remove_load(self, member: Member) -> None:
        if self._loads is not None:
            del self._loads[bisect_left(self._loads, member.rank, key=_by_rank)]
        self._orders.remove_free(member)


class GroupsView:
    """`anywire.selector.Candidates` over groups, as they are now."""

    __slots__ = ("_among", "_orders", "groups")

    def __init__(self, groups: Sequence[Group], orders: Orders) -> None:
        self.groups, self._among, self._orders = groups, frozenset(groups), orders

    def __bool__(self) -> bool:
        return any(group.free for group in self.groups)

    def __len__(self) -> int:
        groups = self.groups
        return len(groups[0].free) if len(groups) == 1 else sum(len(group.free) for group in groups)

    def __iter__(self) -> Iterator[AgentView]:
        groups = self.groups
        if len(groups) == 1:
            return iter(groups[0].free)
        return merge(*(group.free for group in groups), key=by_ordinal)

    def get(self, agent_id: str) -> AgentView | None:
        member = self._orders.members.get(agent_id)
        if member is None or not member.free or member.group not in self._among:
            return None
        return member.view

    def has_others(self, agent_ids: Iterable[str]) -> bool:
        """Whether somebody serves it, be it busy, beside these agents."""
        members = self._orders.members
        known = sum(agent_id in members and members[agent_id].group in self._among for agent_id in agent_ids)
        return known < sum(len(group.members) for group in self.groups)

    def by_load(self) -> Iterator[AgentView]:
        groups = self.groups
        if len(groups) == 1:
            return groups[0].by_load()
        if len(self._orders.members) <= PASSED_OVER * len(groups):
            return (member.view for member in self._orders.by_load() if member.group in self._among)
        return merge(*(group.by_load() for group in groups), key=rank)

    def sample(self, k: int, rng: random.Random) -> Sequence[AgentView]:
        drawn = []
        for index in rng.sample(range(len(self)), min(k, len(self))):
            for group in self.groups:
                if index < len(group.free):
                    drawn.append(group.free[index])
                    break
                index -= len(group.free)
        return drawn


NOBODY = GroupsView((), Orders())


class Without:
    """`anywire.selector.Candidates` without some of them. What it costs depends on how many are left out, and not on
    how many there are."""

    __slots__ = ("_candidates", "_left_out")

    def __init__(self, candidates: Candidates, left_out: Iterable[str]) -> None:
        self._candidates = candidates
        self._left_out = {agent_id for agent_id in left_out if candidates.get(agent_id) is not None}

    def __len__(self) -> int:
        return len(self._candidates) - len(self._left_out)

    def __iter__(self) -> Iterator[AgentView]:
        return (agent for agent in self._candidates if agent.agent_id not in self._left_out)

    def get(self, agent_id: str) -> AgentView | None:
        return None if agent_id in self._left_out else self._candidates.get(agent_id)

    def by_load(self) -> Iterator[AgentView]:
        return (agent for agent in self._candidates.by_load() if agent.agent_id not in self._left_out)

    def sample(self, k: int, rng: random.Random) -> Sequence[AgentView]:
        drawn = self._candidates.sample(k + len(self._left_out), rng)
        return [agent for agent in drawn if agent.agent_id not in self._left_out][:k]


def least_loaded(candidates: Candidates) -> AgentView | None:
    """The built-in choice: the smallest load, of equals the one that got a task longest ago. None when the last one has
    gone while a plugin was asked."""
    return next(candidates.by_load(), None)
