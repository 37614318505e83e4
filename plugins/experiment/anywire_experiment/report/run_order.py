"""The order of the blocks: whether they depend on each other, and whether something drifts."""

from __future__ import annotations

from anywire_experiment.analysis.results import ComparisonFigures, Results
from anywire_experiment.analysis.wording import MINUS, place
from anywire_experiment.report.drawing import INK, Picture, drawn, looks, svg
from anywire_experiment.report.numbers import number, p_value, percent_change
from anywire_experiment.report.tables import Table
from anywire_experiment.statistics.paired import Comparison

MOST_PANELS = 12
"""Comparisons of a workload that are drawn: those whose order shows most come first."""


def table(comparisons: list[ComparisonFigures]) -> Table:
    rows = []
    for each in comparisons:
        if (found := each.comparison) is not None:
            order = found.order
            rows.append(
                [
                    each.candidate,
                    place(each.metric, each.levels),
                    _correlation(found),
                    p_value(order.p_dependent),
                    f"{order.worth:.0f} of {found.blocks}",
                    percent_change(order.per_block),
                    p_value(order.p_drift),
                    f"{number(order.first)} to {number(order.last)}" if order.drifts else "not shown",
                ]
            )
    return Table(
        "Order of the blocks",
        ["Arm", "Metric", "Lag-1 correlation", "p", "Worth", "Change per block", "p of drift", "Drift of the ratio"],
        rows,
        "Lag-1 correlation: of a block's ratio with that of the block before; p: that blocks are independent. Worth: "
        "how many independent blocks know as much; intervals allow for a correlation up to 0.5. Change per block: "
        "median of all slopes of the ratio, with its interval for independent blocks. A drift is shown at p up to "
        "0.003; the ratio told is then the one in the middle of the run.",
        frozenset({1, 7}),
    )


def _correlation(found: Comparison) -> str:
    lag1 = found.order.lag1
    told = [f"{each:.2f}".replace("-", MINUS) for each in (lag1.value, lag1.low, lag1.high)]
    return f"{told[0]} ({told[1]} to {told[2]})"


def picture(results: Results, workload: str, name: str) -> Picture | None:
    """The ratios of a workload's comparisons in the order in which their blocks ran."""
    given = [each for each in results.comparisons if each.workload == workload and each.comparison and each.ratios]
    if not given:
        return None
    shown = sorted(given, key=_p_least)[:MOST_PANELS]
    shown = [each for each in given if each in shown]
    arm_looks = looks(results.arms)
    columns = min(len(shown), 3)
    lines = -(-len(shown) // columns)
    with drawn(0.4 + 1.5 * lines) as figure:
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
        for axes, each in zip(grid, shown, strict=False):
            found, look = each.comparison, arm_looks[each.candidate]
            assert found is not None
            blocks, ratios = list(each.ratios), list(each.ratios.values())
            axes.axhline(1.0, color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
            axes.plot(blocks, ratios, color=look.color, linewidth=0.8, marker=look.marker, markersize=3)
            if found.order.drifts:
                ends = [found.order.first, found.order.last]
                axes.plot([blocks[0], blocks[-1]], ends, color=INK, linewidth=1.6)
            axes.set_title(f"{each.candidate}: {place(each.metric, each.levels)}", fontsize=7.5)
            axes.tick_params(labelsize=7)
            if min(ratios) > 0 and max(ratios) / min(ratios) > 8:
                axes.set_yscale("log")
        for axes in grid[len(shown) :]:
            axes.set_visible(False)
        figure.supxlabel("block, in the order of the run", fontsize=8)
        figure.supylabel(f"ratio to {results.baseline}", fontsize=8)
        image = svg(figure, name, f"{workload}: ratios in the order of the run", _told(shown))
    left = f" {len(given) - len(shown)} of {len(given)} comparisons are not drawn." if len(given) > len(shown) else ""
    caption = (
        f"The ratio of each arm to {results.baseline} in every block, in the order of the run. Blocks that are "
        "independent scatter without a pattern; neighbours that lie alike depend on each other. A thick line is a "
        f"drift that is shown.{left}"
    )
    return Picture(image, caption)


def _p_least(each: ComparisonFigures) -> float:
    assert each.comparison is not None
    return min(each.comparison.order.p_dependent, each.comparison.order.p_drift)


def _told(given: list[ComparisonFigures]) -> str:
    return "; ".join(
        f"{each.candidate}, {place(each.metric, each.levels)}: lag-1 correlation {_correlation(each.comparison)}"
        for each in given
        if each.comparison is not None
    )
