"""The figure of the comparisons of a workload: estimates with their intervals, and the margin."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from anywire_experiment.analysis.results import ComparisonFigures, Results
from anywire_experiment.analysis.wording import MINUS, place
from anywire_experiment.report.drawing import FAINT, INK, PAPER, Look, Picture, brief, brief_names, drawn, looks, svg
from anywire_experiment.report.numbers import percent_change

WIDEST = 20.0
"""Ratio beyond which an interval is cut, with an arrow."""
MOST_ROWS = 40
"""Of the figure; the table has all."""
MOST_OF_PLACE = 36
"""Letters for the metric and the levels of other factors."""
_CHANGES = (-95, -90, -80, -67, -50, -33, -20, -10, -5, -2, 0, 2, 5, 10, 25, 50, 100, 200, 400, 900, 1900)


def picture(results: Results, workload: str, name: str) -> Picture | None:
    """None where nothing was judged by a ratio."""
    every = [each for each in results.comparisons if each.workload == workload and each.comparison and each.verdict]
    if not every:
        return None
    given = _most_apart(every)
    arm_looks, names = looks(results.arms), brief_names(results.arms)
    with drawn(1.1 + 0.34 * len(given)) as figure:
        axes = figure.subplots()
        edge = 1 + results.margin
        axes.axvspan(1 / edge, edge, facecolor=FAINT, alpha=0.45, linewidth=0)
        for limit in (1 / edge, edge):
            axes.axvline(limit, color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
        axes.axvline(1.0, color=INK, linewidth=1.0)
        reach = edge**1.6
        for row, each in enumerate(given):
            assert each.comparison is not None
            reach = max(
                reach, *(max(at, 1 / at) * 1.05 for at in (each.comparison.ratio.low, each.comparison.ratio.high))
            )
            _interval(axes, row, each, arm_looks[each.candidate])
        reach = min(reach, WIDEST)
        axes.set_xscale("log")
        axes.set_xlim(1 / reach, reach)
        axes.set_ylim(len(given) - 0.4, -0.6)
        axes.set_yticks(range(len(given)), [_row_of(each, names) for each in given])
        shown = _spread_out([at for at in _CHANGES if 1 / reach <= 1 + at / 100 <= reach], reach)
        axes.xaxis.set_major_locator(FixedLocator([1 + at / 100 for at in shown]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: _signed(100 * (at - 1))))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(f"change against {brief(results.baseline)} (ratio scale)")
        axes.grid(visible=False, axis="y")
        image = svg(figure, name, f"{workload}: intervals against {results.baseline}", _told(given))
    left_out = f" Drawn are the {len(given)} of {len(every)} comparisons whose estimates are farthest from 0."
    caption = (
        f"Each arm against {results.baseline}: the mark is the estimate, the thin line its "
        f"{100 * results.confidence:g} % interval, the thick one that of equivalence. Band between the dotted lines: "
        f"less than {100 * results.margin:g} % apart, which was agreed not to matter. Filled mark: a "
        f"difference is shown.{left_out if len(given) < len(every) else ''}"
    )
    return Picture(image, caption)


def _row_of(each: ComparisonFigures, names: dict[str, str]) -> str:
    return f"{names[each.candidate]}: {brief(place(each.metric, each.levels), MOST_OF_PLACE)}"


def _most_apart(given: list[ComparisonFigures]) -> list[ComparisonFigures]:
    """In the order given."""

    def apart(each: ComparisonFigures) -> float:
        assert each.comparison is not None
        return -abs(math.log(each.comparison.ratio.value))

    chosen = {id(each) for each in sorted(given, key=apart)[:MOST_ROWS]}
    return [each for each in given if id(each) in chosen]


def _interval(axes: Axes, row: int, each: ComparisonFigures, look: Look) -> None:
    found, verdict = each.comparison, each.verdict
    assert found is not None
    assert verdict is not None
    axes.plot(
        [found.ratio.low, found.ratio.high], [row, row], color=look.color, linewidth=1.2, marker="|", markersize=8
    )
    axes.plot([found.equivalence.low, found.equivalence.high], [row, row], color=look.color, linewidth=3.5)
    at = min(max(found.ratio.value, 1 / WIDEST), WIDEST)
    shape = look.marker if at == found.ratio.value else ">" if at > 1 else "<"
    inside = look.color if verdict.different else PAPER
    axes.plot([at], [row], marker=shape, markersize=7, markerfacecolor=inside, markeredgecolor=look.color)
    axes.text(1.01, row, verdict.words, transform=axes.get_yaxis_transform(), va="center", fontsize=8)


def _spread_out(changes: list[int], reach: float) -> list[int]:
    """Without those that would stand too close; 0 stays, and the ones on each side are taken outwards from it."""
    least = 2 * math.log(reach) / 7
    kept = [0]
    for side in ([at for at in changes if at > 0], [at for at in reversed(changes) if at < 0]):
        last = 0.0
        for at in side:
            if abs(math.log1p(at / 100) - last) >= least:
                kept.append(at)
                last = math.log1p(at / 100)
    return sorted(kept)


def _signed(percent: float) -> str:
    return "0 %" if round(percent) == 0 else f"{percent:+.0f} %".replace("-", MINUS)


def _told(given: Sequence[ComparisonFigures]) -> str:
    return "; ".join(
        f"{each.candidate}, {place(each.metric, each.levels)}: {percent_change(each.comparison.ratio)}"
        for each in given
        if each.comparison is not None
    )
