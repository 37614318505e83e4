"""A plan walked through without starting anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from anywire_experiment.analysis.family import too_large
from anywire_experiment.dry_run.chances import MOST_TOLD, WANTED, Chance, chances, pairs
from anywire_experiment.dry_run.duration import Seconds, duration
from anywire_experiment.dry_run.obstacles import here, obstacles, warnings
from anywire_experiment.outcome.checked_record import checked
from anywire_experiment.plan.arms import Arm
from anywire_experiment.plan.orders import planned_balance
from anywire_experiment.plan.plan import Plan
from anywire_experiment.run.runner import Place, places

BLOCKS_SHOWN = 12


class Forecast(NamedTuple):
    """``earlier`` is the record by which times and chances are told, empty without one."""

    plan: Plan
    arms: list[Arm]
    places: list[Place]
    took: Seconds
    earlier: str
    family: int
    chances: list[Chance]
    obstacles: list[str]
    warnings: list[str]


def forecast(plan: Plan, earlier: Path | None = None) -> Forecast:
    """What ``plan`` will take and can show. Raises `ConfigError` for a plan that is wrong, `RecordError` for an
    ``earlier`` record that is none or was changed."""
    plan, arms, missing, notes = here(plan)
    if earlier is None:
        took, known = duration(plan, arms), chances(plan, arms)
    else:
        with checked(earlier) as (raw, results):
            took, known = duration(plan, arms, raw), chances(plan, arms, results)
    return Forecast(
        plan,
        arms,
        places(plan, arms),
        took,
        str(earlier or ""),
        len(pairs(plan, arms)),
        known,
        missing or obstacles(plan, arms),
        [*notes, *warnings(plan, arms), *too_large(plan, len(pairs(plan, arms)))],
    )


def told(of: Forecast) -> str:
    """For a terminal."""
    return "\n".join([*_cells(of), "", *_order(of), "", *_power(of), *_list("It cannot run here:", of.obstacles)]) + (
        "\n".join(["", *_list("Before you start:", of.warnings)]) if of.warnings else ""
    )


def _list(title: str, sentences: list[str]) -> Iterator[str]:
    if sentences:
        yield ""
        yield title
        yield from (f"- {each}" for each in sentences)


def _cells(of: Forecast) -> Iterator[str]:
    plan = of.plan
    workloads = len(plan.workloads)
    yield f"{plan.name}: {plan.question}" if plan.question else plan.name
    yield (
        f"{_count(plan.blocks, 'block')} of {_count(len(of.arms), 'arm')} are {_count(len(of.places), 'cell')}, each "
        f"with {_count(workloads, 'workload')}: {', '.join(plan.workloads)}."
    )
    yield f"It takes {_time(of.took)}, by {of.earlier or 'the times that the plan names'}."
    if of.took.unknown:
        yield (
            f"How long {', '.join(of.took.unknown)} will be measured is not known, and not in it: a record of the same "
            "workloads tells it (--from RECORD)."
        )


def _order(of: Forecast) -> Iterator[str]:
    yield "Order of the arms:"
    for block in range(1, min(of.plan.blocks, BLOCKS_SHOWN) + 1):
        names = [each.arm.name for each in of.places if each.block == block]
        yield f"  block {block}: {', '.join(names)}"
    if of.plan.blocks > BLOCKS_SHOWN:
        yield f"  and {_count(of.plan.blocks - BLOCKS_SHOWN, 'block')} more"
    if len(of.arms) > 1:
        told = planned_balance(of.plan, [each.name for each in of.arms]).told()
        yield f"{told[0].upper()}{told[1:]}."


def _power(of: Forecast) -> Iterator[str]:
    if not of.family:
        yield "Nothing is compared: the plan has no factor with two levels."
        return
    plan = of.plan
    yield (
        f"What {_count(plan.blocks, 'block')} can show, with a margin of {100 * plan.margin:g} % and "
        f"{_count(of.family, 'comparison')} judged together:"
    )
    for each in of.chances:
        spread = "" if each.about.startswith("spread") else f" (spread {100 * each.spread:.1f} %)"
        yield (
            f"  {each.about}{spread}: equal arms are shown to be equivalent with a chance of "
            f"{_percent(each.equivalent)}, arms {100 * plan.margin:g} % apart to differ with "
            f"{_percent(each.different)}; {_needed(each)}"
        )
    if not of.earlier:
        yield "  The spread is that of the ratio from block to block: a pilot of six blocks tells it (--from RECORD)."


def _needed(each: Chance) -> str:
    if each.needed > MOST_TOLD:
        return f"{100 * WANTED:g} % of both takes more than {MOST_TOLD} blocks"
    return f"{100 * WANTED:g} % of both takes {each.needed} blocks"


def _percent(chance: float) -> str:
    return f"{100 * chance:.0f} %"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _time(took: Seconds) -> str:
    least, most = (max(round(each), 1) for each in (took.least, took.most))
    if most <= 1.2 * least:
        return f"about {_long(round((least + most) / 2))}"
    return f"{_long(least)} to {_long(most)}"


def _long(seconds: int) -> str:
    if seconds < 90:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
