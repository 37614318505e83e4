"""How latencies are distributed: of all requests, so that one without an answer is seen to be without one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from anywire_experiment.analysis.arm_figures import ArmFigures
from anywire_experiment.analysis.blocks import PACED
from anywire_experiment.analysis.metrics import MEANINGS
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import Results
from anywire_experiment.analysis.sample_rows import Floats
from anywire_experiment.plan.metric import Metric
from anywire_experiment.report.drawing import Look, Picture, brief_names, drawn, legend, looks, svg, value_axis
from anywire_experiment.report.numbers import valued

CURVE_POINTS = 200
"""Points of a curve; more cannot be seen."""


class _Block(NamedTuple):
    """The values of the requests that were answered, from the smallest, and the number of those that were not."""

    answered: Floats
    failed: int

    @property
    def requests(self) -> int:
        return self.answered.size + self.failed

    def quantiles(self, shares: Floats) -> Floats:
        """Of all requests; NaN where they lie among those without an answer."""
        at = shares * (self.requests - 1)
        found: Floats = np.interp(at, np.arange(self.answered.size), self.answered)
        found[at > self.answered.size - 1] = np.nan
        return found


def distribution(
    record: RawData, results: Results, workload: str, metric: Metric, name: str, arms: Sequence[str]
) -> Picture | None:
    """The share of all requests that have a value below each one; None without any value."""
    given = {arm: blocks for arm in arms if (blocks := _blocks(record, arm, workload, metric))}
    if not given:
        return None
    meaning, arm_looks, names = MEANINGS[metric], looks(arms), brief_names(arms)
    shares = np.concatenate([np.linspace(0, 0.98, CURVE_POINTS), np.linspace(0.98, 1, CURVE_POINTS // 4)[1:]])
    pooled = {arm: _together(blocks) for arm, blocks in given.items()}
    with drawn(3.2) as figure:
        axes = figure.subplots()
        for arm, blocks in given.items():
            look = arm_looks[arm]
            for each in blocks if len(blocks) > 1 else []:
                axes.plot(each.quantiles(shares[::4]), shares[::4], color=look.color, linewidth=0.4, alpha=0.35)
            axes.plot(
                pooled[arm].quantiles(shares),
                shares,
                color=look.color,
                linestyle=look.line,
                linewidth=1.8,
                label=names[arm],
            )
        fastest = min(pooled, key=lambda arm: float(np.median(pooled[arm].answered)))
        for place_of, arm in enumerate(given):
            share = 0.9 - 0.8 * place_of / max(len(given) - 1, 1)
            share *= pooled[arm].answered.size / pooled[arm].requests
            at = float(pooled[arm].quantiles(np.array([share]))[0])
            look = arm_looks[arm]
            axes.plot([at], [share], marker=look.marker, color=look.color, markersize=6, linestyle="")
            label(axes, names[arm], at, share, left=arm == fastest)
        everything = np.concatenate([each.answered for each in pooled.values()])
        low, high = np.quantile(everything, [0.001, 0.998])
        value_axis(axes, float(low), float(high), "x")
        axes.set_xlabel(f"{meaning.title}, {meaning.unit}")
        axes.set_ylabel("share of requests below")
        axes.set_ylim(0, 1.01)
        legend(figure, axes)
        told = _typical(results, workload, metric, list(given))
        image = svg(figure, name, f"{workload}: distribution of {meaning.title}", told)
    failing = any(each.failed for each in pooled.values())
    short = " A curve that ends below 1: the rest of the requests failed." if failing else ""
    caption = f"Distribution of {meaning.title}, of all requests: thick, all blocks together; thin, each block.{short}"
    return Picture(image, f"{caption} {told}")


def _typical(results: Results, workload: str, metric: Metric, arms: Sequence[str]) -> str:
    """The same values as everywhere else, and not what the pooled curve comes to."""
    found = {each.arm: each.metrics.get(metric) for each in results.figures if each.workload == workload}
    told = [
        f"{arm} {valued(of.typical)}" for arm in arms if (of := found.get(arm)) is not None and of.typical is not None
    ]
    unit = MEANINGS[metric].unit
    return f"Typical values ({results.statistic} of each block, median of blocks), {unit}: {', '.join(told)}."


def percentiles(record: RawData, results: Results, workload: str, name: str, arms: Sequence[str]) -> Picture | None:
    """Latency by percentile, the tail stretched; None without any above zero."""
    given = {arm: blocks for arm in arms if (blocks := _blocks(record, arm, workload, "latency"))}
    given = {arm: blocks for arm, blocks in given.items() if min(each.answered[0] for each in blocks) > 0}
    if not given:
        return None
    arm_looks, names = looks(arms), brief_names(arms)
    with drawn(3.2) as figure:
        axes = figure.subplots()
        lowest, highest, longest = math.inf, 0.0, 1.0
        ends: dict[str, tuple[float, float]] = {}
        for arm, blocks in given.items():
            look = arm_looks[arm]
            most = 1 - 1 / max(min(each.requests for each in blocks), 2)
            shares = 1 - np.geomspace(1.0, 1 - most, CURVE_POINTS // 2)
            line = np.median([each.quantiles(shares) for each in blocks], axis=0)
            shares, line = shares[np.isfinite(line)], line[np.isfinite(line)]
            axes.plot(1 / (1 - shares), line, color=look.color, linestyle=look.line, linewidth=1.6, label=names[arm])
            ends[names[arm]] = 1 / (1 - float(shares[-1])), float(line[-1])
            of = next(each for each in results.figures if (each.arm, each.workload) == (arm, workload))
            aside = 1 + 0.03 * (list(given).index(arm) - (len(given) - 1) / 2)
            highest = max(highest, float(line[-1]), _marks(axes, of, look, aside))
            lowest, longest = min(lowest, float(line[0])), max(longest, 1 / (1 - most))
        axes.set_xscale("log")
        axes.set_xlim(1, longest * 1.6)
        ticks = [at for at in (0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 0.9999) if 1 / (1 - at) <= longest * 1.001]
        axes.xaxis.set_major_locator(FixedLocator([1 / (1 - at) for at in ticks]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{100 * (1 - 1 / at):.4g} %"))
        axes.xaxis.set_minor_locator(NullLocator())
        value_axis(axes, lowest, highest, "y")
        axes.set_xlabel("percentile of all requests, the tail stretched")
        axes.set_ylabel("latency, ms")
        _apart(axes, ends)
        legend(figure, axes)
        image = svg(figure, name, f"{workload}: latency by percentile", "The percentiles table has the figures.")
    caption = (
        "Latency by percentile of all requests: median of the blocks, as far as a block has requests; a curve ends "
        "where requests without an answer begin. Marks with intervals over the blocks at 50, 90, 95 and 99 %."
    )
    return Picture(image, caption)


def label(axes: Axes, arm: str, x: float, y: float, *, up: float = 0.0, left: bool = False) -> None:
    """Beside the arm's own line, so that no colour has to be looked up; raised by ``up`` points."""
    side, across = ("right", -7) if left else ("left", 7)
    axes.annotate(
        arm, (x, y), xytext=(across, up - 3), textcoords="offset points", fontsize=8, ha=side, annotation_clip=False
    )


