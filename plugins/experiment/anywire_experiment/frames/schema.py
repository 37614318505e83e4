"""What the tables of a record have: every column with its type, its unit and its meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from anywire.stages import STAGES
from anywire_experiment.record.samples import SAMPLES

LEVEL = "level."
"""Begins the name of a column that has the level of a factor: ``level.transport``. Every table has one for each factor
of the plan, after its named columns."""


class Column(NamedTuple):
    """``unit`` is empty where there is none. A column is null where what it tells does not exist."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str


TEXT, NUMBER, WHOLE, SMALL = pa.string(), pa.float64(), pa.int64(), pa.int32()

_WHERE = [
    Column("block", SMALL, "", "block, counted from 1"),
    Column("arm", TEXT, "", "arm: the levels of all factors, joined by `+`"),
]

_NS = "ns, monotonic"
_OF_SAMPLES = {
    "workload": ("", "workload of the plan"),
    "phase": ("", "`warm_up` or `measured`; only the measured count in any figure"),
    "index": ("", "place in the order of intended times, from 0 in each phase"),
    "client": ("", "client of a closed loop, from 0"),
    "intended_ns": (_NS, "when it was meant to be sent"),
    "sent_ns": (_NS, "when it was sent"),
    "first_ns": (_NS, "first token received; of a plain answer its end; 0: never"),
    "done_ns": (_NS, "the whole answer, or the failure, was there"),
    "outcome": ("", "`ok`, or the code of the failure: an error's code, `timeout`, `connection`, `no_tokens` …"),
    "origin": ("", "who failed: client, pipeline, transport, agent, engine; empty for an answer, or where nobody said"),
    "status": ("", "HTTP status, 0 where there is none"),
    "transport": ("", "transport that the response names"),
    "agent": ("", "agent that the response names"),
    "attempts": ("", "how often it was sent to an agent"),
    "task_id": ("", "id of the task, of a request that failed; empty for others"),
    "priority": ("", "priority of the request"),
    "prompt_chars": ("characters", "length of the prompt"),
    "tokens": ("tokens", "of the answer, by its usage, or else the pieces received; -1: unknown"),
    "text_hash": ("", "hash of the answer's text"),
    "piece_ns": (_NS, "when each piece of a stream arrived, from the first one on to 10 µs"),
    "deadline_s": ("s", "deadline that the request told, 0 for none"),
    "exercise": ("", "id of the exercise, empty for a prompt that nothing checks"),
    "exercise_kind": ("", "kind of the exercise"),
    "expected": ("", "the right answer to the exercise, or its pattern"),
    "said": ("", "answer to the exercise, a long one cut"),
    "right": ("", "whether the exercise was answered right; null where there is none"),
    "session": ("", "session of the request, from 0 in each phase; null where it depends on no other request"),
    "turn": ("", "turn of the session, from 0; requests of one turn are sent at once"),
    "offered": ("1/s", "rate of its step where the rate that is borne is searched, else null"),
    "stages_comparable": ("", "whether the stages of orchestrator and agent are of one clock"),
    "tenant": ("", "tenant of the request"),
    "tasks": ("", "tasks that agents were asked for"),
    "spent_tokens": ("tokens", "of prompts and answers of these tasks, as far as engines told them"),
} | {f"stage_{stage}_ns": (_NS, f"stage `{stage}` of the task, 0: not reached") for stage in STAGES}


def _sampled(name: str) -> Column:
    unit, meaning = _OF_SAMPLES.get(name, ("", ""))
    return Column(name, SAMPLES.field(name).type, unit, meaning)


REQUESTS = [
    *_WHERE,
    *(_sampled(name) for name in SAMPLES.names),
    Column("late_ms", NUMBER, "ms", "how much later than intended it was sent: the generator's own lateness"),
    Column("latency_ms", NUMBER, "ms", "intended time to the end of the answer; null without a whole answer"),
    Column("ttft_ms", NUMBER, "ms", "intended time to the first token; null without a whole answer"),
]
"""One row per request of every whole cell, warm-up included."""

