"""The raw data: one row per request, as Parquet. All times are CLOCK_MONOTONIC nanoseconds of one machine (one boot),
so they compare across processes; 0 means: not reached. They are kept to 1 µs (`anywire_experiment.record.precision`).

The load generator writes the first part of a row. The rest comes from the orchestrator, which hears of every task
(`anywire_experiment.run.recorder`), joined by ``task_id``, which stays with the requests that failed.
"""

from __future__ import annotations

import pyarrow as pa

from anywire.stages import STAGES

LOAD_FIELDS = [
    pa.field("workload", pa.string()),
    pa.field("phase", pa.string()),  # warm_up, measured
    pa.field("index", pa.int64()),  # in order of intended time, from 0 within a phase
    pa.field("client", pa.int32()),
    pa.field("intended_ns", pa.int64()),
    pa.field("sent_ns", pa.int64()),
    pa.field("first_ns", pa.int64()),  # first token received; of a plain answer its end
    pa.field("done_ns", pa.int64()),  # the whole answer, or the failure, was there
    pa.field(
        "outcome", pa.string()
    ),  # "ok", or the code of the failure: an error's code, timeout, connection, no_tokens, …
    pa.field(
        "origin", pa.string()
    ),  # who failed, as `anywire.errors` has it; empty for an answer, and where nobody said
    pa.field("status", pa.int32()),  # HTTP, 0 where there is none
    pa.field("transport", pa.string()),  # as the response names it
    pa.field("agent", pa.string()),
    pa.field("attempts", pa.int32()),
    pa.field("task_id", pa.string()),
    pa.field("priority", pa.int32()),
    pa.field("prompt_chars", pa.int64()),
    pa.field("tokens", pa.int32()),  # by the answer's usage, or else the pieces received
    pa.field(
        "text_hash", pa.string()
    ),  # of the answer's text: the same prompt, seed and engine give the same over any transport
    pa.field("piece_ns", pa.list_(pa.int64())),  # of streams: when each piece arrived
    pa.field("deadline_s", pa.float64()),  # that the request told, 0 for none
    pa.field("exercise", pa.string()),  # its id, empty for a prompt that nothing checks
    pa.field("exercise_kind", pa.string()),
    pa.field("expected", pa.string()),  # the right answer, or the pattern of it
    pa.field("said", pa.string()),  # the answer to an exercise, a long one cut
    pa.field("right", pa.bool_()),  # null where there is no exercise
    pa.field("session", pa.int64()),  # from 0 within a phase; null where a request depends on no other one
    pa.field("turn", pa.int32()),  # of the session, from 0; requests of one turn are sent at once
    pa.field("offered", pa.float64()),  # requests per second of its step of a search for the rate that is borne
]
STAGE_FIELDS = [pa.field(f"stage_{stage}_ns", pa.int64()) for stage in STAGES]
LOADED = pa.schema(LOAD_FIELDS)
"""What the load generator writes."""
SAMPLES = pa.schema(
    [
        *LOAD_FIELDS,
        *STAGE_FIELDS,
        pa.field("stages_comparable", pa.bool_()),
        pa.field("tenant", pa.string()),
        pa.field("tasks", pa.int32()),  # that agents were asked for: those of a service's answer, else the task itself
        pa.field("spent_tokens", pa.int64()),  # of prompts and answers of these tasks, as far as engines told them
    ]
)
"""What the record holds."""
ADDED = (
    *("deadline_s", "tenant", "origin", "exercise", "exercise_kind", "expected", "said", "right"),
    *("tasks", "spent_tokens", "session", "turn", "offered"),
)
"""Columns that older records lack: they are read as null there."""
