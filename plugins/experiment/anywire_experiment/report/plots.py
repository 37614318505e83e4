"""The figures of one workload."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from anywire_experiment.analysis import RawData
from anywire_experiment.measures import MEANINGS, Floats, Measured, column
from anywire_experiment.plan import Metric
from anywire_experiment.report.drawing import FAINT, INK, PAPER, Look, drawn, looks, svg
from anywire_experiment.report.numbers import number, percent_change
from anywire_experiment.results import ArmFigures, ComparisonFigures, Results
from anywire_experiment.wording import MINUS, place

CURVE_POINTS, BINS = 200, 120
"""Points of a distribution's curve, and of a time line's; more cannot be seen."""
LATENCY: Metric = "latency"
WIDEST = 20.0
"""Ratio beyond which an interval is cut, with an arrow."""
_MOMENTS = {"kill": "-", "pause": "-", "partition": "-", "agent_lost": ":"} | dict.fromkeys(
    ("start", "continue", "restore"), "-."
)
_CHANGES = (-95, -90, -80, -67, -50, -33, -20, -10, -5, -2, 0, 2, 5, 10, 25, 50, 100, 200, 400, 900, 1900)


class Picture(NamedTuple):
    """A figure with what is said below it."""

    image: Markup
    caption: str


def of_workload(record: RawData, results: Results, workload: str, name: str) -> list[Picture]:
    """``name`` begins the ids of the figures. Figures for which there are no data are left out."""
    made = [_intervals(results, workload, f"{name}-intervals")]
    sampled: list[Metric] = [each for each in record.metrics(workload) if not MEANINGS[each].single]
    for metric in sampled or (LATENCY,):
        made.append(_distribution(record, workload, metric, f"{name}-ecdf-{metric}"))
    made.append(_percentiles(record, results, workload, f"{name}-percentiles"))
    made.append(_time_line(record, workload, f"{name}-time"))
    made.append(_stages(results, workload, f"{name}-stages"))
    return [each for each in made if each is not None]


def _intervals(results: Results, workload: str, name: str) -> Picture | None:
    given = [each for each in results.comparisons if each.workload == workload and each.comparison is not None]
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
    least = 2 * math.log(reach) / 9
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
        _value_axis(axes, float(low), float(high), "x")
        axes.set_xlabel(f"{title}, {MEANINGS[metric].unit}")
        axes.set_ylabel("share of answers below")
        axes.set_ylim(0, 1.01)
        _legend(figure, axes)
        medians = ", ".join(f"{arm} {number(float(np.median(np.concatenate(each))))}" for arm, each in given.items())
        told = f"Medians in {MEANINGS[metric].unit}: {medians}"
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


def _value_axis(axes: Axes, low: float, high: float, which: str) -> None:
    """Of times: logarithmic where they span more than a factor of 8."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    set_limits = axes.set_xlim if which == "x" else axes.set_ylim
    if low > 0 and high / low > 8:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        set_limits(low / 1.1, high * 1.25)
        few = math.log10(high / low) < 1.5
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
        axis.set_minor_formatter(NullFormatter())
    else:
        set_limits(max(low - 0.1 * (high - low), 0.0), high + 0.12 * (high - low) or 1.0)
    axis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:g}"))


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
        _value_axis(axes, lowest, highest, "y")
        axes.set_xlabel("percentile, the tail stretched")
        axes.set_ylabel("latency, ms")
        _apart(axes, ends)
        _legend(figure, axes)
        image = svg(figure, name, f"{workload}: latency by percentile", "The percentiles table has the figures.")
    caption = (
        "Latency by percentile: geometric mean of the blocks, as far as a block has samples. Marks with intervals over "
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
            around = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
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


def _time_line(record: RawData, workload: str, name: str) -> Picture | None:
    given = {arm: blocks for arm in record.arms if (blocks := record.measured(arm, workload))}
    given = {arm: blocks for arm, blocks in given.items() if any(each.requests for each in blocks.values())}
    if not given:
        return None
    everything = [each for blocks in given.values() for each in blocks.values()]
    took = np.concatenate([each.series("latency") for each in everything])
    low, high = (float(took.min()), float(took.max())) if took.size else (0.1, 1.0)
    end = max(_seconds(each, each.rows).max(initial=0.0) for each in everything) or 1.0
    columns = 2 if len(given) > 1 else 1
    rows = -(-len(given) // columns)
    with drawn(0.6 + 1.75 * rows) as figure:
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, (arm, blocks) in zip(panels, given.items(), strict=False):
            _panel(axes, blocks, looks(record.arms)[arm], end)
            axes.set_title(arm)
        for axes in panels[len(given) :]:
            axes.set_visible(False)
        _value_axis(panels[0], low, high, "y")
        panels[0].set_xlim(0, end)
        figure.supxlabel("seconds after the measurement began", fontsize=9)
        figure.supylabel("latency, ms", fontsize=9)
        image = svg(figure, name, f"{workload}: latency over time", f"One panel per arm: {', '.join(given)}")
    caption = (
        "Latency over time, by when a request was meant to be sent. Thin: the median of each block; thick: of all "
        "blocks; dashed: the slowest of any block. Crosses at the bottom: requests that failed. Vertical lines: a "
        "fault (solid), its notice (dotted) and its end (dash-dotted), each of the blocks."
    )
    return Picture(image, caption)


def _seconds(measured: Measured, rows: pa.Table) -> Floats:
    """When requests were meant to be sent, after the measurement began."""
    began = measured.began_ns or (column(measured.rows, "intended_ns").min() if measured.requests else 0)
    seconds: Floats = (column(rows, "intended_ns") - began) / 1e9
    return seconds


def _panel(axes: Axes, blocks: dict[int, Measured], look: Look, end: float) -> None:
    edges = np.linspace(0, end, BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    medians, slowest = [], []
    for measured in blocks.values():
        latency = measured.series("latency")
        if not latency.size:
            continue
        bins = np.clip(np.digitize(_seconds(measured, measured.whole), edges) - 1, 0, BINS - 1)
        grouped = [latency[bins == at] for at in range(BINS)]
        medians.append([np.median(each) if each.size else np.nan for each in grouped])
        slowest.append([each.max() if each.size else np.nan for each in grouped])
        known = np.isfinite(medians[-1])
        axes.plot(middles[known], np.array(medians[-1])[known], color=look.color, linewidth=0.4, alpha=0.5)
    if medians:
        somewhere = np.isfinite(medians).any(axis=0)
        middle, most = np.array(medians)[:, somewhere], np.array(slowest)[:, somewhere]
        axes.plot(middles[somewhere], np.nanmedian(middle, axis=0), color=look.color, linewidth=1.8)
        axes.plot(middles[somewhere], np.nanmax(most, axis=0), color=INK, linewidth=0.7, linestyle=(0, (3, 2)))
    failed = [_seconds(each, each.rows.filter(pc.not_equal(each.rows["outcome"], "ok"))) for each in blocks.values()]
    at = np.unique(np.clip(np.digitize(np.concatenate(failed), edges) - 1, 0, BINS - 1))
    low = np.full(at.size, 0.03)
    axes.plot(middles[at], low, "x", color=INK, markersize=4, transform=axes.get_xaxis_transform())
    for measured in blocks.values():
        for event in measured.events:
            if (line := _MOMENTS.get(event.what)) is not None:
                moment = (event.at_ns - measured.began_ns) / 1e9
                axes.axvline(moment, color=INK, linestyle=line, linewidth=0.7, alpha=0.6)


def _stages(results: Results, workload: str, name: str) -> Picture | None:
    arms = [each for each in results.figures if each.workload == workload and each.stages_us]
    if not arms:
        return None
    parts = list(dict.fromkeys(part for each in arms for part in each.stages_us))
    styles = dict(zip(parts, looks(parts).values(), strict=True))
    with drawn(1.5 + 0.42 * len(arms)) as figure:
        axes = figure.subplots()
        total = max(sum(each.stages_us.values()) for each in arms)
        for row, each in enumerate(arms):
            _bar(axes, row, each, styles, total)
        axes.set_yticks(range(len(arms)), [each.arm for each in arms])
        axes.set_ylim(len(arms) - 0.4, -0.6)
        axes.set_xlim(0, total * 1.08)
        axes.set_xlabel("µs, median of each part")
        axes.grid(visible=False, axis="y")
        handles, labels = axes.get_legend_handles_labels()
        first = {label: handle for handle, label in zip(reversed(handles), reversed(labels), strict=True)}
        names = [f"{at} {part}" for at, part in enumerate(parts, start=1)]
        figure.legend(
            [first[part] for part in parts], names, loc="outside lower left", ncols=3, fontsize=8, handlelength=2.4
        )
        told = "; ".join(f"{each.arm} {number(sum(each.stages_us.values()))} µs" for each in arms)
        image = svg(figure, name, f"{workload}: where the time goes", f"Sums of the medians: {told}")
    return Picture(image, "Where a request's time goes: the median of each part of its way, in order of the way.")


def _bar(axes: Axes, row: int, each: ArmFigures, styles: dict[str, Look], total: float) -> None:
    left = 0.0
    for number_of, (part, look) in enumerate(styles.items(), start=1):
        width = max(each.stages_us.get(part, 0.0), 0.0)
        axes.barh(
            row,
            width,
            left=left,
            height=0.62,
            facecolor=PAPER,
            edgecolor=look.color,
            hatch=look.hatch or "",
            linewidth=1.0,
            label=part,
        )
        if width > 0.035 * total:
            box = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.0}
            axes.text(left + width / 2, row, str(number_of), ha="center", va="center", fontsize=8, bbox=box)
        left += width
    axes.text(left + 0.01 * total, row, f"{number(left)} µs", va="center", fontsize=8)
