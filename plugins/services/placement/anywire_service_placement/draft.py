"""A fleet as it would be after some moves: the planner tries moves on it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from anywire_service_placement.places import Pair, Place, Replica, Wanted


class Move(msgspec.Struct, frozen=True):
    """``model`` is to be loaded at an agent once ``victims`` are unloaded there; with ``waits`` not before models that
    are moved away are loaded elsewhere."""

    agent_id: str
    model: str
    victims: tuple[str, ...] = ()
    why: str = ""
    waits: bool = False


class Draft:
    """``moves`` are those tried so far. A replica that is ``stopping`` counts as gone, and its memory as free soon."""

    def __init__(
        self,
        wanted: Mapping[str, Wanted],
        places: Sequence[Place],
        absent: Mapping[str, int],
        resting: Collection[Pair],
    ) -> None:
        self.wanted = wanted
        self.places = {place.agent_id: place for place in places}
        self._absent, self._resting = absent, frozenset(resting)
        self._having: dict[str, list[Place]] = {model: [] for model in wanted}
        self._loaded: dict[str, dict[str, Replica]] = {}
        self._count, self._ready = Counter[str](absent), Counter[str]()
        self._hosts = Counter[tuple[str, str]]()
        self.moves: list[Move] = []
        self._shared: int | None = None
        for place in places:
            loaded = {}
            for model, replica in place.models.items():
                if model in self._having:
                    self._having[model].append(place)
                if replica.counts:
                    loaded[model] = replica
                    self._account(place, model, replica, 1)
            self._loaded[place.agent_id] = loaded

    def copy(self) -> Draft:
        other = Draft.__new__(Draft)
        other.wanted, other.places, other._having = self.wanted, self.places, self._having
        other._absent, other._resting = self._absent, self._resting
        other._loaded = dict(self._loaded)  # each place's own is replaced when it changes
        other._count, other._ready, other._hosts = self._count.copy(), self._ready.copy(), self._hosts.copy()
        other.moves, other._shared = list(self.moves), None
        return other

    def sharing(self, number: int) -> Draft:
        """The same for a model that has ``number`` replicas: those that have two more give one up for it."""
        other = self.copy()
        other._shared = number
        return other

    # What is asked

    def having(self, model: str) -> Sequence[Place]:
        """The agents that have a wanted model, loaded or not."""
        return self._having[model]

    def count(self, model: str) -> int:
        """Replicas that count: loaded, loading, to be loaded, or lost a moment ago."""
        return self._count[model]

    def ready(self, model: str) -> int:
        """Replicas that are loaded and stay."""
        return self._ready[model]

    def on_host(self, model: str, host: str) -> int:
        return self._hosts[model, host]

    def is_loaded(self, place: Place, model: str) -> bool:
        return model in self._loaded[place.agent_id]

    def rests(self, place: Place, model: str) -> bool:
        return (place.agent_id, model) in self._resting

    def may_load(self, place: Place, model: str) -> bool:
        """Whether it could be told to load the model, were there room."""
        return (
            place.counts
            and place.open
            and self.wanted[model].allows(place.agent_id)
            and not self.is_loaded(place, model)
            and not self.rests(place, model)
        )

    def free(self, place: Place) -> float:
        """Bytes of its budget that are not taken; without end where it has none."""
        if not place.budget_bytes:
            return math.inf
        return place.budget_bytes - place.other_bytes - sum(
            replica.memory_bytes for replica in self._loaded[place.agent_id].values()
        )  # fmt: skip

    def fullness(self, place: Place) -> float:
        return 1 - self.free(place) / place.budget_bytes if place.budget_bytes else 0.0

    def has_room_now(self, place: Place, model: str) -> bool:
        """Whether the model fits beside what has memory now, which stops and loads included."""
        own = place.models[model]
        others = [each for name, each in place.models.items() if name != model and each.has_memory]
        if any(_excludes(own, each) for each in others):
            return False
        taken = place.other_bytes + sum(each.memory_bytes for each in others)
        return not place.budget_bytes or taken + own.memory_bytes <= place.budget_bytes

    def could_ever(self, place: Place, model: str) -> bool:
        """Whether the model fits where everything that may go were gone."""
        stays = [each for name, each in self._loaded[place.agent_id].items() if not self.is_idle(place, name)]
        own = place.models[model]
        if any(_excludes(own, each) for each in stays):
            return False
        taken = place.other_bytes + sum(each.memory_bytes for each in stays)
        return not place.budget_bytes or taken + own.memory_bytes <= place.budget_bytes

    def is_idle(self, place: Place, model: str) -> bool:
        """Whether it is loaded and may be unloaded for all that its agent says."""
        replica = self._loaded[place.agent_id].get(model)
        return (
            replica is not None
            and replica is place.models.get(model)
            and replica.state == "running"
            and not replica.busy
            and not replica.pinned
        )

    def movable(self, place: Place) -> Iterator[str]:
        """Wanted models there that could be unloaded once they are loaded elsewhere, the largest first."""
        names = [
            name
            for name in self._loaded[place.agent_id]
            if name in self.wanted and self.is_idle(place, name) and not self._is_spare(place, name)
        ]
        yield from sorted(names, key=lambda name: (-place.models[name].memory_bytes, name))

    def victims(self, place: Place, model: str) -> tuple[str, ...] | None:
        """Models that have to be unloaded there first, as few as possible; None where that is not enough."""
        own, loaded = place.models[model], self._loaded[place.agent_id]
        room = self.free(place)
        if room >= own.memory_bytes and not own.group:
            return ()
        spare = [name for name in loaded if self._is_spare(place, name)]
        victims = [name for name, replica in loaded.items() if _excludes(own, replica)]
        if not set(victims) <= set(spare):
            return None
        room += sum(loaded[name].memory_bytes for name in victims)
        # Those that nobody wants first, then the largest: so few go.
        rest = sorted(
            (name for name in spare if name not in victims),
            key=lambda name: (name in self.wanted, -loaded[name].memory_bytes, name),
        )
        taken: list[str] = []
        for name in rest:
            if room >= own.memory_bytes:
                break
            taken.append(name)
            room += loaded[name].memory_bytes
        if room < own.memory_bytes:
            return None
        for name in reversed(taken.copy()):
            if room - loaded[name].memory_bytes >= own.memory_bytes:
                taken.remove(name)
                room -= loaded[name].memory_bytes
        return (*victims, *taken)

    def cost(self, place: Place, model: str, victims: Sequence[str]) -> tuple[float | str, ...]:
        """The smaller, the better is it to load the model there."""
        loaded, own = self._loaded[place.agent_id], place.models[model]
        freed = sum(loaded[name].memory_bytes for name in victims)
        full = self.fullness(place)
        if place.budget_bytes:
            full += (own.memory_bytes - freed) / place.budget_bytes
        return (
            own.state == "crashed",
            place.late,
            self.on_host(model, place.host),
            len(victims),
            freed,
            len(loaded) - len(victims),
            place.moving,
            full,
            place.load,
            place.agent_id,
        )

    # What is tried

    def load(self, place: Place, model: str, victims: Sequence[str], why: str, waits: bool = False) -> None:
        for name in victims:
            self.leave(place, name)
        replica = msgspec.structs.replace(place.models[model], state="starting")
        self._loaded[place.agent_id] = self._loaded[place.agent_id] | {model: replica}
        self._account(place, model, replica, 1)
        self.moves.append(Move(place.agent_id, model, tuple(victims), why, waits))

    def leave(self, place: Place, model: str) -> None:
        """The model is not loaded there any more."""
        replica = self._loaded[place.agent_id][model]
        self._account(place, model, replica, -1)
        self._loaded[place.agent_id] = {
            name: each for name, each in self._loaded[place.agent_id].items() if name != model
        }

    # Inside

    def _account(self, place: Place, model: str, replica: Replica, by: int) -> None:
        wanted = self.wanted.get(model)
        if wanted is None or not place.counts or not wanted.allows(place.agent_id):
            return
        self._count[model] += by
        self._hosts[model, place.host] += by
        if replica.state == "running":
            self._ready[model] += by

    def _is_spare(self, place: Place, model: str) -> bool:
        """Whether it may be unloaded there, since nobody wants it or there are enough."""
        if not self.is_idle(place, model):
            return False
        wanted = self.wanted.get(model)
        if wanted is None or not wanted.allows(place.agent_id):
            return True
        enough = wanted.replicas if self._shared is None else min(wanted.replicas, self._shared + 1)
        return self._ready[model] > enough


def _excludes(one: Replica, other: Replica) -> bool:
    return bool(one.group and other.group and one.group != other.group)
