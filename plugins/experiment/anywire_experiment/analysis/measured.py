"""What the samples of a cell say: the metrics of each workload, from rows to numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anywire_experiment.analysis.capacity import capacity_of
from anywire_experiment.analysis.energy import joules_per
from anywire_experiment.analysis.goodput import Held, held
from anywire_experiment.analysis.processor import milliseconds_per, system_seconds
from anywire_experiment.analysis.sample_rows import Floats, column, waits_ms
from anywire_experiment.analysis.stream_arrivals import per_token_ms
from anywire_experiment.analysis.tenants import jain
from anywire_experiment.plan.metric import OF_REQUESTS, Metric
from anywire_experiment.plan.objective import Objective
from anywire_experiment.plan.saturation import Search
from anywire_experiment.plan.traffic import CANCELLED
from anywire_experiment.record.cells import Cell, Event

FEWEST_BEFORE = 5
"""Answers before a fault with which those after it can be compared."""

FAULTS = frozenset({"fault", "kill", "pause", "partition"})
"""Events that begin a fault; records before format 4 have a kind of fault for it."""
ENDS = frozenset({"mended", "start", "continue", "restore"})
"""Events that end it."""
NOTICES = frozenset({"agent_lost", "attempt_failed", "health_changed", "link_lost", "task_requeued"})
"""Events by which the orchestrator tells that something is wrong."""


def _is_of(told: Event, fault: Event) -> bool:
    """Whether it tells that something is wrong with what the fault met. A task that waits again names no agent. A
    breaker that is tried again, or closes, tells of what was before."""
    if told.what == "health_changed" and told.detail.partition(":")[0].rpartition(" ")[2] not in (
        "open",
        "quarantined",
    ):
        return False
    return not told.agent or fault.agent in ("", told.agent)


class Measured:
    """The measured rows of one workload in one cell. Series are in order of the intended times, of whole answers."""

    def __init__(
        self,
        cell: Cell,
        samples: pa.Table,
        workload: str,
        objective: Objective | None = None,
        *,
        streams: bool = False,
        search: Search | None = None,
    ) -> None:
        self._objective, self._streams, self._search = objective, streams, search
        chosen = pc.and_(pc.equal(samples["workload"], workload), pc.equal(samples["phase"], "measured"))
        self.rows = samples.filter(chosen).sort_by([("intended_ns", "ascending"), ("index", "ascending")])
        self.asked = self.rows
        """With the requests that their clients were meant to give up: load, and in no figure."""
        self.rows = self.asked.filter(pc.not_equal(self.asked["outcome"], CANCELLED))
        self.cancelled = self.asked.num_rows - self.rows.num_rows
        self.whole = self.rows.filter(pc.equal(self.rows["outcome"], "ok"))
        self._failed = self.rows.filter(pc.not_equal(self.rows["outcome"], "ok"))
        counted = pc.value_counts(self._failed["outcome"].combine_chunks()).to_pylist()
        self.failures = {each["values"]: int(each["counts"]) for each in counted}
        self.origins = Counter(origin for origin in self._failed["origin"].to_pylist() if origin)
        """How many failed by whose fault, of those for which somebody has said."""
        self._cpu_seconds = system_seconds(cell, workload)
        self.joules = cell.workloads[workload].joules if workload in cell.workloads else {}
        self.began_ns = cell.workloads[workload].began_ns if workload in cell.workloads else 0
        self.events = [each for each in cell.events if each.workload == workload]
        # What is noticed when the workload is already over is noticed all the same, until the next one begins.
        later = [run.began_ns for run in cell.workloads.values() if run.began_ns > self.began_ns]
        until_ns = min(later, default=cell.ended_ns)
        told = (each for each in cell.events if each.what in NOTICES and each.workload in (workload, ""))
        self._told = [each for each in told if each.at_ns <= until_ns]
        self._series: dict[Metric, Floats] = {}

    @property
    def requests(self) -> int:
        return int(self.rows.num_rows)

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def tokens(self) -> int:
        """Of whole answers."""
        return int(np.maximum(column(self.whole, "tokens"), 0).sum())

    def series(self, metric: Metric) -> Floats:
        """The samples of a metric, in its unit; empty when these rows do not give it. A rate, and what is said of a
        fault, is one number."""
        if metric not in self._series:
            self._series[metric] = self._measure(metric)
        return self._series[metric]

    def lacking(self, metric: Metric) -> int:
        """Requests that failed and so have no value of ``metric``; 0 for those of which a block has one number."""
        if metric == "wait":
            return self.failed - int(waits_ms(self._failed).size)
        return self.failed if metric in OF_REQUESTS else 0

    def _measure(self, metric: Metric) -> Floats:
        match metric:
            case "latency":
                return self._since_intended("done_ns")
            case "ttft":
                return self._to_first_token()
            case "itl":
                return per_token_ms(self.whole)
            case "wait":
                return waits_ms(self.rows)
            case "urgent_wait":
                return self._urgent_wait()
            case "goodput":
                return self._goodput()
            case "attainment":
                everything = self.held().everything
                return np.array([everything.mean()]) if everything.size else np.array([])
            case "fairness":
                index = jain(self.rows)
                return np.array([]) if index is None else np.array([index])
            case "capacity":
                return capacity_of(self.rows, self._search)
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
            case "quality":
                asked = self.exercises()
                return np.array([column(asked, "right").astype(bool).mean()]) if asked.num_rows else np.array([])
            case "spent_tokens":
                spent = self.rows["spent_tokens"].drop_null().to_numpy()
                return np.array([spent.mean()]) if spent.any() else np.array([])
            case "cpu_per_request":
                return milliseconds_per(self._cpu_seconds, self.whole.num_rows)
            case "energy_per_request":
                return joules_per(self.joules, self.whole.num_rows)
            case "energy_per_token":
                return joules_per(self.joules, self.tokens)

    def exercises(self) -> pa.Table:
        """The requests whose answers were checked, failed ones too: these are not right."""
        return self.rows.filter(pc.is_valid(self.rows["right"]))

    def _urgent_wait(self) -> Floats:
        if not self.requests:
            return np.array([])
        urgent = pc.equal(self.rows["priority"], int(column(self.rows, "priority").max()))
        waits = waits_ms(self.rows.filter(urgent))
        return np.array([waits.mean()]) if waits.size else np.array([])

    def held(self) -> Held:
        """Of each request whether it held the objective and its deadline."""
        return held(self.rows, self._objective, streams=self._streams)

    def _goodput(self) -> Floats:
        """Not over the time until the last answer: an arm that refuses what it cannot serve has a shorter one."""
        span = column(self.rows, "intended_ns").max() - self.began_ns if self.requests else 0
        useful = self.held().everything.sum()
        return np.array([useful / (span / 1e9)]) if span > 0 and self.began_ns else np.array([])

    def _to_first_token(self) -> Floats:
        """Of streams, where a trace has whole answers among them: these have no first token of their own."""
        took = self._since_intended("first_ns")
        streamed = pc.fill_null(pc.list_value_length(self.whole["piece_ns"]), 0).to_numpy() > 0
        return took[streamed] if streamed.any() else took

    def _since_intended(self, end: str) -> Floats:
        took: Floats = (column(self.whole, end) - column(self.whole, "intended_ns")) / 1e6
        return took

    def _rate(self, count: float) -> Floats:
        """Per second, from the first request to the last whole answer: what failed is told beside it, and one request
        that times out must not stretch the time of all others."""
        if not count:
            return np.array([])
        span = column(self.whole, "done_ns").max() - column(self.rows, "intended_ns").min()
        return np.array([count / (span / 1e9)])

    def fault(self) -> Event | None:
        """The fault that was inflicted."""
        return next((each for each in self.events if each.what in FAULTS), None)

    def notice(self) -> Event | None:
        """The first thing that the orchestrator told of the fault; None when it told nothing."""
        fault = self.fault()
        if fault is None:
            return None
        told = [each for each in self._told if each.at_ns >= fault.at_ns and _is_of(each, fault)]
        return min(told, key=lambda each: each.at_ns, default=None)

    def mended_ns(self) -> int:
        """When the fault was over; 0 when it was not."""
        fault = self.fault()
        over = [each.at_ns for each in self.events if each.what in ENDS and fault and each.at_ns >= fault.at_ns]
        return min(over, default=0)

    def has_streams(self) -> bool:
        """Whether answers were streamed."""
        return bool(np.any(pc.fill_null(pc.list_value_length(self.rows["piece_ns"]), 0).to_numpy()))

    def tokens_of_failed_attempts(self) -> int:
        """As far as the orchestrator has seen them."""
        return sum(each.tokens for each in self.events if each.what == "attempt_failed")

    def after_the_fault(self, at_ns: int) -> tuple[int, int, int, int]:
        """Of the requests under way at ``at_ns`` or later: those without a whole answer, those of them whose stream had
        begun, the tokens that had come of these, and those requests that a further attempt answered."""
        later = self.rows.filter(pc.greater_equal(self.rows["done_ns"], at_ns))
        failed = later.filter(pc.not_equal(later["outcome"], "ok"))
        pieces = pc.fill_null(pc.list_value_length(failed["piece_ns"]), 0).to_numpy()
        begun, cut = int(np.count_nonzero(pieces)), int(np.maximum(pieces, column(failed, "tokens"))[pieces > 0].sum())
        again = pc.and_(pc.equal(later["outcome"], "ok"), pc.greater(later["attempts"], 1))
        return int(failed.num_rows), begun, cut, int(later.filter(again).num_rows)

    def _notice(self) -> Floats:
        fault, notice = self.fault(), self.notice()
        return (
            np.array([(notice.at_ns - fault.at_ns) / 1e6]) if fault is not None and notice is not None else np.array([])
        )

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
