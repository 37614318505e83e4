"""What the samples of a cell say: the metrics of each workload, from rows to numbers."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, get_args

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from anywire.stages import STAGES
from anywire_experiment.plan import Metric
from anywire_experiment.record.cells import SAMPLES_FILE, Cell, Event
from anywire_experiment.record.samples import SAMPLES
from anywire_experiment.workload import Closed, Workload

Floats = NDArray[np.float64]
METRICS: tuple[Metric, ...] = get_args(Metric)


class Meaning(msgspec.Struct, frozen=True):
    """How a metric is told. ``words`` are for a better and a worse arm."""

    title: str
    unit: str
    larger_is_better: bool
    words: tuple[str, str]


MEANINGS: dict[Metric, Meaning] = {
    "latency": Meaning("latency", "ms", False, ("faster", "slower")),
    "ttft": Meaning("time to first token", "ms", False, ("faster", "slower")),
    "itl": Meaning("time per token after the first", "ms", False, ("faster", "slower")),
    "throughput": Meaning("answers per second", "/s", True, ("higher", "lower")),
    "tokens_per_s": Meaning("tokens per second", "/s", True, ("higher", "lower")),
    "notice": Meaning("time to notice a fault", "ms", False, ("sooner", "later")),
    "recovery": Meaning("time to recover", "ms", False, ("sooner", "later")),
    "failures": Meaning("share of failed requests", "", False, ("fewer", "more")),
}

SPANS = {
    "gateway to orchestrator": ("received", "admitted"),
    "queue and choice": ("admitted", "selected"),
    "serialization and send": ("selected", "sent"),
    "wire and wake-up of the agent": ("sent", "agent_received"),
    "start of the engine": ("agent_received", "engine_started"),
    "engine, first piece": ("engine_started", "first_chunk"),
    "engine, further pieces": ("first_chunk", "last_chunk"),
    "way back": ("last_chunk", "delivered"),
}
"""A task's way, from one stage to another; what the client waited beside it is ``gateway and client``."""

FEWEST_BEFORE = 5
"""Answers before a fault with which those after it can be compared."""

FEWEST_TOKENS = 3
"""Tokens of a stream from which on it can be told whether they came one after the other."""
MOMENT_NS = 50_000
"""Pieces that are less apart came at one moment: no engine takes less for a token."""

CROSSING = ("wire and wake-up of the agent", "way back")
"""Spans between two processes' clocks, which compare under one boot only."""


class Streams(NamedTuple):
    """How streams arrived, an entry each: tokens, pieces, the moments at which these came, and whether it was a burst:
    at fewer moments than half of its pieces, or faster than a token in 0.05 ms."""

    tokens: NDArray[np.int64]
    pieces: NDArray[np.int64]
    moments: NDArray[np.int64]
    burst: NDArray[np.bool_]


def default_metrics(workload: Workload) -> tuple[Metric, ...]:
    """What is judged when the plan does not say."""
    if workload.fault is not None:
        return ("notice", "recovery", "failures")
    streams: tuple[Metric, ...] = ("ttft", "itl", "tokens_per_s") if workload.stream else ()
    closed = isinstance(workload.arrivals, Closed) and workload.arrivals.clients > 1
    return ("latency", *streams, *(("throughput",) if closed and not workload.stream else ()), "failures")


def measurable(metric: Metric, workload: Workload) -> bool:
    """Whether ``workload`` can have it at all: a plan's metrics are for all of its workloads."""
    if metric in ("notice", "recovery"):
        return workload.fault is not None
    return workload.stream or metric not in ("ttft", "itl")


def read_samples(folder: Path) -> pa.Table:
    """A cell's rows. Raises OSError, or ValueError when they are no samples."""
    table = pq.read_table(folder / SAMPLES_FILE)
    if not table.schema.equals(SAMPLES):
        raise ValueError(f"{folder / SAMPLES_FILE} has other columns than samples have")
    return table


