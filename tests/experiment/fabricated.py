"""Records with made-up samples in the real layout, whose truth is known. For tests only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from anywire.stages import STAGES
from anywire_experiment import report
from anywire_experiment.plan.arms import ALONE
from anywire_experiment.plan.orders import arm_names
from anywire_experiment.plan.plan import Plan
from anywire_experiment.record.cells import SAMPLES_FILE, Cell, Event, ProcessUse, WorkloadRun, write_cell
from anywire_experiment.record.environment import Environment, environment
from anywire_experiment.record.folder import Session, Sessions
from anywire_experiment.record.manifest import RESULTS, seal
from anywire_experiment.record.samples import SAMPLES

SECOND = 1_000_000_000
PIECES = 8


@dataclass(frozen=True)
class Truth:
    """What an arm is like. ``shift_us`` is added to each latency, ``factor`` multiplies it, ``failing`` is the share of
    requests that fail with ``code``, by the fault of ``origin``; a fault is noticed after ``notice_ms`` (never, when
    None) and everything sent before takes until then. ``broken`` blocks have a failed cell, ``thin`` ones only 4
    answers. ``right`` is the share of exercises answered right, half of them alike by all arms, at ``tasks`` each.
    Requests are sent ``late_ms`` after they were meant to be, and the first fifth takes ``start`` times as long."""

    shift_us: float = 0.0
    factor: float = 1.0
    failing: float = 0.0
    code: str = "timeout"
    origin: str = ""
    notice_ms: float | None = 300.0
    broken: frozenset[int] = frozenset()
    thin: frozenset[int] = frozenset()
    right: float = 0.5
    tasks: int = 1
    late_ms: float = 0.001
    start: float = 1.0
    reason: str = "never ready: no answer within 60 s"


def plan_of(**members: Any) -> dict[str, Any]:
    """A plan's tree."""
    return {
        "name": "fabricated",
        "question": "What does the transport add?",
        "blocks": 16,
        "factors": {"transport": ["zeromq", "dds"]},
        "workloads": {"one-client": {"requests": 300}},
    } | members


SMALL = plan_of(blocks=2, workloads={"one-client": {"requests": 20}}, metrics=["latency"])
"""A plan whose records are made, sealed and reported on quickly."""


def fabricate(
    folder: Path,
    tree: Mapping[str, Any],
    truths: Mapping[str, Truth] | None = None,
    *,
    spread: float = 0.05,
    drift: float = 0.01,
    first: float = 1.0,
    without: Callable[[int, str], bool] = lambda block, arm: False,
) -> Path:
    """A record of ``tree`` with all its cells but those ``without``. ``truths`` is by arm or level of any factor, equal
    arms where it says nothing; ``spread`` is from block to block for all arms alike, ``drift`` of each arm alone. The
    arm that is first in a block takes ``first`` times as long."""
    plan = Plan.model_validate(dict(tree))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.yaml").write_text(yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True))
    (folder / "plan.json").write_text(plan.model_dump_json(indent=2))
    sessions = Sessions(plan.seed, [Session("2026-01-01T00:00:00", _here(), "2026-01-01T01:00:00", "complete")])
    (folder / "environment.json").write_bytes(msgspec.json.encode(sessions))
    rng = np.random.default_rng(plan.seed)
    for block in range(1, plan.blocks + 1):
        common = float(np.exp(rng.normal(0.0, spread)))
        arms = _arms(plan)
        orders = {arm: order for order, arm in enumerate(arm_names(plan, block, list(arms)))}
        for arm, levels in arms.items():
            order = orders[arm]
            own = (first if order == 0 else 1.0) * common * float(np.exp(rng.normal(0.0, drift)))
            truth = next((known for label in (arm, *levels.values()) if (known := (truths or {}).get(label))), Truth())
            if not without(block, arm):
                _cell(folder, plan, block, order, arm, levels, truth, own, rng)
    return folder


def finished(folder: Path, *, drawn: bool = False) -> Path:
    """Compute the results of a record and seal it. With ``drawn`` its whole report is among what is sealed, as a run
    leaves it; that takes most of the time, and commands that take records do not look at it."""
    if drawn:
        report.write(folder)
    else:
        (folder / RESULTS).write_bytes(report.results_text(folder).encode())
    seal(folder)
    return folder


@cache
def _here() -> Environment:
    """Where all records of this process were made; every package is looked at for that."""
    here = environment(["experiment", "run", "plan.yaml"], {})
    return msgspec.structs.replace(here, load_average=[0.1, 0.1, 0.1], dirty="clean", installed={})


def _arms(plan: Plan) -> dict[str, dict[str, str]]:
    arms: list[dict[str, str]] = [{}]
    for factor, known in plan.factors.items():
        arms = [made | {factor: level.label} for made in arms for level in known]
    return {"+".join(made.values()) or ALONE: made for made in arms}


