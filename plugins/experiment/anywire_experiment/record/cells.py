"""What one cell of the record says of itself: ``cell.json``, and how the orchestrator's stages get into its samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from anywire.events import TaskEnded
from anywire.stages import STAGES
from anywire_experiment.plan.traffic import CANCELLED, NOT_ASKED
from anywire_experiment.record.content import read_table
from anywire_experiment.record.energy import CellEnergy
from anywire_experiment.record.precision import measurable
from anywire_experiment.record.samples import LOADED, SAMPLES, STAGE_FIELDS

CELL = "cell.json"
SAMPLES_FILE = "samples.parquet"
LOAD = "load"
"""The load generator among a cell's processes."""


Wire = Literal["", "link", "loopback"]
What = Literal[
    "fault",
    "mended",
    "attempt_failed",
    "link_lost",
    "task_requeued",
    "kill",
    "pause",
    "continue",
    "partition",
    "restore",
    "start",
    "agent_joined",
    "agent_lost",
    "agent_ordered",
    "health_changed",
    "task_preempted",
    "died",
]


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened in a cell, in CLOCK_MONOTONIC ns.

    Done by the runner: ``fault`` and ``mended``, whose ``detail`` is the kind of fault. (Records of format 3 and before
    have ``kill``, ``pause``, ``partition`` for its beginning, ``start``, ``continue``, ``restore`` for its end.) Told
    by the orchestrator: ``agent_joined``, ``agent_lost``, ``agent_ordered``, ``health_changed``, ``task_preempted``,
    and in plans with faults ``attempt_failed``, ``link_lost`` and ``task_requeued``
    (`anywire_experiment.run.recorder.Change`). Noticed by the runner: ``died`` (a process
    that ended although nobody ended it). ``agent`` is empty where it met all of them, as a partition does.
    """

    at_ns: int
    what: What
    agent: str = ""
    detail: str = ""
    workload: str = ""
    """The workload that was under way; empty between workloads."""
    tokens: int = 0
    """That an attempt had brought before it failed."""


class WorkloadRun(msgspec.Struct):
    """One workload in one cell. ``steady``: whether the latency was steady when the warm-up ended, None when that was
    too short to tell. ``requests`` and ``failed`` are of the measurement, whose end is ``ended_ns``.

    ``cpu_seconds`` is what each process, ``load`` too, used between ``began_ns`` and ``ended_ns``. ``wire_bytes`` is
    what went over the cell's interface meanwhile (`Cell.wire`), None when it cannot be counted. ``counters``
    is by how much the orchestrator's counters grew (its ``stats``): retries, hedges and the like, without those that
    did not."""

    began_ns: int = 0
    ended_ns: int = 0
    warm_up_requests: int = 0
    steady: bool | None = None
    requests: int = 0
    failed: int = 0
    cpu_seconds: dict[str, float] = {}
    wire_bytes: int | None = None
    counters: dict[str, float] = {}
    joules: dict[str, float] = {}
    """Energy that the machine took meanwhile, by source (`Cell.energy`)."""


class ProcessUse(msgspec.Struct):
    """One process of a cell over all its lives, its children with it. ``cpus``: the cores it was bound to, any when
    empty. ``exit``: how its last life ended. ``shared``: it serves all arms alike, and is in no sum over the system."""

    cpus: list[int]
    cpu_seconds: float = 0.0
    max_rss_bytes: int = 0
    lives: int = 0
    exit: str = ""
    shared: bool = False


class Cell(msgspec.Struct):
    """One arm in one block. ``order`` is the arm's place in the block, from 0; ``workloads`` are in the order in
    which they ran. ``failed`` cells are reported and never averaged in; ``reason`` says why it failed. ``seed`` is
    of the arrivals and prompts, equal for every arm of the block. ``wire`` is the interface whose bytes are counted:
    ``link``, the emulated network between the orchestrator's host and the agents', or ``loopback``, which carries
    everything that this machine sends itself; empty when none is."""

    block: int
    arm: str
    levels: dict[str, str]
    order: int
    workload_order: list[str]
    state: Literal["completed", "failed"]
    reason: str
    started: str
    started_ns: int
    ended: str
    ended_ns: int
    boot_id: str
    seed: int
    cpus: dict[str, list[int]]
    workloads: dict[str, WorkloadRun]
    events: list[Event]
    processes: dict[str, ProcessUse]
    load_average_before: list[float]
    load_average_after: list[float]
    wire: Wire = ""
    energy: CellEnergy | None = None
    """None in records from before it was told."""


def read_cell(folder: Path) -> Cell:
    """Raises OSError or `msgspec.DecodeError`."""
    return msgspec.json.decode((folder / CELL).read_bytes(), type=Cell)


def write_cell(folder: Path, cell: Cell) -> None:
    (folder / CELL).write_bytes(msgspec.json.format(msgspec.json.encode(cell), indent=2) + b"\n")


def join_samples(loaded: Sequence[Path], tasks: Iterable[TaskEnded], target: Path, transports: Sequence[str]) -> int:
    """Write the cell's samples: what the load generator saw, with the stages of each task and what it took. Returns
    the rows. Raises OSError, or ValueError when a file of ``loaded`` is no table.

    An answer for which a service has asked agents has the transport over which they were asked; another one than
    ``transports`` makes it ``wrong_transport``, as in `anywire_experiment.load.rows.Answer.judged`.
    """
    parts = [read_table(path).cast(LOADED) for path in loaded]
    table = pa.concat_tables(parts) if parts else LOADED.empty_table()
    by_id: dict[str, TaskEnded] = {}
    children: dict[str, list[TaskEnded]] = {}
    for each in tasks:
        by_id[each.task_id] = each
        if each.parent:
            children.setdefault(each.parent, []).append(each)
    ids = table.column("task_id").to_pylist()
    stages = np.zeros((len(STAGES), len(ids)), dtype=np.int64)
    comparable = np.zeros(len(ids), dtype=bool)
    tenants = [""] * len(ids)
    asked = np.zeros(len(ids), dtype=np.int32)
    spent = np.zeros(len(ids), dtype=np.int64)
    over, outcomes, right = (table.column(name).to_pylist() for name in ("transport", "outcome", "right"))
    for row, task_id in enumerate(ids):
        found = by_id.get(task_id)
        if found is None:
            continue
        stages[:, row] = [getattr(found.stages, stage) for stage in STAGES]
        comparable[row] = found.stages.comparable
        tenants[row] = found.tenant
        of_agents = [each for each in children.get(task_id, [found]) if each.attempts]
        asked[row] = len(of_agents)
        spent[row] = sum(each.prompt_tokens + each.tokens for each in of_agents)
        if not over[row] and not found.attempts:
            used = sorted({each.transport for each in of_agents if each.transport})
            over[row] = "+".join(used)
            if outcomes[row] == "ok" and transports and not {*used} <= {*transports}:
                outcomes[row] = "wrong_transport"
                right[row] = False if right[row] else right[row]
    for name, values in (("transport", over), ("outcome", outcomes), ("right", right)):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, LOADED.field(name), pa.array(values, LOADED.field(name).type))
    # Who failed is looked for in the logs, by its task.
    failed = [each not in ("ok", CANCELLED, NOT_ASKED) for each in outcomes]
    kept = [task_id if has_failed else "" for task_id, has_failed in zip(ids, failed, strict=True)]
    table = table.set_column(
        table.schema.get_field_index("task_id"), LOADED.field("task_id"), pa.array(kept, pa.string())
    )
    for number, field in enumerate(STAGE_FIELDS):
        table = table.append_column(field, pa.array(stages[number]))
    added = {"stages_comparable": comparable, "tenant": tenants, "tasks": asked, "spent_tokens": spent}
    for name, column in added.items():
        table = table.append_column(SAMPLES.field(name), pa.array(column, SAMPLES.field(name).type))
    order = [(key, "ascending") for key in ("workload", "phase", "index")]
    pq.write_table(measurable(table.cast(SAMPLES)).sort_by(order), target, compression="zstd")
    return len(ids)
