"""A plan walked through without starting anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from anywire_experiment.analysis.family import too_large
from anywire_experiment.dry_run.chances import MOST_TOLD, WANTED, Chance, chances, compared, pairs, untold
from anywire_experiment.dry_run.duration import Seconds, duration
from anywire_experiment.dry_run.obstacles import here, obstacles, warnings
from anywire_experiment.outcome.checked_record import checked
from anywire_experiment.plan.arms import Arm
from anywire_experiment.plan.orders import planned_balance
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.saturation import lengths
from anywire_experiment.run.runner import Place, places

BLOCKS_SHOWN = 12


class Forecast(NamedTuple):
    """``earlier`` is the record by which times and chances are told, empty without one. Of the ``comparisons`` those of
    the ``family`` are judged; ``untold`` is what no chance is told of, a sentence each."""

    plan: Plan
    arms: list[Arm]
    places: list[Place]
    took: Seconds
    earlier: str
    comparisons: int
    family: int
    chances: list[Chance]
    untold: list[str]
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
        len(compared(plan, arms)),
        len(pairs(plan, arms)),
        known,
        untold(plan, arms, known),
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
    told, by = _time(of.took), of.earlier or "the times that the plan names"
    if of.took.unknown:
        yield (
            f"How long it takes is not known, for nothing tells how long {', '.join(of.took.unknown)} will be "
            f"measured: a record of the same workloads does (--from RECORD). All else takes {told}, by {by}."
        )
    else:
        yield f"It takes {told}, by {by}."
    for name, workload in plan.workloads.items():
        if (search := workload.search) is not None:
            steps = [each.steps for each in lengths(search)]
            yield (
                f"{name} is searched in {min(steps)} to {max(steps)} steps of {search.seconds:g} s in each cell; one "
                "at a rate that is not borne takes longer."
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
    if not of.comparisons:
        yield "Nothing is compared: the plan has no factor with two levels."
        return
    plan = of.plan
    if of.family:
        points = f" (of shares {100 * plan.share_margin:g} points)" if any(each.of_share for each in of.chances) else ""
        yield (
            f"What {_count(plan.blocks, 'block')} can show, with a margin of {100 * plan.margin:g} %{points} and "
            f"{_count(of.family, 'comparison')} judged together:"
        )
    else:
        yield "Nothing is judged, whatever is measured:"
    for each in of.chances:
        apart = f"{100 * plan.share_margin:g} points" if each.of_share else f"{100 * plan.margin:g} %"
        yield (
            f"  {_about(each)}: equal arms are shown to be equivalent with a chance of {_percent(each.equivalent)}, "
            f"arms {apart} apart to differ with {_percent(each.different)}; {_needed(each)}"
        )
    yield from (f"  {each}" for each in of.untold)
    if of.family and not of.earlier:
        shares = ", or of the difference of shares," if any(each.of_share for each in of.chances) else ""
        yield (
            f"  The spread is that of the ratio{shares} from block to block: a pilot of six blocks tells it (--from "
            "RECORD)."
        )


def _about(of: Chance) -> str:
    spread, unit = 100 * of.spread, "points" if of.of_share else "%"
    if of.about:
        return f"{of.about} (spread {spread:.1f} {unit})"
    return f"{'shares, ' if of.of_share else ''}spread {spread:g} {unit}"


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