def _cell(
    folder: Path,
    plan: Plan,
    block: int,
    order: int,
    arm: str,
    levels: dict[str, str],
    truth: Truth,
    own: float,
    rng: np.random.Generator,
) -> None:
    target = folder / "cells" / f"b{block:03}" / arm
    (target / "logs").mkdir(parents=True)
    start = (block * 100 + order * 10) * SECOND
    cell = Cell(
        block=block,
        arm=arm,
        levels=levels,
        order=order,
        workload_order=list(plan.workloads),
        state="failed" if block in truth.broken else "completed",
        reason=truth.reason if block in truth.broken else "",
        started="2026-01-01T00:00:00",
        started_ns=start,
        ended="2026-01-01T00:00:09",
        ended_ns=start + 9 * SECOND,
        boot_id="boot",
        seed=block,
        cpus={"load": [1], "system": [0]},
        workloads={},
        events=[],
        processes={"orchestrator": ProcessUse([0], 1.0, 60_000_000, 1), "load": ProcessUse([1], 1.0, 90_000_000, 1)},
        load_average_before=[0.2, 0.2, 0.2],
        load_average_after=[0.8, 0.2, 0.2],
    )
    settings = [{"transport": arm, "asked": {"fleet": "default"}, "granted": {"sndbuf": "212992"}}]
    (target / "settings-orchestrator.json").write_bytes(msgspec.json.encode(settings))
    # Also of a failed cell, where they must not count.
    tables = [_workload(cell, plan, name, truth, own, start + SECOND, rng) for name in plan.workloads]
    pq.write_table(pa.concat_tables(tables), target / SAMPLES_FILE, compression="zstd")
    write_cell(target, cell)


def _workload(
    cell: Cell, plan: Plan, name: str, truth: Truth, own: float, start: int, rng: np.random.Generator
) -> pa.Table:
    workload = plan.workloads[name]
    measured = 4 if cell.block in truth.thin else workload.requests or 300
    warm_up = 5
    count = warm_up + measured
    gap = SECOND // 100
    intended = start + np.arange(count) * gap
    took = own * truth.factor * 1e6 * rng.lognormal(0.0, 0.2, count) + truth.shift_us * 1e3
    took[warm_up : warm_up + measured // 5] *= truth.start
    took[:warm_up] *= 50  # must never show
    ok = rng.random(count) >= truth.failing
    took[~ok] = 30 * SECOND
    began = int(intended[warm_up])
    if workload.fault is not None:
        at = began + round(workload.fault.at * 1e9)
        agent = "agent-1"
        cell.events.append(Event(at, "fault", agent, workload.fault.kind, name))
        if truth.notice_ms is not None:
            lost = at + round(truth.notice_ms * 1e6)
            cell.events.append(Event(lost, "agent_lost", agent, "no sign of life", name))
            met = (intended >= at) & (intended < lost)
            took[met] = lost - intended[met] + took[met]
    done = intended + took.astype(np.int64)
    share = {stage: at / (len(STAGES) + 1) for at, stage in enumerate(STAGES, start=1)}
    stages = {stage: np.where(ok, intended + (took * part).astype(np.int64), 0) for stage, part in share.items()}
    first = intended + (took * 0.3).astype(np.int64)
    pieces = [
        np.linspace(begin, end, PIECES).astype(np.int64).tolist() if workload.stream and fine else []
        for begin, end, fine in zip(first, done, ok, strict=True)
    ]
    cell.workloads[name] = WorkloadRun(began, int(done.max()), warm_up, True, measured, int((~ok[warm_up:]).sum()))
    cell.workloads[name].cpu_seconds = {"orchestrator": 0.1, "load": 0.05}
    right = _answered_right(cell.block, truth.right, ok, rng) if workload.exercises else [None] * count
    columns: dict[str, Any] = {
        "workload": [name] * count,
        "phase": ["warm_up"] * warm_up + ["measured"] * measured,
        "index": [*range(warm_up), *range(measured)],
        "client": [0] * count,
        "intended_ns": intended,
        "sent_ns": intended + round(truth.late_ms * 1e6),
        "first_ns": first if workload.stream else done,
        "done_ns": done,
        "outcome": np.where(ok, "ok", truth.code),
        "origin": np.where(ok, "", truth.origin),
        "status": np.where(ok, 200, 0),
        "transport": [cell.arm] * count,
        "agent": ["agent-1"] * count,
        "attempts": [1] * count,
        "task_id": [f"{name}-{at}" for at in range(count)],
        "priority": [0] * count,
        "prompt_chars": [40] * count,
        "tokens": [PIECES] * count,
        "text_hash": [f"{cell.block}-{at}" for at in range(count)],
        "piece_ns": pieces,
        "deadline_s": [0.0] * count,
        "stages_comparable": [True] * count,
        "tenant": [""] * count,
        "exercise": [f"{name}-{at}" if workload.exercises else "" for at in range(count)],
        "exercise_kind": ["even" if at % 2 else "odd" for at in range(count)],
        "expected": ["42"] * count,
        "said": ["42"] * count,
        "right": right,
        "tasks": [truth.tasks] * count,
        "spent_tokens": [truth.tasks * 10] * count,
        "session": [None] * count,
        "turn": [None] * count,
        "offered": [None] * count,
    } | {f"stage_{stage}_ns": at for stage, at in stages.items()}
    return pa.table({field.name: pa.array(columns[field.name]).cast(field.type) for field in SAMPLES}, schema=SAMPLES)


def _answered_right(block: int, share: float, ok: np.ndarray[Any, Any], rng: np.random.Generator) -> list[bool]:
    """Of each request. Half of the exercises are as hard for every arm of the block."""
    alike = np.random.default_rng(block).random((2, ok.size))
    drawn = np.where(alike[0] < 0.5, alike[1], rng.random(ok.size))
    return list((drawn < share) & ok)
