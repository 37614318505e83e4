"""Who could take what, kept up to date as agents change and never recomputed per task.

Agents that offer the same form a group. When a slot is taken or freed, one group's list changes, however many models
its agents offer.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol

from anywire.offers import NAMED_NEED, Offer, read_offers
from anywire.pipeline.fleet.groups import KINDS, NOBODY, Group, GroupsView, Member, Orders, Without
from anywire.pipeline.health.health import Health
from anywire.scheduler import QueueKey
from anywire.selector import AgentView, Candidates

REMEMBERED_KEYS = 4096
"""What nobody serves now and somebody did: a task for it waits for an agent to come back."""
DEPTH = "orchestrators"
"""The gauge by which an orchestrator that joins another tells how many are below each other, itself included."""
_GONE = frozenset(("stopping", "crashed"))

Served = tuple[str, str]
"""A model and a kind of task."""


class ServedSink(Protocol):
    def served(self, served: Sequence[Served]) -> None: ...
    def unserved(self, served: Sequence[Served]) -> None: ...


class Serving:
    """Which agents serve what, and which of them are free."""

    def __init__(self, health: Health, sink: ServedSink) -> None:
        self._health, self._sink = health, sink
        self._groups: dict[tuple[str, tuple[str, ...]], Group] = {}
        self._serving: dict[Served, list[Group]] = {}
        """Those whose agents take such tasks, now or soon."""
        self._views: dict[QueueKey, GroupsView] = {}
        self._stopped: Counter[str] = Counter()
        """Groups that offer a model which has to be started first."""
        self._formerly: OrderedDict[Served, None] = OrderedDict()
        self._models: Counter[str] = Counter()
        self._ready_models: list[str] = []
        self.orders = Orders()
        self.ready = self.ready_slots = 0
        """Agents that are ready, and their slots together."""
        self._depths: dict[str, float] = {}
        self._expected: dict[str, frozenset[str]] = {}

    def candidates(self, key: QueueKey) -> Candidates:
        """Those that can take such a task now, `NOBODY` when there is none. An agent that rests after failures, or
        whose model does, is left out while another one that serves ``key`` does not."""
        view = self._views.get(key)
        if view is None:
            if key[:2] not in self._serving:
                return NOBODY
            view = self._views[key] = self._view(key)
        if not view.free:
            return NOBODY
        if self._health.all_ok:
            return view
        resting = self._health.resting_agents(key.model)
        if not resting:
            return view
        rested = Without(view, resting)
        if len(rested):
            return rested
        if view.has_others(resting):
            return NOBODY
        return view

    def has_others(self, key: QueueKey, agent_ids: Iterable[str]) -> bool:
        """Whether an agent that is ready serves it, be it busy, beside these."""
        view = self._views.get(key)
        if view is None:
            if key[:2] not in self._serving:
                return False
            view = self._views[key] = self._view(key)
        return view.has_others(agent_ids)

    def serves(self, key: QueueKey) -> bool:
        """Whether some agent takes such tasks, now or soon, be it busy."""
        groups = self._serving.get(key[:2])
        if groups is None:
            return False
        return not key.needs or any(not group.lacks(key[:2], key.needs) for group in groups)

    def would_take(self, agent: AgentView, key: QueueKey) -> bool:
        """Whether this agent would be a candidate if one more of its slots were free. One that rests is none."""
        member, served = self.orders.members.get(agent.agent_id), key[:2]
        if member is None or member.view is not agent or member.group is None:
            return False
        offer = member.group.offers.get(served)
        return (
            offer is not None
            and offer.takes_tasks
            and not member.group.lacks(served, key.needs)
            and agent.status.state == "ready"
            and not agent.unavailable
            and agent.in_flight <= _slots(member)
            and agent.agent_id not in self._health.resting_agents(key.model)
        )

    def offered(self, served: Served) -> Iterator[tuple[Offer, tuple[str, ...]]]:
        """The different offers of those that take such tasks, now or soon, with what their agents are capable of."""
        for group in self._serving.get(served, ()):
            yield group.offers[served], group.names[1]

    def slots(self, key: QueueKey) -> int:
        """The slots of all ready agents that serve it."""
        served = key[:2]
        groups = self._serving.get(served, ())
        return sum(group.slots for group in groups if not group.lacks(served, key.needs))

    def may_serve(self, key: QueueKey) -> bool:
        """False when there are agents that serve it, and all of them are about to go."""
        groups = self._serving.get(key[:2])
        return groups is None or any(
            member.view.status.state != "draining" for group in groups for member in group.members.values()
        )

    def served_ever(self, key: QueueKey) -> bool:
        return key[:2] in self._serving or key[:2] in self._formerly

    def kinds(self, model: str) -> tuple[str, ...]:
        """The kinds of tasks that some agent does with the model, now or soon."""
        return tuple([kind for kind in KINDS if (model, kind) in self._serving])

    def servers(self, model: str) -> list[str]:
        """The needs for servers of tools that some agent with the model has, sorted."""
        found = {
            need
            for served in ((model, kind) for kind in KINDS)
            for group in self._serving.get(served, ())
            for need, has in group.offers[served].features.items()
            if has and need.startswith(NAMED_NEED)
        }
        return sorted(found)

    def is_stopped(self, model: str) -> bool:
        """Whether an agent has the model and would have to be told to start it."""
        return self._stopped[model] > 0

    def crashed(self, served: Served) -> list[str]:
        """Where it is not served because the model has crashed, and how: a sentence for each agent."""
        return [
            f"at agent {agent_id} it has {offer.detail or 'crashed'}"
            for group in self._groups.values()
            if (offer := group.offers.get(served)) is not None and offer.state == "crashed"
            for agent_id in group.members
        ]

    def expect(self, source: str, models: Collection[str]) -> None:
        """``source`` sees to it that these models are served, and no others (any more)."""
        self._expected.pop(source, None)
        if models:
            self._expected[source] = frozenset(models)

    def is_expected(self, model: str) -> bool:
        """Whether somebody sees to it that the model is served."""
        return any(model in models for models in self._expected.values())

    def models(self) -> list[str]:
        return sorted({model for model, _ in self._serving})

    def ready_models(self) -> tuple[str, ...]:
        return tuple(self._ready_models)

    def offers(self) -> Iterator[tuple[Member, Offer]]:
        """What every agent offers, whatever its state."""
        for group in self._groups.values():
            offered = read_offers(group.names[0])
            for member in group.members.values():
                for offer in offered:
                    yield member, offer

    def weights(self) -> dict[str, str]:
        """The digest of the weights of each model that an agent goes on with from a text. Left out are models of which
        agents here have different weights."""
        found: dict[str, set[str]] = {}
        resumed = set[str]()
        for text, capabilities in self._groups:
            for offer in read_offers(text):
                found.setdefault(offer.model, set()).add(offer.digest)
                if offer.takes_tasks and offer.resumes(capabilities):
                    resumed.add(offer.model)
        return {model: next(iter(found[model])) for model in resumed if len(found[model]) == 1}

    @property
    def depth(self) -> float:
        """The most orchestrators that any agent here has below each other."""
        return max(self._depths.values(), default=0.0)

    # What the registry tells

    def changed(self, member: Member) -> None:
        """Its state, offers or slots changed: bring the lists in line. `update` follows."""
        view, status = member.view, member.view.status
        text = status.offers if status.state != "failed" and not member.is_barred else ""
        old = member.group
        names = (text, view.info.capabilities)
        if old is None or self._groups.get(names) is not old:
            gone: list[Served] = []
            if old is not None:
                gone = self._leave(member, old)
            came = self._enter(member, names) if text else []
            new = member.group
            if old is not None and new is not None:
                both = set(came).intersection(gone)
                came = [each for each in came if each not in both or not old.does_all_of(new, each)]
                gone = [each for each in gone if each not in both or not new.does_all_of(old, each)]
            if came:
                self._sink.served(came)
            if gone:
                self._sink.unserved(gone)
        ready = status.state == "ready" and not member.is_barred
        models = tuple([offer.model for offer in read_offers(text) if offer.takes_tasks]) if ready else ()
        self._account(member, ready, status.slots, models)
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
        """Bring its place among the free ones in line with its load; whether it has become one."""
        view, group = member.view, member.group
        if group is None:
            return False
        status = view.status
        free = status.state == "ready" and not view.unavailable and view.in_flight < _slots(member)
        if free == member.free:
            if free:
                group.load_changed(member)
            return False
        member.free = free
        if free:
            group.add_free(member)
        else:
            group.remove_free(member)
        return free

    # Inside

    def _view(self, key: QueueKey) -> GroupsView:
        served = key[:2]
        return GroupsView(
            [
                group
                for group in self._serving[served]
                if group.offers[served].takes_tasks and not group.lacks(served, key.needs)
            ],
            self.orders,
        )

    def _forget_views(self) -> None:
        for view in self._views.values():
            view.close()
        self._views.clear()

    def _enter(self, member: Member, names: tuple[str, tuple[str, ...]]) -> list[Served]:
        """What nobody served before, or not with all the features."""
        group = self._groups.get(names)
        came: list[Served] = []
        if group is None:
            self._groups[names] = group = Group(names, read_offers(names[0]), self.orders)
            for served, offer in group.offers.items():
                if offer.state == "stopped" and not offer.on_demand:
                    self._stopped[offer.model] += 1
                    continue
                if offer.state in _GONE:
                    continue
                groups = self._serving.setdefault(served, [])
                if not any(other.does_all_of(group, served) for other in groups):
                    came.append(served)
                groups.append(group)
                self._formerly.pop(served, None)
            self._forget_views()
        group.members[member.view.agent_id] = self.orders.members[member.view.agent_id] = member
        member.group = group
        group.slots += member.slots
        return came

    def _leave(self, member: Member, group: Group) -> list[Served]:
        """What nobody serves any more, or not with all the features."""
        if member.free:
            member.free = False
            group.remove_free(member)
        member.group = None
        group.slots -= member.slots
        group.members.pop(member.view.agent_id, None)
        self.orders.members.pop(member.view.agent_id, None)
        if group.members:
            return []
        del self._groups[group.names]
        self._forget_views()
        gone = []
        for served, offer in group.offers.items():
            if offer.state == "stopped" and not offer.on_demand:
                self._stopped[offer.model] -= 1
                if not self._stopped[offer.model]:
                    del self._stopped[offer.model]
                continue
            groups = self._serving.get(served)
            if groups is None or group not in groups:
                continue
            groups.remove(group)
            if not any(other.does_all_of(group, served) for other in groups):
                gone.append(served)
            if not groups:
                del self._serving[served]
                self._formerly[served] = None
        while len(self._formerly) > REMEMBERED_KEYS:
            self._formerly.popitem(last=False)
        return gone

    def _account(self, member: Member, ready: bool, slots: int, models: tuple[str, ...]) -> None:
        """Keep the totals of the ready agents."""
        if not ready:
            slots, models = 0, ()
        if member.group is not None:
            member.group.slots += slots - member.slots
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


def _slots(member: Member) -> int:
    """How many tasks it may have now."""
    slots = member.view.status.slots
    return slots if member.room is None else min(member.room, slots)