class Measured:
    """The measured rows of one workload in one cell. Series are in order of the intended times, of whole answers."""

    def __init__(self, cell: Cell, samples: pa.Table, workload: str) -> None:
        chosen = pc.and_(pc.equal(samples["workload"], workload), pc.equal(samples["phase"], "measured"))
        self.rows = samples.filter(chosen).sort_by([("intended_ns", "ascending"), ("index", "ascending")])
        outcomes = self.rows["outcome"]
        self.whole = self.rows.filter(pc.equal(outcomes, "ok"))
        counted = pc.value_counts(outcomes.combine_chunks()).to_pylist()
        self.failures = {each["values"]: int(each["counts"]) for each in counted if each["values"] != "ok"}
        self.began_ns = cell.workloads[workload].began_ns if workload in cell.workloads else 0
        self.events = [each for each in cell.events if each.workload == workload]
        # An agent may be lost when the workload is already over, which is noticed all the same.
        self._lost = [each for each in cell.events if each.what == "agent_lost" and each.workload in (workload, "")]
        self._series: dict[Metric, Floats] = {}

    @property
    def requests(self) -> int:
        return int(self.rows.num_rows)

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    def series(self, metric: Metric) -> Floats:
        """The samples of a metric, in its unit; empty when these rows do not give it. A rate, and what is said of a
        fault, is one number."""
        if metric not in self._series:
            self._series[metric] = self._measure(metric)
        return self._series[metric]

    def _measure(self, metric: Metric) -> Floats:
        match metric:
            case "latency":
                return self._since_intended("done_ns")
            case "ttft":
                return self._since_intended("first_ns")
            case "itl":
                return self._per_token()
            case "throughput":
                return self._rate(float(self.whole.num_rows))
            case "tokens_per_s":
                return self._rate(float(column(self.whole, "tokens").sum()))
            case "notice":
                return self._notice()
            case "recovery":
                return self._recovery()
            case "failures":
                return np.array([self.failed / self.requests]) if self.requests else np.array([])

    def streams(self) -> Streams:
        """Of each stream of three tokens or more, how it arrived."""
        pieces = self.whole["piece_ns"].combine_chunks()
        at, offsets = pieces.values.to_numpy(), pieces.offsets.to_numpy()
        counts = np.diff(offsets)
        tokens = np.maximum(counts, column(self.whole, "tokens"))
        chosen = (counts > 0) & (tokens >= FEWEST_TOKENS)
        begins = np.diff(at, prepend=0) >= MOMENT_NS
        begins[offsets[:-1][counts > 0]] = True
        moments = np.diff(np.concatenate([[0], np.cumsum(begins)])[offsets])[chosen]
        span = at[offsets[1:][chosen] - 1] - at[offsets[:-1][chosen]]
        tokens, counts = tokens[chosen], counts[chosen]
        together = (counts >= FEWEST_TOKENS) & (2 * moments < counts)
        return Streams(tokens, counts, moments, together | (span < MOMENT_NS * (tokens - 1)))

    def spans_us(self) -> dict[str, float]:
        """Median µs of each part of the way of whole answers, where both its ends are known and comparable."""
        whole = self.whole
        comparable = column(whole, "stages_comparable").astype(bool)
        at = {stage: column(whole, f"stage_{stage}_ns") for stage in STAGES}
        found: dict[str, float] = {}
        for name, (start, end) in SPANS.items():
            usable = (at[start] > 0) & (at[end] > 0) & (comparable | (name not in CROSSING))
            if usable.any():
                found[name] = float(np.median((at[end] - at[start])[usable])) / 1e3
        known = (at["received"] > 0) & (at["delivered"] > 0)
        if known.any():
            total = column(whole, "done_ns") - column(whole, "intended_ns")
            rest = total - (at["delivered"] - at["received"])
            found["gateway and client"] = float(np.median(rest[known])) / 1e3
        return found

    def _since_intended(self, end: str) -> Floats:
        took: Floats = (column(self.whole, end) - column(self.whole, "intended_ns")) / 1e6
        return took

    def _per_token(self) -> Floats:
        """Of each stream, the mean time between its tokens. Not the single gaps, which are zero where several came in
        one piece; and per token, for how many come in one is up to the transport."""
        pieces = self.whole["piece_ns"].combine_chunks()
        at, offsets = pieces.values.to_numpy(), pieces.offsets.to_numpy()
        counts = np.diff(offsets)
        several = counts > 1
        span = at[offsets[1:][several] - 1] - at[offsets[:-1][several]]
        tokens = np.maximum(counts, column(self.whole, "tokens"))[several]
        return np.asarray(span / (tokens - 1) / 1e6, dtype=np.float64)

    def _rate(self, count: float) -> Floats:
        """Per second, from the first request to the last whole answer: what failed is told beside it, and one request
        that times out must not stretch the time of all others."""
        if not count:
            return np.array([])
        span = column(self.whole, "done_ns").max() - column(self.rows, "intended_ns").min()
        return np.array([count / (span / 1e9)])

    def fault(self) -> Event | None:
        """The fault that was inflicted."""
        return next((each for each in self.events if each.what in ("kill", "pause", "partition")), None)

    def after_the_fault(self, at_ns: int) -> tuple[int, int, int]:
        """Of the requests under way at ``at_ns`` or later: those without a whole answer, those of them whose stream had
        begun, and those that a further attempt answered."""
        later = self.rows.filter(pc.greater_equal(self.rows["done_ns"], at_ns))
        failed = later.filter(pc.not_equal(later["outcome"], "ok"))
        begun = int(np.count_nonzero(pc.list_value_length(failed["piece_ns"]).to_numpy())) if failed.num_rows else 0
        again = pc.and_(pc.equal(later["outcome"], "ok"), pc.greater(later["attempts"], 1))
        return int(failed.num_rows), begun, int(later.filter(again).num_rows)

    def _notice(self) -> Floats:
        fault = self.fault()
        if fault is None:
            return np.array([])
        lost = [each.at_ns for each in self._lost if each.at_ns >= fault.at_ns and fault.agent in ("", each.agent)]
        return np.array([(min(lost) - fault.at_ns) / 1e6]) if lost else np.array([])

    def _recovery(self) -> Floats:
        """From the fault until the last disturbed request was over, 0 when none was. Disturbed: failed, or taking more
        than twice as long as the slowest before the fault. Twice, for without a fault too one of many later requests
        is slower than the slowest of a few earlier ones."""
        fault = self.fault()
        if fault is None or not self.rows.num_rows:
            return np.array([])
        done = column(self.rows, "done_ns")
        took = done - column(self.rows, "intended_ns")
        ok = pc.equal(self.rows["outcome"], "ok").to_numpy()
        before = ok & (done < fault.at_ns)
        if np.count_nonzero(before) < FEWEST_BEFORE:
            return np.array([])
        disturbed = (done >= fault.at_ns) & (~ok | (took > 2 * took[before].max()))
        return np.array([(done[disturbed].max() - fault.at_ns) / 1e6 if disturbed.any() else 0.0])


def column(table: pa.Table, name: str) -> NDArray[np.int64]:
    values: NDArray[np.int64] = table[name].to_numpy()
    return values
