"""Which models are started now, and which ones make room for them: a function without effects.

Models that are to be started are asked in the order in which they began to be wanted, those that nobody waits for last.
Each takes memory that is free, then memory that is about to be free, then that of models which may leave: idle ones
first, the least recently used first. A model that serves is not stopped; it gets no further request until it is idle.
An earlier model that does not fit yet keeps what it has found, so that later, smaller ones do not starve it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from anywire.errors import AnywireError, EngineFailed, InvalidRequest
from anywire.sizes import shown_size
from anywire_engine_models.host.resident import Resident
from anywire_engine_models.host.settings import MemoryBudget

Refusal = Callable[[], AnywireError]
"""Makes the error for one caller."""
MOST_NAMES = 3
"""Models that a sentence names."""


class Plan:
    def __init__(self) -> None:
        self.launches: list[Resident] = []
        self.evictions: list[tuple[Resident, Resident]] = []
        """Who makes room, and for whom."""
        self.yields: set[str] = set()
        """Models that get no further request until they have made room."""
        self.refused: list[tuple[Resident, Refusal]] = []
        """Those that can never fit, and why."""
        self.waits: dict[str, str] = {}
        """What the others wait for."""


def make_plan(residents: Iterable[Resident], budget: MemoryBudget, now: float) -> Plan:
    plan = Plan()
    everyone = list(residents)
    claims = [each for each in everyone if each.claims(now)]
    if claims:
        claims.sort(key=lambda each: (each.is_background, each.wanted_since or 0.0))
        room = _Room([each for each in everyone if each.live is not None], budget, now, plan)
        for claim in claims:
            room.find(claim)
    return plan


class _Room:
    """What is left of the memory while one model after the other is asked."""

    def __init__(self, holding: list[Resident], budget: MemoryBudget, now: float, plan: Plan) -> None:
        self._holding, self._budget, self._now, self._plan = holding, budget, now, plan
        self._free = budget.now - sum(map(_memory, holding)) if budget.now else math.inf
        self._coming: float = sum(_memory(each) for each in holding if each.is_leaving and not each.hangs)
        """About to be free, and nobody's yet."""
        self._promised: set[Resident] = set()
        """Models that make room already."""
        self._groups: set[str] = set()
        """Of the models that were asked before."""

    def find(self, claim: Resident) -> None:
        """Put into the plan what is done for one more model."""
        plan, need, group = self._plan, claim.model.memory_bytes, claim.model.group
        if refusal := self._never(claim):
            plan.refused.append((claim, refusal))
            return
        if claim.live is not None:
            self._take(need, coming_first=True)
            self._groups.add(group)
            plan.waits[claim.name] = "waits for the end of its process"
            return
        if group and self._groups - {"", group}:
            plan.waits[claim.name] = "waits for models of another group"
            return
        rivals = [each for each in self._holding if _excludes(claim, each)]
        if not rivals and need <= self._free:
            self._free -= need
            self._groups.add(group)
            plan.launches.append(claim)
            return
        plan.waits[claim.name] = self._what_for(rivals)
        if claim.is_background:
            return
        self._groups.add(group)
        rest = self._take(need)
        standing = [each for each in rivals if not each.is_leaving and each not in self._promised]
        leaving = self._chosen(standing, rest)
        self._promised.update(leaving)
        self._coming += max(0.0, sum(map(_memory, leaving)) - rest) if leaving else 0.0
        if any(each.serving for each in leaving):
            plan.yields.update(each.name for each in leaving if each.serving)
        else:
            plan.evictions.extend((each, claim) for each in leaving)

    def _never(self, claim: Resident) -> Refusal | None:
        """Why it cannot be started, however long it waits."""
        name, need, budget = claim.name, claim.model.memory_bytes, self._budget.most
        if claim.hangs:
            return lambda: EngineFailed(f"{name} cannot be started: {claim.reason}")
        why_less = f" ({self._budget.why})" if self._budget.why else ""
        if budget and need > budget:
            return lambda: InvalidRequest(
                f"{name} needs {shown_size(need)}, the memory budget is {shown_size(budget)}{why_less}: raise "
                "memory_budget, or give the model less context, fewer slots or a smaller prompt_cache"
            )
        fixed = [each for each in self._holding if each is not claim and (each.hangs or _is_pinned(each))]
        rivals = [each for each in fixed if _excludes(claim, each)]
        if not rivals and (not budget or need <= budget - sum(map(_memory, fixed))):
            return None
        if rivals:
            fixed, why = rivals, f"it is of group {claim.model.group}"
        else:
            why = f"it needs {shown_size(need)} of the {shown_size(budget)} that all may use"
        hanging = [each for each in fixed if each.hangs]
        if hanging:
            text = f"{name} cannot be started ({why}): the process of {_names(hanging)} does not end"
            return lambda: EngineFailed(text)
        text = f"{name} cannot be started ({why}) beside what is pinned: unpin or stop {_names(fixed)}"
        return lambda: InvalidRequest(text)

    def _take(self, need: float, *, coming_first: bool = False) -> float:
        """Reserve so much of what is free or about to be; returns what is missing."""
        coming = min(self._coming, need) if coming_first else 0.0
        free = min(max(self._free, 0.0), need - coming)
        coming = coming or min(self._coming, need - free)
        self._free -= free
        self._coming -= coming
        return need - free - coming

    def _chosen(self, standing: list[Resident], missing: float) -> list[Resident]:
        """Who leaves: all of ``standing``, and as many as free what is missing. Empty where that cannot be now."""
        able = [each for each in self._holding if each.may_leave(self._now) and each not in self._promised]
        if any(each not in able for each in standing):
            return []
        chosen = list(standing)
        missing -= sum(map(_memory, chosen))
        for each in sorted(able, key=lambda each: (bool(each.serving), each.used_at)):
            if missing <= 0:
                break
            if each not in standing and _memory(each):
                chosen.append(each)
                missing -= _memory(each)
        if missing > 0:
            return []
        for each in reversed(chosen[len(standing) :]):
            if _memory(each) <= -missing:
                chosen.remove(each)
                missing += _memory(each)
        return chosen

    def _what_for(self, rivals: list[Resident]) -> str:
        if rivals:
            return f"waits until {_names(rivals)} of another group may be stopped"
        holding = [each for each in self._holding if _memory(each)]
        if self._budget.now < self._budget.most:
            return "waits for memory that others on this machine have"
        return f"waits for memory that {_names(holding)} may free" if holding else "waits for memory"


def _memory(resident: Resident) -> int:
    return resident.live.memory_bytes if resident.live is not None else 0


def _is_pinned(resident: Resident) -> bool:
    return resident.pinned and not resident.is_leaving


def _excludes(claim: Resident, other: Resident) -> bool:
    """Whether the two may not be loaded together."""
    group = claim.model.group
    return other is not claim and bool(group) and other.live is not None and other.live.group not in ("", group)


def _names(residents: list[Resident]) -> str:
    names = [each.name for each in residents[:MOST_NAMES]]
    return ", ".join(names) + (f" and {len(residents) - MOST_NAMES} more" if len(residents) > MOST_NAMES else "")
