"""The figures of one workload."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from anywire_experiment.analysis.blocks import PACED
from anywire_experiment.analysis.metrics import MEANINGS
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import ComparisonFigures, Results
from anywire_experiment.analysis.sample_rows import Floats
from anywire_experiment.analysis.wording import MINUS, place
from anywire_experiment.plan import OF_REQUESTS, Metric
from anywire_experiment.report import faults, run_order, timing
from anywire_experiment.report.drawing import FAINT, INK, PAPER, Look, Picture, drawn, looks, svg, value_axis
from anywire_experiment.report.numbers import number, percent_change
from anywire_experiment.report.quality_plot import against_cost

CURVE_POINTS = 200
"""Points of a curve; more cannot be seen."""
LATENCY: Metric = "latency"
WIDEST = 20.0
"""Ratio beyond which an interval is cut, with an arrow."""
_CHANGES = (-95, -90, -80, -67, -50, -33, -20, -10, -5, -2, 0, 2, 5, 10, 25, 50, 100, 200, 400, 900, 1900)


def of_workload(record: RawData, results: Results, workload: str, name: str) -> list[Picture]:
    """``name`` begins the ids of the figures. Figures for which there are no data are left out."""
    made = [_intervals(results, workload, f"{name}-intervals"), against_cost(results, workload, f"{name}-quality")]
    sampled: list[Metric] = [each for each in record.metrics(workload) if each in OF_REQUESTS]
    for metric in sampled or (LATENCY,):
        made.append(_distribution(record, workload, metric, f"{name}-ecdf-{metric}"))
    made.append(_percentiles(record, results, workload, f"{name}-percentiles"))
    made.append(run_order.picture(results, workload, f"{name}-order"))
    made.append(timing.time_line(record, workload, f"{name}-time"))
    made.append(faults.waiting(results, workload, f"{name}-waiting"))
    made.append(timing.stages(results, workload, f"{name}-stages"))
    return [each for each in made if each is not None]


def _intervals(results: Results, workload: str, name: str) -> Picture | None:
    given = [each for each in results.comparisons if each.workload == workload and each.comparison and each.verdict]
    if not given:
        return None
    arm_looks = looks(results.arms)
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
        axes.set_yticks(range(len(given)), [f"{each.candidate}: {place(each.metric, each.levels)}" for each in given])
        shown = _spread_out([at for at in _CHANGES if 1 / reach <= 1 + at / 100 <= reach], reach)
        axes.xaxis.set_major_locator(FixedLocator([1 + at / 100 for at in shown]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: _signed(100 * (at - 1))))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(f"change against {results.baseline} (ratio scale)")
        axes.grid(visible=False, axis="y")
        image = svg(figure, name, f"{workload}: intervals against {results.baseline}", _told(given))
    caption = (
        f"Each arm against {results.baseline}: the mark is the estimate, the thin line its "
        f"{100 * results.confidence:g} % interval, the thick one that of equivalence. Band between the dotted lines: "
        f"less than {100 * results.margin:g} % apart, which was agreed not to matter. Filled mark: a "
        "difference is shown."
    )
    return Picture(image, caption)


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


def _series(record: RawData, arm: str, workload: str, metric: Metric) -> list[Floats]:
    if metric in PACED and record.is_burst(arm, workload):
        return []
    found = (each.series(metric) for each in record.measured(arm, workload).values())
    return [each for each in found if each.size]


def _distribution(record: RawData, workload: str, metric: Metric, name: str) -> Picture | None:
    given = {arm: series for arm in record.arms if (series := _series(record, arm, workload, metric))}
    if not given:
        return None
    title = MEANINGS[metric].title
    arm_looks = looks(record.arms)
    shares = np.concatenate([np.linspace(0, 0.98, CURVE_POINTS), np.linspace(0.98, 1, CURVE_POINTS // 4)[1:]])
    with drawn(3.2) as figure:
        axes = figure.subplots()
        for arm, series in given.items():
            look = arm_looks[arm]
            for each in series if len(series) > 1 else []:
                axes.plot(np.quantile(each, shares[::4]), shares[::4], color=look.color, linewidth=0.4, alpha=0.35)
            at = np.quantile(np.concatenate(series), shares)
            axes.plot(at, shares, color=look.color, linestyle=look.line, linewidth=1.8, label=arm)
        fastest = min(given, key=lambda arm: float(np.median(np.concatenate(given[arm]))))
        for place_of, (arm, series) in enumerate(given.items()):
            share = 0.9 - 0.8 * place_of / max(len(given) - 1, 1)
            at = float(np.quantile(np.concatenate(series), share))
            look = arm_looks[arm]
            axes.plot([at], [share], marker=look.marker, color=look.color, markersize=6, linestyle="")
            _label(axes, arm, at, share, left=arm == fastest)
        everything = np.concatenate([each for series in given.values() for each in series])
        low, high = np.quantile(everything, [0.001, 0.998])
        value_axis(axes, float(low), float(high), "x")
        axes.set_xlabel(f"{title}, {MEANINGS[metric].unit}")
        axes.set_ylabel("share of answers below")
        axes.set_ylim(0, 1.01)
        _legend(figure, axes)
        medians = ", ".join(f"{arm} {number(float(np.median(np.concatenate(each))))}" for arm, each in given.items())
        told = f"Medians of all answers, blocks pooled, in {MEANINGS[metric].unit}: {medians}"
        image = svg(figure, name, f"{workload}: distribution of {title}", told)
    caption = f"Distribution of {title}: thick, all blocks together; thin, each block. {told}."
    return Picture(image, caption)


def _label(axes: Axes, arm: str, x: float, y: float, *, up: float = 0.0, left: bool = False) -> None:
    """Beside the arm's own line, so that no colour has to be looked up; raised by ``up`` points."""
    side, across = ("right", -7) if left else ("left", 7)
    axes.annotate(
        arm, (x, y), xytext=(across, up - 3), textcoords="offset points", fontsize=8, ha=side, annotation_clip=False
    )


