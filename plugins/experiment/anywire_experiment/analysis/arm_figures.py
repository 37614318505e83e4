"""The figures of one arm under one workload, as ``results.json`` holds them."""

from __future__ import annotations

import msgspec

from anywire_experiment.analysis.design_figures import LatenessFigures, SteadyFigures
from anywire_experiment.analysis.energy import EnergyFigures
from anywire_experiment.analysis.goodput import ObjectiveFigures
from anywire_experiment.analysis.survival import WaitingCurve
from anywire_experiment.statistics.samples import Estimate


class Valued(msgspec.Struct, frozen=True):
    """A value over blocks and its interval, which is None where so few, or so different, blocks do not tell one."""

    value: float
    interval: Estimate | None


class StreamShape(msgspec.Struct, frozen=True):
    """How the streams of one arm and workload arrived, medians over all of them: so many ``tokens``, in so many
    ``pieces``, at so many ``moments`` 0.05 ms or more apart. ``burst``: most of them came at fewer moments than
    half of their pieces, or faster than a token in 0.05 ms, so that there is no time between tokens to be judged."""

    tokens: float
    pieces: float
    moments: float
    burst: bool


class Percentiles(msgspec.Struct, frozen=True):
    """The median over the blocks of each percentile of a block, with its interval over blocks. They are of all
    requests: one that failed counts as slower than every answer. None is one for which a block has too few answers (100
    for p99, 20 for p95), or which lies among the failures of a block."""

    p50: Valued | None
    p90: Valued | None
    p95: Valued | None
    p99: Valued | None


class MetricFigures(msgspec.Struct, frozen=True):
    """A metric of one arm and workload over all blocks.

    ``values`` has the plan's statistic of each block that counts, by block number. ``samples`` were measured in all;
    ``effective`` is how many independent ones they are worth, by the autocorrelation within the blocks. ``typical`` is
    what the values come to: their median over the blocks, or for shares of requests that of all requests. It is None
    without a block that counts. Percentiles are None with fewer than two blocks, and where a block gives one number.
    """

    unit: str
    values: dict[int, float]
    samples: int
    effective: float
    typical: Valued | None
    percentiles: Percentiles | None


