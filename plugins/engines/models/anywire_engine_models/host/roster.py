"""All models of a host, who waits for which of them, and what is to be done for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from anywire.errors import AnywireError, ModelNotFound
from anywire.near import nearest
from anywire_engine_models.host.effects import Answer, Effect, Fail, Forget, Grant, Ticket
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.refusals import is_closing, queue_is_full
from anywire_engine_models.host.resident import Resident
from anywire_engine_models.host.settings import HostSettings, MemoryBudget
from anywire_engine_models.host.status import TRANSITIONS, MemoryUse, ModelChanged, ModelState, ModelStatus

NO_LONGER = "no longer in the registry"


class Roster:
    """``wall`` gives the seconds since 1970."""

    def __init__(self, settings: HostSettings, wall: Callable[[], float]) -> None:
        self.settings, self._wall = settings, wall
        self.budget = MemoryBudget(settings.memory_budget, settings.memory_budget)
        self.residents: dict[str, Resident] = {}
        self.awake: dict[str, Resident] = {}
        """Those that something was asked of, until they are at rest: few of many, and all that rules look at."""
        self.effects: list[Effect] = []
        self.is_closing = False
        self.loads = self.swaps = 0
        self.swap_seconds = 0.0
        self._where: dict[Ticket, Resident] = {}

    def find(self, name: str, *, removed_too: bool = False) -> Resident:
        """Raises `ModelNotFound`. With ``removed_too`` also those are found that are no longer configured."""
        resident = self.residents.get(name)
        if resident is not None and (removed_too or not resident.removed):
            return resident
        near = nearest(name[:100], (each.name for each in self.residents.values() if not each.removed))
        hint = f", did you mean {near}?" if near else ", `anywire models list` shows those that are there"
        raise ModelNotFound(f"there is no model {name[:200]!r} here{hint}")

    def find_open(self, name: str, *, removed_too: bool = False) -> Resident:
        """Raises `ModelNotFound`, and `ShuttingDown` while the host closes."""
        if self.is_closing:
            raise is_closing()
        resident = self.awake[name] = self.find(name, removed_too=removed_too)
        return resident

    def add(self, model: HostedModel) -> Resident:
        resident = self.residents[model.name] = Resident(model, self._wall())
        return resident

    def drop(self, resident: Resident) -> None:
        """Forget a removed model of which nothing is left."""
        if resident.state == "crashed":
            self.move(resident, "stopped", NO_LONGER)
        del self.residents[resident.name]
        self.awake.pop(resident.name, None)
        self.effects.append(Forget(resident.name))

    def let_rest(self) -> None:
        """Forget those that are at rest until something is asked of them."""
        for name in [name for name, each in self.awake.items() if each.is_at_rest]:
            del self.awake[name]

    # States

    def move(self, resident: Resident, state: ModelState, reason: str) -> None:
        previous = resident.state
        if (previous, state) not in TRANSITIONS:
            raise RuntimeError(f"{resident.name} cannot go from {previous} to {state}")
        resident.state, resident.reason, resident.since = state, reason, self._wall()
        self.effects.append(ModelChanged(resident.status(), previous))

    def tell_news(self, resident: Resident) -> None:
        """Something else than its state has changed."""
        self.effects.append(ModelChanged(resident.status(), resident.state))

    def statuses(self) -> tuple[ModelStatus, ...]:
        return tuple(each.status() for each in self.residents.values())

    def memory(self) -> MemoryUse:
        used = sum(each.live.memory_bytes for each in self.awake.values() if each.live is not None)
        return MemoryUse(self.budget.most, used, self.loads, self.swaps, self.swap_seconds)

    @property
    def beyond(self) -> int:
        """Bytes that models have beyond what they may at most, those not counted that are on their way out."""
        if not self.budget.most:
            return 0
        staying = [each for each in self.awake.values() if each.live is not None and not each.is_leaving]
        return sum(each.live.memory_bytes for each in staying if each.live is not None) - self.budget.most

    # Callers

    def check_room(self) -> None:
        """Raises `QueueFull` when nobody more may wait."""
        waiting = sum(len(each.queue) + len(each.starters) for each in self.awake.values())
        if waiting >= self.settings.max_waiting:
            raise queue_is_full(waiting)

    def enqueue(self, resident: Resident, ticket: Ticket) -> None:
        """A request waits for it."""
        resident.queue.append(ticket)
        resident.untold.append(ticket)
        self._where[ticket] = resident

    def wait_for_start(self, resident: Resident, ticket: Ticket) -> None:
        resident.starters.append(ticket)
        self._where[ticket] = resident

    def wait_for_end(self, resident: Resident, ticket: Ticket) -> None:
        resident.stoppers.append(ticket)
        self._where[ticket] = resident

    def grant(self, resident: Resident) -> None:
        """The first request that waits is served."""
        ticket = resident.queue.popleft()
        if ticket in resident.untold:
            resident.untold.remove(ticket)
        resident.serving.add(ticket)
        self.effects.append(Grant(ticket, resident.name))

    def take_out(self, ticket: Ticket) -> Resident | None:
        """The caller waits no more, or its request is over; the model it was about."""
        resident = self._where.pop(ticket, None)
        if resident is None:
            return None
        if ticket in resident.serving:
            resident.serving.remove(ticket)
        else:
            for tickets in (resident.queue, resident.untold, resident.starters, resident.stoppers):
                if ticket in tickets:
                    tickets.remove(ticket)
        return resident

    def answer(self, resident: Resident, tickets: Iterable[Ticket]) -> None:
        answered = list(tickets)
        for ticket in answered:
            self.take_out(ticket)
        status = resident.status()
        self.effects.extend(Answer(ticket, status) for ticket in answered)

    def fail(self, tickets: Iterable[Ticket], error: Callable[[], AnywireError]) -> None:
        """Each gets an error of its own, since each raises it."""
        for ticket in list(tickets):
            self.take_out(ticket)
            self.effects.append(Fail(ticket, error()))
