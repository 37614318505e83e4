"""Every figure of a report, as ``results.json`` holds it."""

from __future__ import annotations

import msgspec

from anywire_experiment.analysis.arm_figures import ArmFigures
from anywire_experiment.analysis.design_figures import DesignFigures, InteractionFigures
from anywire_experiment.analysis.survivors import Bounds
from anywire_experiment.statistics import Comparison, ShareComparison, Verdict
from anywire_experiment.statistics.samples import Estimate

FORMAT = 5


class CellState(msgspec.Struct, frozen=True):
    """A cell, whether it counts, and if not, why. ``unsteady`` names the workloads whose warm-up ended without a steady
    latency; ``load_average`` is of the minute before it began, None when unknown."""

    block: int
    arm: str
    order: int
    state: str
    reason: str
    requests: int
    failed: int
    unsteady: list[str]
    load_average: float | None


class ComparisonFigures(msgspec.Struct, frozen=True, omit_defaults=True):
    """A level of the compared factor against the baseline, all else equal.

    ``comparison`` and ``verdict`` are None when there is no ratio or no interval of it, and ``reason`` says why. Where
    the reason is a value that may be zero, ``difference`` is there instead, in the metric's unit; nothing is judged by
    it, for the margin is a ratio. ``ratios`` are candidate / baseline by block, in run order. ``excluded`` says of each
    block that does not count why. ``sentence`` is the finding in words, ``caution`` what a reader must know beside it:
    failed requests, blocks left out.
    """

    workload: str
    metric: str
    baseline: str
    candidate: str
    levels: dict[str, str]
    """The levels of the other factors."""
    comparison: Comparison | None
    verdict: Verdict | None
    difference: Estimate | None
    reason: str
    excluded: dict[int, str]
    sentence: str
    caution: list[str]
    shares: ShareComparison | None = None
    """Of a share that is judged by its difference, in the place of ``comparison``."""
    bounds: Bounds | None = None
    """What may have been of what is missing: failed requests, blocks. None where nothing is."""
    ratios: dict[int, float] = {}


class SameAnswers(msgspec.Struct, frozen=True):
    """Of the requests that several arms answered, how many got the same text from all of them. With a deterministic
    engine and equal settings that is all."""

    workload: str
    compared: int
    equal: int


class PairedAnswers(msgspec.Struct, frozen=True):
    """Of the exercises that two arms were both asked in the same block: how many were answered right by both, by one
    alone, by none."""

    workload: str
    baseline: str
    candidate: str
    both: int
    baseline_alone: int
    candidate_alone: int
    neither: int


class Results(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole experiment. ``headline`` is one sentence on all findings; ``cautions`` are of the run as a whole."""

    format: int
    name: str
    question: str
    compared: str
    baseline: str
    blocks: int
    margin: float
    confidence: float
    statistic: str
    arms: list[str]
    workloads: list[str]
    headline: str
    cautions: list[str]
    cells: list[CellState]
    figures: list[ArmFigures]
    comparisons: list[ComparisonFigures]
    same_answers: list[SameAnswers]
    paired_answers: list[PairedAnswers] = []
    """Where answers were checked."""
    objective: str = ""
    """What the plan wants an answer to hold, in words."""
    design: DesignFigures | None = None
    interactions: list[InteractionFigures] = []