class FaultFigures(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a fault did, over all blocks in which it was inflicted.

    ``notice_ms`` and ``recovery_ms`` are by block number; a block is missing from the first when the orchestrator told
    nothing of it, from the second when too few answers came before the fault. ``notice`` and ``recovery`` are what is
    typical of them, as for every metric; ``noticed_by`` counts blocks by what was told first.

    After it, ``failed`` requests got no whole answer, ``streams_lost`` of them after their first token, and
    ``tokens_cut`` had come of these. ``retried`` requests were answered by a further attempt; of streams that had
    begun, ``resumed`` went on elsewhere. ``hedged`` were sent a second time because their first token was late.
    ``tokens_again`` were brought by attempts that failed, of requests without a stream, or by hedges in vain: they were
    made for nobody. The last three are of the whole workload. ``waiting`` is of the requests that were under way when
    it struck, or meant to be sent while it lasted.
    """

    kind: str
    blocks: int
    notice_ms: dict[int, float]
    recovery_ms: dict[int, float]
    notice: Valued | None
    recovery: Valued | None
    failed: int
    streams_lost: int
    retried: int
    noticed_by: dict[str, int] = {}
    tokens_cut: int = 0
    resumed: int = 0
    hedged: int = 0
    tokens_again: int = 0
    waiting: WaitingCurve | None = None


class BandFigures(msgspec.Struct, frozen=True):
    """How the requests of one tenant with one priority were served, over all blocks. ``in_time`` are those whose whole
    answer came within the deadline, or came at all where none was told; ``tokens`` are those of answers. Waits
    are from receipt to sending, or to the deadline of a task that was not sent before, None where nothing waited."""

    tenant: str
    priority: int
    requests: int
    in_time: int
    tokens: int
    mean_wait_s: float | None
    longest_wait_s: float | None


class ServedFigures(msgspec.Struct, frozen=True):
    """How tenants and priorities were served. ``fairness`` is the mean over blocks of Jain's index
    (`anywire_experiment.analysis.tenants.jain`), None where there were never two tenants that waited."""

    bands: list[BandFigures]
    fairness: float | None


class KindFigures(msgspec.Struct, frozen=True):
    """How many exercises of a kind were asked, and how many were answered right, over all blocks."""

    kind: str
    asked: int
    right: int


class QualityFigures(msgspec.Struct, frozen=True):
    """What the answers of one arm are worth, over all blocks, and what they cost.

    ``share`` is that of exercises that were answered right, of all that were asked; its interval counts blocks. The
    costs are per request, failed ones too: ``tokens`` of prompts and answers (0 where engines told none), ``tasks``
    that agents were asked for, ``seconds`` from the intended send to the end. ``tokens_per_right``: None where nothing
    was right.
    """

    asked: int
    right: int
    share: Valued
    tokens: float
    tasks: float
    seconds: float
    tokens_per_right: float | None
    kinds: list[KindFigures]


class TrafficFigures(msgspec.Struct, frozen=True):
    """Sessions of one arm in all blocks: how many there were, how many of them are whole, the median of their requests,
    and what a whole one took (typical over blocks, None without any). ``cancelled`` requests are those that their
    clients were meant to give up, ``not_asked`` those that depend on one that failed."""

    sessions: int
    whole: int
    requests: float
    took_ms: Valued | None
    cancelled: int
    not_asked: int


class SearchFigures(msgspec.Struct, frozen=True):
    """How the searches of one arm for the rate that it bears have ended: blocks in which it was ``found``, in which all
    rates of the plan were borne (``too_low``) or none (``too_high``), or in which the load generator could not send
    more (``generators``); and the steps of all blocks."""

    found: int
    too_low: int
    too_high: int
    generators: int
    steps: int


class ArmFigures(msgspec.Struct, frozen=True, omit_defaults=True):
    """One arm under one workload. ``failures`` counts failed requests by code, ``origins`` by who failed, as far as
    that was told, and ``failed_share`` is their share of all with its interval over blocks, None without requests.
    ``stages_us`` is the median over blocks of the median time of each part of a task's way, ``cpu_us`` the CPU time per
    answer of each process, ``wire_bytes`` the bytes per answer on the interface ``wire`` (``link`` or ``loopback``),
    None when they were not counted. ``stream`` is None where answers were not streamed, or too short to tell."""

    arm: str
    levels: dict[str, str]
    workload: str
    blocks: int
    requests: int
    failed: int
    failed_share: Valued | None
    failures: dict[str, int]
    unsteady: int
    """In how many blocks the warm-up ended without a steady latency."""
    metrics: dict[str, MetricFigures]
    stages_us: dict[str, float]
    cpu_us: dict[str, float]
    max_rss_bytes: dict[str, int]
    fault: FaultFigures | None
    wire: str
    wire_bytes: float | None
    stream: StreamShape | None
    served: ServedFigures | None = None
    """None where one tenant sent everything, with one priority."""
    counters: dict[str, float] = {}
    """By how much the orchestrator's counters grew in all blocks together: retries, hedges and the like."""
    origins: dict[str, int] = {}
    quality: QualityFigures | None = None
    """None where no answer was checked."""
    objective: ObjectiveFigures | None = None
    """None where the plan has no objective."""
    energy: EnergyFigures | None = None
    """None where no energy was counted."""
    traffic: TrafficFigures | None = None
    """None where requests do not depend on each other, and none is given up."""
    search: SearchFigures | None = None
    """None where no rate is searched."""
    lateness: LatenessFigures | None = None
    steady: SteadyFigures | None = None
    """None where the load is not meant to be even: a trace, bursts, a fault."""
