"""Who could take what, kept up to date as agents change and never recomputed per task.

Agents that serve the same models in the same kinds form a group. When a slot is taken or freed, one group's list
changes, however many models its agents serve.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, OrderedDict
from collections.abc import Sequence
from heapq import merge
from typing import Protocol

import msgspec

from anywire.pipeline.health import Health
from anywire.scheduler import QueueKey
from anywire.selector import AgentView

REMEMBERED_KEYS = 4096
"""Keys that nobody serves now and somebody did: a task for one of them waits for an agent to come back."""
DEPTH = "orchestrators"
"""The gauge by which an orchestrator that joins another tells how many are below each other, itself included."""

_NOBODY: Sequence[AgentView] = ()


class KeysSink(Protocol):
    def served(self, keys: Sequence[QueueKey]) -> None: ...
    def unserved(self, keys: Sequence[QueueKey]) -> None: ...


class _Group:
    """Agents that serve the same ``keys``; ``free`` are those that can take a task now, by ordinal."""

    __slots__ = ("free", "keys", "members", "names")

    def __init__(self, names: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
        models, kinds = self.names = names
        self.keys = tuple(QueueKey(model, kind) for model in models for kind in dict.fromkeys(kinds))
        self.members: dict[str, AgentView] = {}
        self.free: list[AgentView] = []


class Member(msgspec.Struct, eq=False):
    """An agent in the registry: its view, its links, and the one in use."""

    view: AgentView
    links: set[int]
    link: int
    group: _Group | None = None
    free: bool = False
    ready: bool = False
    slots: int = 0
    models: tuple[str, ...] = ()
    """``ready``, ``slots`` and ``models`` as they are in the totals."""


def _ordinal(agent: AgentView) -> int:
    return agent.ordinal


class Candidates:
    def __init__(self, health: Health, sink: KeysSink) -> None:
        self._health, self._sink = health, sink
        self._groups: dict[tuple[tuple[str, ...], tuple[str, ...]], _Group] = {}
        self._by_key: dict[QueueKey, list[_Group]] = {}
        self._formerly: OrderedDict[QueueKey, None] = OrderedDict()
        self._models: Counter[str] = Counter()
        self._ready_models: list[str] = []
        self.ready = self.ready_slots = 0
        """Agents that are ready, and their slots together."""
        self._depths: dict[str, float] = {}

    def candidates(self, key: QueueKey) -> Sequence[AgentView]:
        """Those that can take such a task now, by ordinal. An agent that cools down is left out while another one that
        serves ``key`` does not."""
        groups = self._by_key.get(key)
        if groups is None:
            return _NOBODY
        free: Sequence[AgentView] = (
            groups[0].free if len(groups) == 1 else list(merge(*(group.free for group in groups), key=_ordinal))
        )
        if self._health.all_ok or not free:
            return free
        resting = self._health.resting
        rested = [agent for agent in free if not resting(agent.agent_id)]
        if len(rested) == len(free):
            return free
        if rested or any(not resting(agent_id) for group in groups for agent_id in group.members):
            return rested
        return free

    def serves(self, key: QueueKey) -> bool:
        return key in self._by_key

    def served_ever(self, key: QueueKey) -> bool:
        return key in self._by_key or key in self._formerly

    def models(self) -> list[str]:
        return sorted({key.model for key in self._by_key})

    def ready_models(self) -> tuple[str, ...]:
        return tuple(self._ready_models)

    @property
    def depth(self) -> float:
        """The most orchestrators that any agent here has below each other."""
        return max(self._depths.values(), default=0.0)

    # What the registry tells

    def changed(self, member: Member) -> None:
        """Its state, models or slots changed: bring the lists in line. `update` follows."""
        view, status = member.view, member.view.status
        models = status.models if status.state != "failed" else ()
        old = member.group
        names = (models, view.info.capabilities)
        if old is None or self._groups.get(names) is not old:
            gone: list[QueueKey] = []
            if old is not None:
                gone = self._leave(member, old)
            came = self._enter(member, names) if models else []
            if served := [key for key in came if key not in gone]:
                self._sink.served(served)
            if unserved := [key for key in gone if key not in self._by_key]:
                self._sink.unserved(unserved)
        self._account(member, status.state == "ready", status.slots, models)
        depth = status.resources.get(DEPTH)
        if depth is not None:
            self._depths[view.agent_id] = depth

    def removed(self, member: Member) -> None:
        gone = self._leave(member, member.group) if member.group is not None else []
        self._account(member, False, 0, ())
        self._depths.pop(member.view.agent_id, None)
        if gone:
            self._sink.unserved(gone)

    def update(self, member: Member) -> bool:
        """Bring its place among the free ones in line; whether it has become one."""
        view, group = member.view, member.group
        status = view.status
        free = group is not None and status.state == "ready" and not view.unavailable and view.in_flight < status.slots
        if free == member.free or group is None:
            return False
        member.free = free
        if free:
            insort(group.free, view, key=_ordinal)
        else:
            del group.free[bisect_left(group.free, view.ordinal, key=_ordinal)]
        return free

    # Inside

    def _enter(self, member: Member, names: tuple[tuple[str, ...], tuple[str, ...]]) -> list[QueueKey]:
        """The keys that nobody served before."""
        group = self._groups.get(names)
        came: list[QueueKey] = []
        if group is None:
            self._groups[names] = group = _Group(names)
            for key in group.keys:
                groups = self._by_key.get(key)
                if groups is None:
                    self._by_key[key] = [group]
                    self._formerly.pop(key, None)
                    came.append(key)
                else:
                    groups.append(group)
        group.members[member.view.agent_id] = member.view
        member.group = group
        return came

    def _leave(self, member: Member, group: _Group) -> list[QueueKey]:
        """The keys that nobody serves any more."""
        view = member.view
        if member.free:
            member.free = False
            del group.free[bisect_left(group.free, view.ordinal, key=_ordinal)]
        member.group = None
        group.members.pop(view.agent_id, None)
        if group.members:
            return []
        del self._groups[group.names]
        gone = []
        for key in group.keys:
            groups = self._by_key[key]
            groups.remove(group)
            if not groups:
                del self._by_key[key]
                self._formerly[key] = None
                gone.append(key)
        while len(self._formerly) > REMEMBERED_KEYS:
            self._formerly.popitem(last=False)
        return gone

    def _account(self, member: Member, ready: bool, slots: int, models: tuple[str, ...]) -> None:
        """Keep the totals of the ready agents."""
        if not ready:
            slots, models = 0, ()
        self.ready += ready - member.ready
        self.ready_slots += slots - member.slots
        if models != member.models:
            for model in member.models:
                self._models[model] -= 1
                if not self._models[model]:
                    del self._models[model]
                    del self._ready_models[bisect_left(self._ready_models, model)]
            for model in models:
                if not self._models[model]:
                    insort(self._ready_models, model)
                self._models[model] += 1
        member.ready, member.slots, member.models = ready, slots, models