def _apart(axes: Axes, ends: dict[str, tuple[float, float]]) -> None:
    """Label the ends of lines, each clear of the one below."""
    points = 72.0 / axes.figure.dpi
    lowest = -math.inf
    for arm, (x, y) in sorted(ends.items(), key=lambda each: each[1][1]):
        at = float(axes.transData.transform((x, y))[1]) * points
        lowest = max(at, lowest + 9.0)
        _label(axes, arm, x, y, up=lowest - at)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 4), fontsize=8, handlelength=3.2)


def _percentiles(record: RawData, results: Results, workload: str, name: str) -> Picture | None:
    given = {arm: series for arm in record.arms if (series := _series(record, arm, workload, "latency"))}
    given = {arm: series for arm, series in given.items() if min(each.min() for each in series) > 0}
    if not given:
        return None
    arm_looks = looks(record.arms)
    with drawn(3.2) as figure:
        axes = figure.subplots()
        lowest, highest = math.inf, 0.0
        longest = 1.0
        ends: dict[str, tuple[float, float]] = {}
        for arm, series in given.items():
            look = arm_looks[arm]
            most = 1 - 1 / max(min(each.size for each in series), 2)
            shares = 1 - np.geomspace(1.0, 1 - most, CURVE_POINTS // 2)
            blocks = np.log([np.quantile(each, shares) for each in series])
            line = np.exp(blocks.mean(axis=0))
            axes.plot(1 / (1 - shares), line, color=look.color, linestyle=look.line, linewidth=1.6, label=arm)
            ends[arm] = 1 / (1 - most), float(line[-1])
            _percentile_marks(axes, results, arm, workload, look)
            lowest, highest = min(lowest, float(line[0])), max(highest, float(line[-1]))
            longest = max(longest, 1 / (1 - most))
        axes.set_xscale("log")
        axes.set_xlim(1, longest * 1.6)
        ticks = [at for at in (0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 0.9999) if 1 / (1 - at) <= longest * 1.001]
        axes.xaxis.set_major_locator(FixedLocator([1 / (1 - at) for at in ticks]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{100 * (1 - 1 / at):.4g} %"))
        axes.xaxis.set_minor_locator(NullLocator())
        value_axis(axes, lowest, highest, "y")
        axes.set_xlabel("percentile, the tail stretched")
        axes.set_ylabel("latency, ms")
        _apart(axes, ends)
        _legend(figure, axes)
        image = svg(figure, name, f"{workload}: latency by percentile", "The percentiles table has the figures.")
    caption = (
        "Latency by percentile: median of the blocks, as far as a block has samples. Marks with intervals over "
        "the blocks at 50, 90, 95 and 99 %."
    )
    return Picture(image, caption)


def _percentile_marks(axes: Axes, results: Results, arm: str, workload: str, look: Look) -> None:
    figures = next(each for each in results.figures if each.arm == arm and each.workload == workload)
    found = figures.metrics["latency"].percentiles if "latency" in figures.metrics else None
    if found is None:
        return
    shift = 1 + 0.03 * (results.arms.index(arm) - (len(results.arms) - 1) / 2)
    for share, estimate in ((0.5, found.p50), (0.9, found.p90), (0.95, found.p95), (0.99, found.p99)):
        if estimate is not None:
            limits = estimate.interval
            around = [[estimate.value - limits.low], [limits.high - estimate.value]] if limits else None
            axes.errorbar(
                [shift / (1 - share)],
                [estimate.value],
                yerr=around,
                color=look.color,
                marker=look.marker,
                markersize=5,
                capsize=2.5,
                linewidth=1.0,
            )
