"""What the place in a block did to the figures, and figures without it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec
import numpy as np

from anywire_experiment.analysis.blocks import MAY_BE_ZERO, values
from anywire_experiment.analysis.design_figures import DesignFigures, PlaceFigures
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.wording import meaning_of, percent
from anywire_experiment.plan.balance import balance_of
from anywire_experiment.plan.metric import Metric
from anywire_experiment.statistics import holm
from anywire_experiment.statistics.place import FOUND, Layout, drawn_apart
from anywire_experiment.statistics.samples import Estimate

Values = dict[int, float]
FEWEST_DEGREES = 5
"""Values that must be left over to tell chance by, or the effect of a place is not estimated."""


class _Place(msgspec.Struct, frozen=True):
    figures: PlaceFigures
    effects: dict[int, float]
    """By place, what the logarithm of a value there is above the mean of all places."""


def design_of(record: RawData) -> DesignFigures | None:
    """None with one arm alone."""
    if len(record.arms) < 2:
        return None
    whole = [each for each in record.cells if each.state == "completed"]
    orders = [
        [each.arm for each in sorted(whole, key=lambda cell: cell.order) if each.block == block]
        for block in sorted({each.block for each in whole})
    ]
    present = {arm for order in orders for arm in order}
    balance = balance_of(orders, [arm for arm in record.arms if arm in present])
    places = [
        _place(record, workload, metric).figures
        for workload in record.plan.workloads
        for metric in record.metrics(workload)
        if metric not in MAY_BE_ZERO
    ]
    told = balance.told() if len(present) > 1 else "fewer than two arms have a whole cell, so no order is told"
    return DesignFigures(balance, told, places)


def told(design: DesignFigures | None) -> Iterator[str]:
    """What a reader must know, a sentence for each metric for which it matters what ran directly before, all metrics
    and workloads judged together."""
    places = [] if design is None else design.places
    tested = [(each, p) for each in places if (p := _carry_over(each)) is not None]
    if not tested:
        return
    for (each, _), p in zip(tested, holm([p for _, p in tested]), strict=True):
        if p <= FOUND:
            yield (
                f"under {each.workload} the {meaning_of(each.metric).title} of an arm depends on which arm ran "
                f"directly before it (p = {p:.2g}): something is left behind, such as heat, caches or ports; the "
                "balanced order lets it fall on all arms alike, and intervals are wider for it"
            )


def _carry_over(of: PlaceFigures) -> float | None:
    return of.effects.p_carry_over if of.effects is not None else None


def without_place(
    record: RawData, workload: str, metric: Metric, arms: tuple[str, str], given: tuple[Values, Values]
) -> tuple[Values, Values]:
    """The values of a baseline and a candidate by block, in the blocks that both have, as they would be had every cell
    stood at an average place; unchanged where no effect of the place was found.

    The ratios keep the spread that they have beside the effects estimated from them (`drawn_apart`).
    """
    common = given[0].keys() & given[1].keys()
    found = _place(record, workload, metric)
    if not found.figures.removed or len(common) < 3:
        return given
    order = {(each.arm, each.block): each.order for each in record.cells}
    before, after = (
        {block: by_block[block] * math.exp(-found.effects[order[arm, block]]) for block in sorted(common)}
        for arm, by_block in zip(arms, given, strict=True)
    )
    logs = np.array([math.log(after[block] / before[block]) for block in before])
    factors = np.exp(drawn_apart(logs) - logs)
    return before, {block: after[block] * factor for block, factor in zip(before, factors, strict=True)}


def caution_of(record: RawData, workload: str, metric: Metric) -> Iterator[str]:
    """What a reader of a comparison must know of places, if anything."""
    found = _place(record, workload, metric).figures
    if found.removed and found.effects is not None:
        at, largest = max(enumerate(found.effects.effects), key=lambda each: abs(math.log(each[1].value)))
        yield f"the place in a block made a difference, which is taken out: {about(metric, at, largest)}"


def about(metric: str, place: int, effect: Estimate) -> str:
    """The effect of a place, counted from 0, in words."""
    word = "larger" if effect.value > 1.0 else "smaller"
    ends = [percent(each - 1.0, signed=True) for each in (effect.low, effect.high)]
    return (
        f"at place {place + 1} {meaning_of(metric).title} is {percent(abs(effect.value - 1.0))} {word} than at the "
        f"others ({100 * effect.level:g} % interval {ends[0]} to {ends[1]})"
    )


def _place(record: RawData, workload: str, metric: Metric) -> _Place:
    key = ("place", workload, metric)
    if key not in record.computed:
        record.computed[key] = _found(record, workload, metric)
    found = record.computed[key]
    assert isinstance(found, _Place)
    return found


def _found(record: RawData, workload: str, metric: Metric) -> _Place:
    def unknown(reason: str) -> _Place:
        return _Place(PlaceFigures(workload, metric, reason=reason), {})

    if metric in MAY_BE_ZERO:
        return unknown("its values are added and not multiplied")
    arms = {arm: number for number, arm in enumerate(record.arms)}
    at = {(each.block, each.order): each.arm for each in record.cells}
    order = {(each.arm, each.block): each.order for each in record.cells}
    known = {
        (arm, block): value for arm in record.arms for block, value in values(record, arm, workload, metric).items()
    }
    if len({arm for arm, _ in known}) < 2:
        return unknown("fewer than two arms have it")
    if min(known.values()) <= 0.0:
        return unknown("a block's value is 0, so there is no ratio")
    key = ("layout", *(f"{arm} {block}" for arm, block in known))
    if key not in record.computed:
        # Metrics mostly have the same cells, and with many arms it takes seconds.
        record.computed[key] = Layout(
            [block for _, block in known],
            [arms[arm] for arm, _ in known],
            [order[each] for each in known],
            [arms.get(at.get((block, order[arm, block] - 1), ""), -1) for arm, block in known],
        )
    layout = record.computed[key]
    assert isinstance(layout, Layout)
    if not layout.is_estimable:
        return unknown("the places cannot be told apart from arms and blocks")
    if layout.degrees < FEWEST_DEGREES:
        return unknown(f"{record.plan.blocks} blocks are too few to tell it")
    logs = np.log(np.array(list(known.values())))
    effects = layout.told(logs, record.plan.confidence)
    share = (layout.places - 1) / layout.places
    return _Place(
        PlaceFigures(workload, metric, effects, effects.p <= FOUND),
        {place: share * math.log(each.value) for place, each in enumerate(effects.effects)},
    )
