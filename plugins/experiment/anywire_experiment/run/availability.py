"""Which arms of a plan can be run here: those whose programs are there and whose revisions can be built."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from anywire.errors import ConfigError
from anywire_experiment.plan.arms import Arm, arms_of
from anywire_experiment.plan.levels import Level
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.systems import SYSTEM, programs_of
from anywire_experiment.record.programs import missing
from anywire_experiment.run.revision import built


class Told(Protocol):
    """Who is told of it."""

    def warned(self, sentence: str) -> None: ...
    def say(self, line: str) -> None: ...


def available(plan: Plan, told: Told) -> tuple[Plan, list[Arm], dict[str, str]]:
    """The plan without the optional systems that are not here and with revisions by their commits, its arms, and why
    the others are left out, by level. ``told`` hears that too, and what takes long. Raises `ConfigError` for a system
    that is neither here nor optional."""
    arms = arms_of(plan)
    left_out: dict[str, str] = {}
    for arm in arms:
        if why := missing_program(arm):
            if not arm.system.optional:
                hint = "; or let it be `optional: true`" if SYSTEM in arm.levels else ""
                raise ConfigError(f"the arm {arm.name} cannot be run: {why}{hint}")
            left_out[arm.levels[SYSTEM]] = why
    there = [each for each in arms if each.levels.get(SYSTEM) not in left_out]
    made, not_built = built(there, told.say)
    left_out |= not_built
    for label, why in left_out.items():
        told.warned(f"the system {label} is left out: {why}")
    made = [each for each in made if each.levels.get(SYSTEM) not in left_out]
    plan = without(plan, left_out.keys()) if left_out else plan
    return _by_commits(plan, {each.levels[SYSTEM]: each.build.commit for each in made if each.build}), made, left_out


def _by_commits(plan: Plan, commits: Mapping[str, str]) -> Plan:
    """With a revision's commit for its name, which may be another commit's tomorrow."""
    if not commits:
        return plan
    levels = tuple(
        Level(label=each.label, value={**each.value, "revision": commits[each.label]})
        if each.label in commits
        else each
        for each in plan.factors[SYSTEM]
    )
    return plan.model_copy(update={"factors": {**plan.factors, SYSTEM: levels}})


def missing_program(arm: Arm) -> str:
    """Which program of its system or companions is not there; empty when all are."""
    program = arm.foreign.program if arm.foreign is not None else None
    for name, each in programs_of(arm.companions, program):
        if why := missing(each):
            return why if name == SYSTEM else f"companion {name}: {why}"
    return ""


def without(plan: Plan, labels: Collection[str]) -> Plan:
    """Without these systems. Raises `ConfigError` when too little is left to compare."""
    levels = tuple(each for each in plan.factors[SYSTEM] if each.label not in labels)
    if not levels:
        raise ConfigError(f"no system of this plan can be run here: {', '.join(labels)}")
    if plan.compared == SYSTEM and plan.base_level in labels:
        raise ConfigError(
            f"the system {plan.base_level} is the one that others are compared with, and it is not here: install it, "
            "or choose another `baseline`"
        )
    companions = {}
    for name, each in plan.companions.items():
        wanted = dict(each.arms)
        if SYSTEM in wanted:
            wanted[SYSTEM] = tuple(label for label in wanted[SYSTEM] if label not in labels)
            if not wanted[SYSTEM]:
                continue
        companions[name] = each.model_copy(update={"arms": wanted})
    return plan.model_copy(update={"factors": {**plan.factors, SYSTEM: levels}, "companions": companions})
