"""What results say of the design of an experiment: orders, places, interactions, lateness of the load, steadiness."""

from __future__ import annotations

import msgspec

from anywire_experiment.plan.balance import Balance
from anywire_experiment.statistics import Comparison
from anywire_experiment.statistics.place import PlaceEffects
from anywire_experiment.statistics.samples import Estimate


class PlaceFigures(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the place in a block does to a metric of a workload, over all arms. ``effects`` is None where it cannot be
    told, and ``reason`` says why. ``removed``: it was shown (p at or below 0.05), and comparisons are without it."""

    workload: str
    metric: str
    effects: PlaceEffects | None = None
    removed: bool = False
    reason: str = ""


class DesignFigures(msgspec.Struct, frozen=True):
    """In which orders the arms ran, and what that did. ``order`` is how even the orders were, of the cells that
    count; ``told`` is the same in a sentence."""

    order: Balance
    told: str
    places: list[PlaceFigures]


class InteractionFigures(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether the ratio of two levels of the compared factor is the same at two levels of another ``factor``.

    ``comparison`` is that of the ratios: its ratio is that of candidate to baseline at the second of ``levels``, by the
    one at the first. None where it cannot be told, and ``reason`` says why. ``outcome``: ``same`` (within the margin),
    ``differs`` or ``not enough data``, all interactions of the experiment judged together. ``others`` are the
    levels of the factors beside these two.
    """

    workload: str
    metric: str
    baseline: str
    candidate: str
    factor: str
    levels: list[str]
    others: dict[str, str]
    comparison: Comparison | None
    outcome: str
    sentence: str
    reason: str = ""


class LatenessFigures(msgspec.Struct, frozen=True):
    """How late the load generator sent: from the moment that a request was meant for to the one in which it was sent,
    a new connection included. ``p50_ms`` and ``p99_ms``: median over the blocks of each block's. ``typical_ms`` is that
    of the plan's statistic, and ``share`` what it is of the arm's typical latency, None without one. ``cores``: of how
    many cores the generator used the time, median over the blocks, None when that is unknown."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    typical_ms: float
    share: float | None
    cores: float | None


class SteadyFigures(msgspec.Struct, frozen=True):
    """Whether the latency was steady while it was measured.

    ``blocks`` had 200 whole answers, which are enough to tell; in ``stepped`` of them there is a step from one level to
    another, where 5 % would have one by chance. ``start`` is the latency of the first fifth by that of the last half
    (geometric mean over the blocks), with its interval; ``p`` that of "there is no difference". ``shown``: one of both
    is more than chance, with ``p_adjusted`` at most 5 %, all arms and workloads looked at together.
    """

    blocks: int
    stepped: int
    start: Estimate | None
    p: float
    p_adjusted: float
    shown: bool