def _blocks(record: RawData, arm: str, workload: str, metric: Metric) -> list[_Block]:
    if metric in PACED and record.is_burst(arm, workload):
        return []
    found = record.measured(arm, workload).values()
    return [_Block(np.sort(each.series(metric)), each.lacking(metric)) for each in found if each.series(metric).size]


def _together(blocks: Sequence[_Block]) -> _Block:
    return _Block(np.sort(np.concatenate([each.answered for each in blocks])), sum(each.failed for each in blocks))


def _apart(axes: Axes, ends: dict[str, tuple[float, float]]) -> None:
    """Label the ends of lines, each clear of the one below."""
    points = 72.0 / axes.figure.dpi
    lowest = -math.inf
    for arm, (x, y) in sorted(ends.items(), key=lambda each: each[1][1]):
        at = float(axes.transData.transform((x, y))[1]) * points
        lowest = max(at, lowest + 9.0)
        label(axes, arm, x, y, up=lowest - at)


def _marks(axes: Axes, of: ArmFigures, look: Look, aside: float) -> float:
    """The percentiles that the table has, with their intervals; returns the highest limit."""
    found = of.metrics["latency"].percentiles if "latency" in of.metrics else None
    highest = 0.0
    if found is None:
        return highest
    for share, estimate in ((0.5, found.p50), (0.9, found.p90), (0.95, found.p95), (0.99, found.p99)):
        if estimate is not None:
            limits = estimate.interval
            around = [[estimate.value - limits.low], [limits.high - estimate.value]] if limits else None
            highest = max(highest, limits.high if limits else estimate.value)
            axes.errorbar(
                [aside / (1 - share)],
                [estimate.value],
                yerr=around,
                color=look.color,
                marker=look.marker,
                markersize=5,
                capsize=2.5,
                linewidth=1.0,
            )
    return highest