CELLS = [
    *_WHERE,
    Column("workload", TEXT, "", "workload; null in the one row of a cell in which none ran"),
    Column("place", SMALL, "", "place of the arm in its block, from 1"),
    Column("workload_place", SMALL, "", "place of the workload in its cell, from 1"),
    Column("state", TEXT, "", "`completed` or `failed`; a failed cell is in no figure"),
    Column("reason", TEXT, "", "why the cell failed"),
    Column("started", TEXT, "UTC", "when the cell began"),
    Column("cell_s", NUMBER, "s", "how long the cell took, start and end of the system included"),
    Column("measured_s", NUMBER, "s", "how long the workload was measured"),
    Column("boot_id", TEXT, "", "boot of the machine: monotonic times compare within one"),
    Column("seed", WHOLE, "", "of the arrivals and prompts, equal for every arm of the block"),
    Column("load_before", NUMBER, "", "load average of the minute before the cell"),
    Column("load_after", NUMBER, "", "load average of the minute before its end"),
    Column("warm_up_requests", WHOLE, "", "requests of the warm-up"),
    Column("steady", pa.bool_(), "", "whether the latency was steady after the warm-up; null: too short to tell"),
    Column("requests", WHOLE, "", "requests that were measured"),
    Column("failed", WHOLE, "", "of these, without a whole answer"),
    Column("system_cpu_s", NUMBER, "s", "processor time of all processes but the load generator"),
    Column("load_cpu_s", NUMBER, "s", "processor time of the load generator"),
    Column("wire_bytes", WHOLE, "bytes", "on the interface that carried the workload"),
    Column("joules", NUMBER, "J", "energy that the machine took meanwhile; null where it cannot be measured"),
]
"""One row per cell and workload."""

BLOCKS = [
    *_WHERE,
    Column("workload", TEXT, "", "workload of the plan"),
    Column("metric", TEXT, "", "metric, as a plan names it"),
    Column("unit", TEXT, "", "unit of the value"),
    Column("value", NUMBER, "as `unit`", "the plan's statistic of the block, or the one number it has"),
]
"""One row per block, arm, workload and metric: what every figure and comparison starts from."""

_PERCENTILES = [
    Column(f"{name}{limit}", NUMBER, "as `unit`", f"{name} over the blocks{told}")
    for name in ("p50", "p90", "p95", "p99")
    for limit, told in (("", ""), ("_low", ", lower limit"), ("_high", ", upper limit"))
]

FIGURES = [
    Column("workload", TEXT, "", "workload of the plan"),
    Column("metric", TEXT, "", "metric, as a plan names it"),
    Column("unit", TEXT, "", "unit of the values"),
    Column("arm", TEXT, "", "arm"),
    Column("blocks", SMALL, "", "blocks that count"),
    Column("samples", WHOLE, "", "samples in all of them"),
    Column("effective", NUMBER, "", "how many independent samples these are worth"),
    Column("typical", NUMBER, "as `unit`", "typical value over the blocks"),
    Column("typical_low", NUMBER, "as `unit`", "lower limit of its interval; null where none can be told"),
    Column("typical_high", NUMBER, "as `unit`", "upper limit"),
    *_PERCENTILES,
    Column("requests", WHOLE, "", "requests measured in the workload"),
    Column("failed", WHOLE, "", "of these, without a whole answer"),
]
"""One row per arm, workload and metric."""

COMPARISONS = [
    Column("workload", TEXT, "", "workload of the plan"),
    Column("metric", TEXT, "", "metric, as a plan names it"),
    Column("unit", TEXT, "", "unit of the difference"),
    Column("baseline", TEXT, "", "arm that is compared with"),
    Column("candidate", TEXT, "", "arm that is compared"),
    Column("blocks", SMALL, "", "blocks that count for both"),
    Column("confidence", NUMBER, "", "level of the intervals, 0.95 for 95 %"),
    Column("ratio", NUMBER, "", "candidate / baseline; null where there is no ratio"),
    Column("ratio_low", NUMBER, "", "lower limit of its interval"),
    Column("ratio_high", NUMBER, "", "upper limit"),
    Column("difference", NUMBER, "as `unit`", "candidate - baseline"),
    Column("difference_low", NUMBER, "as `unit`", "lower limit of its interval"),
    Column("difference_high", NUMBER, "as `unit`", "upper limit"),
    Column("p_different", NUMBER, "", "p-value of no difference, adjusted for the family"),
    Column("p_equivalent", NUMBER, "", "p-value of a difference of the margin or more, adjusted for the family"),
    Column("outcome", TEXT, "", "`better`, `worse`, `equivalent` or `not enough data`; null where it is not judged"),
    Column("sentence", TEXT, "", "the finding in words"),
    Column("reason", TEXT, "", "why it is not judged; empty where it is"),
]
"""One row per comparison of the plan."""

SCHEMAS: dict[str, list[Column]] = {
    "requests": REQUESTS,
    "cells": CELLS,
    "blocks": BLOCKS,
    "figures": FIGURES,
    "comparisons": COMPARISONS,
}


def schema_of(table: str, factors: Sequence[str]) -> pa.Schema:
    """With the meaning and the unit of each column in its metadata."""
    return pa.schema(
        [
            *(pa.field(each.name, each.type, metadata=_told(each)) for each in SCHEMAS[table]),
            *(pa.field(f"{LEVEL}{name}", TEXT, metadata={"meaning": f"level of {name}"}) for name in factors),
        ]
    )


def _told(column: Column) -> dict[str, str]:
    return {"meaning": column.meaning} | ({"unit": column.unit} if column.unit else {})
