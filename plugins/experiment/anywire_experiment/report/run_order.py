"""How figures went from block to block: as a table, and as a figure that shows every block."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from anywire_experiment.analysis.results import ComparisonFigures, Results
from anywire_experiment.analysis.wording import meaning_of, percent
from anywire_experiment.report.drawing import (
    FAINT,
    INK,
    Look,
    Picture,
    brief,
    brief_names,
    drawn,
    legend,
    looks,
    svg,
    value_axis,
)
from anywire_experiment.report.numbers import number, p_value, percent_change
from anywire_experiment.report.tables import Table
from anywire_experiment.statistics.run_order import RunOrder

MOST_FURTHER = 3
"""Metrics beside the first of a workload whose blocks are drawn."""


def table(results: Results, workload: str) -> Table:
    """Of each ratio over the blocks whether they depend on each other, and whether it drifts."""
    found = [each for each in results.comparisons if each.workload == workload and each.comparison is not None]
    return Table(
        "Order of the blocks",
        ["Arm", "Metric", "Lag-1", "p of dependence", "Worth", "Change per block", "p of drift", "Drift, dependence"],
        [_row(each) for each in found],
        "Of the ratio to the baseline, in the order in which the blocks ran. Lag-1: its correlation with the block "
        "before, after a drift is taken out, with its interval; 0 when blocks are independent. Worth: how many "
        "independent blocks know as much; intervals allow for a correlation up to 0.5. Change per block: the median of "
        "all slopes (Theil and Sen), with its interval for independent blocks. A drift is shown at p up to 0.003; the "
        "ratio that is judged is then the one in the middle of the run.",
        frozenset({1, 7}),
    )


def _row(each: ComparisonFigures) -> list[str]:
    assert each.comparison is not None
    order, blocks = each.comparison.order, each.comparison.blocks
    lag1 = order.lag1
    return [
        each.candidate,
        meaning_of(each.metric).title,
        f"{number(lag1.value, 2)} ({number(lag1.low, 2)} to {number(lag1.high, 2)})",
        p_value(order.p_dependent),
        f"{order.worth:.0f} of {blocks}",
        percent_change(order.per_block),
        p_value(order.p_drift),
        _told(order),
    ]


def _told(order: RunOrder) -> str:
    said = []
    if order.drifts:
        said.append(f"drifting, from a ratio of {number(order.first)} to {number(order.last)}")
    if order.too_dependent:
        said.append("too dependent to be judged")
    elif order.depends:
        said.append("dependent, which the interval allows for")
    return "; ".join(said) or "neither shown"


def pictures(results: Results, workload: str, name: str, arms: Sequence[str]) -> list[Picture]:
    """The first metric that is compared by a ratio, and further ones whose blocks are shown to drift or to depend on
    each other. None where nothing is compared."""
    ratios = [each.metric for each in results.comparisons if each.workload == workload and each.comparison is not None]
    main = ratios[0] if ratios else None
    metrics = list(dict.fromkeys(each.metric for each in results.comparisons if _tells(each, workload)))
    chosen = [main, *[each for each in metrics if each != main][:MOST_FURTHER]] if main is not None else []
    made = [_picture(results, workload, metric, f"{name}-{metric}", arms) for metric in chosen]
    return [each for each in made if each is not None]


def _tells(each: ComparisonFigures, workload: str) -> bool:
    if each.workload != workload or each.comparison is None:
        return False
    return each.comparison.order.drifts or each.comparison.order.depends


def _picture(results: Results, workload: str, metric: str, name: str, arms: Sequence[str]) -> Picture | None:
    values = {
        each.arm: each.metrics[metric].values
        for each in results.figures
        if each.workload == workload and each.arm in arms and metric in each.metrics
    }
    values = {arm: found for arm, found in values.items() if found and min(found.values()) > 0.0}
    ratios = [
        each
        for each in results.comparisons
        if (each.workload, each.metric) == (workload, metric)
        and each.candidate in values
        and each.comparison is not None
        and len(each.ratios) > 1
    ]
    if not ratios:
        return None
    arm_looks, names = looks(arms), brief_names(arms)
    meaning = meaning_of(metric)
    with drawn(4.6) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for arm, found in values.items():
            _line(above, found, arm_looks[arm], names[arm])
        low, high = _ends(values.values())
        value_axis(above, low, high, "y")
        above.set_ylabel(f"{meaning.title}, {meaning.unit}".rstrip(", "))
        for each in ratios:
            _ratios(below, each, arm_looks[each.candidate])
        _ratio_axis(below, ratios, results.margin)
        below.set_ylabel(f"change against\n{brief(results.baseline, 20)}")
        below.set_xlabel("block, in the order in which they ran")
        below.set_xlim(0.5, results.blocks + 0.5)
        below.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))
        figure.align_ylabels()
        legend(figure, above)
        told = "; ".join(f"{each.candidate}: {_in_words(each)}" for each in ratios)
        image = svg(figure, name, f"{workload}: {meaning.title} and its ratios in the order of the run", told)
    caption = (
        f"Order of the blocks. Above: {meaning.title} of each block. Below: its ratio to {results.baseline}'s, with "
        f"the band in which a difference does not matter, less than {100 * results.margin:g} %; solid without marks: a "
        f"drift that is shown. {told}."
    )
    return Picture(image, caption)


def _in_words(each: ComparisonFigures) -> str:
    assert each.comparison is not None
    order = each.comparison.order
    lag1 = f"lag-1 correlation {number(order.lag1.value, 2)} (p = {p_value(order.p_dependent)})".replace("= <", "<")
    if not order.drifts:
        return f"{lag1}, no drift shown"
    per_block = percent(order.per_block.value - 1.0, signed=True)
    return f"{lag1}, drift of {per_block} per block"


def _line(axes: Axes, found: Mapping[int, float], look: Look, arm: str) -> None:
    blocks = sorted(found)
    axes.plot(
        blocks,
        [found[block] for block in blocks],
        color=look.color,
        linestyle=look.line,
        linewidth=1.1,
        marker=look.marker,
        markersize=4,
        label=arm,
    )


def _ratios(axes: Axes, each: ComparisonFigures, look: Look) -> None:
    assert each.comparison is not None
    _line(axes, each.ratios, look, each.candidate)
    if (order := each.comparison.order).drifts:
        axes.plot([min(each.ratios), max(each.ratios)], [order.first, order.last], color=look.color, linewidth=2.2)


def _ratio_axis(axes: Axes, ratios: Sequence[ComparisonFigures], margin: float) -> None:
    edge = 1.0 + margin
    axes.axhspan(1.0 / edge, edge, facecolor=FAINT, alpha=0.45, linewidth=0)
    axes.axhline(1.0, color=INK, linewidth=0.8)
    low, high = _ends([each.ratios for each in ratios])
    reach = max(edge**1.3, high * 1.05, 1.05 / low)
    axes.set_yscale("log")
    axes.set_ylim(1.0 / reach, reach)
    steps = [0.0, *(sign * at for at in (5, 10, 20, 50) for sign in (1.0, -1.0))]
    ticks = [1.0 + at / 100 for at in steps] + [2.0, 3.0, 5.0, 10.0, 1 / 3, 0.2, 0.1]
    least = math.log(reach) / 3.2
    kept: list[float] = []
    for tick in sorted((each for each in ticks if 1.0 / reach <= each <= reach), key=lambda at: abs(math.log(at))):
        if all(abs(math.log(tick / other)) >= least for other in kept):
            kept.append(tick)
    axes.set_yticks(sorted(kept))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda at, _: percent_of(at)))
    axes.minorticks_off()


def percent_of(ratio: float) -> str:
    """A tick of a ratio's axis, as the change it is."""
    change = round(100.0 * (ratio - 1.0))
    return percent(change / 100.0, signed=change != 0).replace(".0", "")


def _ends(given: Iterable[Mapping[int, float]]) -> tuple[float, float]:
    every = np.array([value for found in given for value in found.values()])
    return float(every.min()), float(every.max())
