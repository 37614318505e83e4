"""The rules of a host: which model is started, stopped and served when. Events go in, effects come out; it waits for
nothing and knows no event loop.

Each event is a call with the time it happened at (seconds of a clock that does not go back). Callers are tickets: a
call that raises has refused its ticket at once, every other one is answered by an effect, now or later. After each
event `settle` decides what follows and gives the effects; at `next_time` it wants to be asked again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from anywire.errors import InvalidRequest, ModelNotFound
from anywire_engine_models.host.course import Course
from anywire_engine_models.host.effects import Effect, Tell, Ticket
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.refusals import hangs, has_failed, is_closing, is_stopped
from anywire_engine_models.host.resident import Resident
from anywire_engine_models.host.room import Plan, make_plan
from anywire_engine_models.host.roster import NO_LONGER, Roster
from anywire_engine_models.host.settings import HostSettings, MemoryBudget

GIVEN_BACK = "its memory is for others on this machine"


class Residency:
    """``course`` takes what processes tell."""

    def __init__(self, settings: HostSettings, wall: Callable[[], float] = time.time) -> None:
        self._roster = Roster(settings, wall)
        self.course = Course(self._roster)
        self.find = self._roster.find
        self.statuses = self._roster.statuses
        self.memory = self._roster.memory

    @property
    def is_finished(self) -> bool:
        """It is closed, and no process is left but those that do not end."""
        awake = self._roster.awake.values()
        return self._roster.is_closing and all(each.live is None or each.hangs for each in awake)

    # What callers ask

    def begin(self, models: Sequence[HostedModel], now: float) -> None:
        for model in models:
            resident = self._roster.add(model)
            if model.autostart:
                self._roster.awake[model.name] = resident
                resident.keep = "autostart"
                resident.want(now)

    def start(self, ticket: Ticket, name: str, now: float) -> None:
        resident = self._roster.find_open(name)
        if resident.state == "running":
            self._roster.answer(resident, [ticket])
            return
        self._roster.check_room()
        if resident.state != "starting":
            resident.failures, resident.not_before = 0, now
            resident.want(now)
        self._roster.wait_for_start(resident, ticket)

    def stop(self, ticket: Ticket, name: str, reason: str, now: float) -> None:
        resident = self._roster.find_open(name, removed_too=True)
        self.course.fail_waiting(resident, reason)
        resident.want_nothing()
        resident.failures, resident.not_before = 0, now
        if resident.hangs:
            raise hangs(resident)
        if resident.state in ("starting", "running"):
            self.course.stop(resident, reason)
        if resident.live is not None:
            self._roster.wait_for_end(resident, ticket)
            return
        if resident.state == "crashed":
            self._roster.move(resident, "stopped", reason)
        self._roster.answer(resident, [ticket])

    def unload(self, ticket: Ticket, name: str, now: float) -> None:
        resident = self._roster.find_open(name)
        used = len(resident.serving) + len(resident.queue) + len(resident.starters)
        why = ""
        if used:
            why = f"requests are served or wait there ({used})"
        elif resident.pinned and resident.state == "running":
            why = "it is pinned"
        elif resident.state == "starting":
            why = "it is starting"
        if why:
            raise InvalidRequest(
                f"model {name} is not unloaded: {why}; `anywire models stop {name}` stops it all the same"
            )
        self.stop(ticket, name, "unloaded", now)

    def use(self, ticket: Ticket, name: str, now: float) -> None:
        resident = self._roster.find_open(name)
        _check_usable(resident, now)
        if not (resident.state == "running" and not resident.queue and len(resident.serving) < _slots(resident)):
            self._roster.check_room()
        if resident.state not in ("starting", "running"):
            resident.want(now)
        self._roster.enqueue(resident, ticket)

    def leave(self, ticket: Ticket, now: float) -> None:
        """The caller waits no more, or its request is over."""
        resident = self._roster.take_out(ticket)
        if resident is None:
            return
        resident.used_at = max(resident.used_at, now)
        if not resident.queue:
            resident.owes = False
        if not (resident.is_awaited or resident.keep or resident.evicts_since is not None):
            resident.want_nothing()

    def pin(self, ticket: Ticket, name: str, pinned: bool, now: float) -> None:
        resident = self._roster.find_open(name)
        if resident.pinned != pinned:
            resident.pinned = pinned
            resident.used_at = max(resident.used_at, now)
            self._roster.tell_news(resident)
        self._roster.answer(resident, [ticket])

    def replace(self, models: Sequence[HostedModel], now: float) -> None:
        if self._roster.is_closing:
            raise is_closing()
        before = dict(self._roster.residents)
        self._roster.residents.clear()
        for model in models:
            resident = before.pop(model.name, None)
            if resident is None:
                self._roster.add(model)
            else:
                self._roster.residents[model.name] = resident
                _configure(resident, model, now)
        self._roster.residents.update(before)
        for resident in before.values():
            self._remove(resident)

    def set_budget(self, budget: MemoryBudget) -> None:
        """It counts from the next start on. What is loaded beyond it leaves when it is idle."""
        self._roster.budget = budget

    def close(self, now: float) -> None:
        """Stop everything; nobody is let in any more."""
        self._roster.is_closing = True
        for resident in self._roster.awake.values():
            self._roster.fail([*resident.starters, *resident.queue], is_closing)
            resident.want_nothing()
            if resident.state in ("starting", "running"):
                self.course.stop(resident, "the host closes")

    # What follows

    def settle(self, now: float) -> list[Effect]:
        """Decide what follows from what has happened, and take all effects since the last time."""
        residents = list(self._roster.awake.values())
        plan = Plan()
        if not self._roster.is_closing:
            for resident in residents:
                self._rest(resident, now)
            self._give_back(now)
            plan = make_plan(residents, self._roster.budget, now)
        for resident, refusal in plan.refused:
            self.course.refuse(resident, refusal())
            self._roster.fail([*resident.starters, *resident.queue], refusal)
        for resident, claim in plan.evictions:
            self.course.evict(resident, claim, now)
        for resident in plan.launches:
            self.course.launch(resident, now)
        for resident in residents:
            if resident.queue:
                self._serve(resident, plan, now)
        self._roster.let_rest()
        effects, self._roster.effects = self._roster.effects, []
        return effects

    def next_time(self, now: float) -> float | None:
        """When time alone changes something; None for never."""
        residents = self._roster.awake.values()
        times: list[float | None] = [each.idle_until() for each in residents]
        times += [each.not_before for each in residents if each.wanted_since is not None and each.not_before > now]
        if self._roster.beyond > 0 or any(each.claims(now) for each in residents):
            turns = [(each.turn_until, each.work_until) for each in residents if each.state == "running"]
            times += [each for turn in turns for each in turn if each > now]
        return None if self._roster.is_closing else min((each for each in times if each is not None), default=None)

    def _rest(self, resident: Resident, now: float) -> None:
        """Stop it when nobody uses it and it is not kept."""
        until = resident.idle_until()
        if resident.removed and resident.state == "running" and not (resident.serving or resident.queue):
            self.course.stop(resident, NO_LONGER)
        elif until is not None and until <= now:
            self.course.stop(resident, f"idle for {until - resident.used_at:g} s")

    def _give_back(self, now: float) -> None:
        """Stop idle models that a request would start again, the least recently used first, while all take more than
        they may."""
        idle = [each for each in self._roster.awake.values() if each.model.on_demand and each.may_leave(now)]
        for resident in sorted(idle, key=lambda each: each.used_at):
            if self._roster.beyond <= 0:
                break
            if not (resident.serving or resident.queue or resident.starters):
                self.course.stop(resident, GIVEN_BACK)

    def _serve(self, resident: Resident, plan: Plan, now: float) -> None:
        """Give free slots to whoever waits, and tell the others what they wait for."""
        yields = resident.name in plan.yields and not resident.owes
        if resident.state == "running" and not yields:
            while resident.queue and len(resident.serving) < _slots(resident):
                self._roster.grant(resident)
                resident.owes, resident.used_at = False, now
        detail = _what_for(resident, plan, yields, now)
        told = resident.untold if detail == resident.told else list(resident.queue)
        self._roster.effects.extend(Tell(ticket, detail) for ticket in told)
        resident.untold, resident.told = [], detail

    def _remove(self, resident: Resident) -> None:
        resident.removed = True
        self._roster.fail(
            [*resident.starters, *resident.queue],
            lambda: ModelNotFound(f"model {resident.name} is {NO_LONGER}"),
        )
        resident.want_nothing()
        if resident.state == "starting":
            self.course.stop(resident, NO_LONGER)
        elif resident.live is None:
            self._roster.drop(resident)


def _configure(resident: Resident, model: HostedModel, now: float) -> None:
    resident.removed = False
    if model == resident.model:
        return
    if model.pinned != resident.model.pinned:
        resident.pinned = model.pinned
    resident.model = model
    # What is configured anew may well start.
    resident.failures = 0
    if resident.wanted_since is None:
        resident.not_before = now


def _check_usable(resident: Resident, now: float) -> None:
    """Raises when a request for it cannot wait for it."""
    if resident.state in ("starting", "running") or resident.is_awaited:
        return
    has_crashed = resident.state == "crashed"
    if not resident.model.on_demand:
        raise has_failed(resident, now) if has_crashed else is_stopped(resident)
    if has_crashed and resident.keep != "restart" and now < resident.not_before:
        raise has_failed(resident, now)


def _slots(resident: Resident) -> int:
    return max(1, (resident.live or resident.model).slots)


def _what_for(resident: Resident, plan: Plan, yields: bool, now: float) -> str:
    match resident.state:
        case "starting":
            return "loading"
        case "running" if yields:
            return "waits until other models had their turn"
        case "running":
            slots = _slots(resident)
            return f"all {slots} slots are in use" if slots > 1 else "the only slot is in use"
        case _ if resident.not_before > now:
            return f"waits for a restart: {resident.exit.reason}" if resident.exit else "waits for a restart"
        case _:
            return plan.waits.get(resident.name, "waits for the end of its process")
