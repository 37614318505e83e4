"""What keeps a plan from running here, and what would make its figures worth less."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence

from anywire.errors import AnywireError, ConfigError
from anywire.this_system import needs_posix
from anywire_experiment.analysis.cautions import BUSY
from anywire_experiment.analysis.energy import ENERGY
from anywire_experiment.energy.meter import meter_of
from anywire_experiment.network import unavailable
from anywire_experiment.plan.arms import Arm, arms_of, starts_its_agents
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.systems import SYSTEM, AnywireSystem
from anywire_experiment.record.programs import missing
from anywire_experiment.run.availability import missing_program, without
from anywire_experiment.run.cores import placement
from anywire_experiment.run.expectations import expectations


def here(plan: Plan) -> tuple[Plan, list[Arm], list[str], list[str]]:
    """The plan and its arms without the optional systems whose programs are not here; why it cannot run at all, for
    programs that are missing; and what is left out or built first. Raises `ConfigError` for a plan that is wrong."""
    arms = arms_of(plan)
    absent = {arm.name: (arm, why) for arm in arms if (why := missing_program(arm))}
    needed = [f"the arm {name}: {why}" for name, (arm, why) in absent.items() if not arm.system.optional]
    left_out = {arm.levels[SYSTEM]: why for arm, why in absent.values() if arm.system.optional}
    notes = [f"the system {label} will be left out: {why}" for label, why in left_out.items()]
    built = {
        arm.levels[SYSTEM]: arm.system.revision
        for arm in arms
        if isinstance(arm.system, AnywireSystem) and arm.system.revision
    }
    notes += [
        f"the system {label} is the revision {revision}, which is built before the first cell unless it was before"
        for label, revision in built.items()
    ]
    if left_out and not needed:
        try:
            return (
                without(plan, left_out),
                [each for each in arms if each.levels[SYSTEM] not in left_out],
                needed,
                notes,
            )
        except ConfigError as error:
            needed.append(str(error))
    return plan, arms, needed, notes


def obstacles(plan: Plan, arms: Sequence[Arm]) -> list[str]:
    """Why it cannot run here, a sentence each: programs that are missing, rights, cores."""
    checks: list[Callable[[], object]] = [
        lambda: needs_posix("an experiment"),
        lambda: placement(plan),
        lambda: meter_of(plan.energy),
    ]
    companions = {name: each for arm in arms for name, each in arm.companions.items()}
    found = [f"companion {name}: {why}" for name, each in companions.items() if (why := missing(each))]
    for check in checks:
        try:
            check()
        except AnywireError as error:
            found.append(str(error))
    networked = next((each.name for each in arms if each.network is not None), None)
    if networked is not None and (why := unavailable()):
        found.append(f"the arm {networked!r} needs a network, which cannot be emulated here: {why}")
    return found


def warnings(plan: Plan, arms: Sequence[Arm]) -> list[str]:
    """What it cannot show, or not as well as elsewhere, a sentence each."""
    return [*expectations(plan, arms), *_cores(plan, arms), *_busy(), *_energy(plan)]


def _cores(plan: Plan, arms: Sequence[Arm]) -> Iterator[str]:
    try:
        placed = placement(plan)
    except ConfigError:
        return  # it is an obstacle
    load, system = placed["load"], placed["system"]
    if not load or not system or {*load} & {*system}:
        yield (
            "the load generator shares cores with the system, so each takes time from the other: give `cpus` cores of "
            "their own, on a machine that has two or more"
        )
    most = max(arms, key=_processes)
    if system and _processes(most) > len(system):
        yield (
            f"the {_processes(most)} processes of {most.name} share {len(system)} "
            f"core{'' if len(system) == 1 else 's'}: what they wait for each other is in its figures"
        )


def _processes(arm: Arm) -> int:
    agents = 0 if arm.foreign is not None or starts_its_agents(arm) else arm.agents
    return 1 + agents + len(arm.companions)


def _busy() -> Iterator[str]:
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    average = os.getloadavg()[0]
    if average > BUSY * cores:
        yield f"the machine is busy now: load average {average:.2f} on {cores} cores; wait until it has nothing to do"


def _energy(plan: Plan) -> Iterator[str]:
    asked = [each for each in plan.metrics if each in ENERGY]
    if not asked:
        return
    try:
        meter = meter_of(plan.energy)
    except ConfigError:
        return  # it is an obstacle
    if not meter.sources:
        yield f"{', '.join(asked)} cannot be measured here: {'; '.join(meter.missing)}"
