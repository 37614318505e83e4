"""The figures of one workload that tell when, and where on its way, time went."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes

from anywire_experiment.analysis.arm_figures import ArmFigures
from anywire_experiment.analysis.measured import Measured
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import Results
from anywire_experiment.analysis.sample_rows import Floats, column
from anywire_experiment.report.drawing import INK, PAPER, Look, Picture, brief_names, drawn, looks, svg, value_axis
from anywire_experiment.report.numbers import number

BINS = 120
"""Points of a time line; more cannot be seen."""


def time_line(record: RawData, workload: str, name: str, arms: Sequence[str]) -> Picture | None:
    given = {arm: blocks for arm in arms if (blocks := record.measured(arm, workload))}
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
            _panel(axes, blocks, looks(arms)[arm], end)
            axes.set_title(brief_names(arms)[arm])
        for axes in panels[len(given) :]:
            axes.set_visible(False)
        value_axis(panels[0], low, high, "y")
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
        fault, notice, mended = measured.fault(), measured.notice(), measured.mended_ns()
        moments = [(fault.at_ns if fault else 0, "-"), (notice.at_ns if notice else 0, ":"), (mended, "-.")]
        for at_ns, line in moments:
            if at_ns:
                moment = (at_ns - measured.began_ns) / 1e9
                axes.axvline(moment, color=INK, linestyle=line, linewidth=0.7, alpha=0.6)


def stages(results: Results, workload: str, name: str, drawn_arms: Sequence[str]) -> Picture | None:
    given = [each for each in results.figures if each.workload == workload and each.stages_us]
    arms = [each for each in given if each.arm in drawn_arms]
    if not arms:
        return None
    parts = list(dict.fromkeys(part for each in arms for part in each.stages_us))
    styles = dict(zip(parts, looks(parts).values(), strict=True))
    with drawn(1.5 + 0.42 * len(arms)) as figure:
        axes = figure.subplots()
        total = max(sum(each.stages_us.values()) for each in arms)
        for row, each in enumerate(arms):
            _bar(axes, row, each, styles, total)
        axes.set_yticks(range(len(arms)), [brief_names(drawn_arms)[each.arm] for each in arms])
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
