"""A plan carried out block by block, cell by cell, into a record; and gone on with where it was interrupted."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from anywire.errors import ConfigError
from anywire.this_system import needs_posix
from anywire_experiment.energy.meter import Meter, kept_reading, meter_of
from anywire_experiment.network import unavailable
from anywire_experiment.plan.arms import Arm, arm_order
from anywire_experiment.plan.plan import Plan
from anywire_experiment.record import provenance
from anywire_experiment.record.cells import Cell
from anywire_experiment.record.environment import Environment, differences, environment
from anywire_experiment.record.folder import Record, Session, Sessions, cells_of
from anywire_experiment.record.sources import sources_of
from anywire_experiment.record.storage import writing
from anywire_experiment.run.availability import available
from anywire_experiment.run.cell import CellRun
from anywire_experiment.run.cores import placement
from anywire_experiment.run.expectations import expectations
from anywire_experiment.run.faults import check_here
from anywire_experiment.run.outside import outside
from anywire_experiment.run.system import free_dds_domain


class Interrupted(Exception):
    """Asked to stop; what is whole is in the record, and the same command goes on."""


class Progress(Protocol):
    """What a person is told while it runs."""

    def began(self, done: int, total: int) -> None: ...
    def doing(self, block: int, arm: str, what: str) -> None: ...
    def finished(self, cell: Cell, done: int, total: int, seconds_left: float) -> None: ...
    def warned(self, sentence: str) -> None: ...
    def say(self, line: str) -> None: ...


class Place(NamedTuple):
    """Where in the plan a cell is. ``order``: its place in the block."""

    block: int
    order: int
    arm: Arm


def places(plan: Plan, arms: Sequence[Arm]) -> list[Place]:
    """Every cell of the plan, in the order in which they are run."""
    return [
        Place(block, order, arm)
        for block in range(1, plan.blocks + 1)
        for order, arm in enumerate(arm_order(plan, block, list(arms)))
    ]


def run(plan: Plan, given: Path, out: Path, invocation: Sequence[str], progress: Progress) -> bool:
    """Carry ``plan`` (read from the file ``given``) out into the folder ``out``; False when all its cells were there.

    Raises `ConfigError` and `RecordError` before anything starts, `Interrupted` on SIGINT or SIGTERM. The record then
    has all cells but is not sealed.
    """
    needs_posix("an experiment")
    placement(plan)
    plan, arms, left_out = available(plan, progress)
    check_here(arms)
    sources = sources_of(arms)
    meter = meter_of(plan.energy)
    networked = next((each.name for each in arms if each.network is not None), None)
    if networked is not None and (why := unavailable()):
        raise ConfigError(f"the arm {networked!r} needs a network, which cannot be emulated here: {why}")
    with Record.create_or_resume(out, plan, given) as record, writing(out):
        missing = [each for each in places(plan, arms) if not record.has(each.block, each.arm.name)]
        if not missing:
            return False
        sessions = record.sessions() or Sessions(plan.seed, [])
        for each in expectations(plan, arms):
            progress.warned(each)
        session = _next_session(sessions, cells_of(out), environment(invocation, sources), progress)
        session.left_out, session.outside = left_out, list(outside(arms))
        record.write_sessions(sessions)
        provenance.keep(out, arms)
        try:
            asyncio.run(_run(plan, record, missing, len(arms) * plan.blocks, session, progress, meter))
            session.ending = "complete"
        except Interrupted:
            session.ending = "interrupted"
            raise
        finally:
            session.ended = _now()
            record.write_sessions(sessions)
        return True


def _next_session(sessions: Sessions, cells: list[Cell], here: Environment, progress: Progress) -> Session:
    session = Session(_now(), here)
    if sessions.sessions:
        before = sessions.sessions[-1]
        before.cells = len(cells) - sum(each.cells for each in sessions.sessions[:-1])
        before.last_cell = max((each.ended for each in cells), default="")
        session.differs = differences(sessions.sessions[0].environment, session.environment)
        for each in session.differs:
            progress.warned(f"not as when this record was begun: {each}")
    sessions.sessions.append(session)
    return session


async def _run(
    plan: Plan,
    record: Record,
    missing: list[Place],
    total: int,
    session: Session,
    progress: Progress,
    meter: Meter,
) -> None:
    loop, current = asyncio.get_running_loop(), asyncio.current_task()
    assert current is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, current.cancel)
    done, began = total - len(missing), time.monotonic()
    progress.began(done, total)
    domain = free_dds_domain()
    told: set[str] = set()
    try:
        async with kept_reading(meter):
            await meter.measure_idle()
            for count, place in enumerate(missing, start=1):
                cell = await _run_cell(plan, record, place, domain, progress, meter)
                session.cells, session.last_cell = count, cell.ended
                per_cell = (time.monotonic() - began) / count
                progress.finished(cell, done + count, total, per_cell * (len(missing) - count))
                _warn_of_too_few(plan, cell, told, progress)
    except asyncio.CancelledError:
        raise Interrupted from None


async def _run_cell(plan: Plan, record: Record, place: Place, domain: int, progress: Progress, meter: Meter) -> Cell:
    block, order, arm = place

    def doing(what: str) -> None:
        progress.doing(block, arm.name, what)

    partial = record.partial(block, arm.name)
    cell = await CellRun(plan, arm, block, order, partial, domain, doing, meter).run()
    record.keep(partial, cell)
    return cell


def _warn_of_too_few(plan: Plan, cell: Cell, told: set[str], progress: Progress) -> None:
    """Once for each workload of which the plan did not tell it: after the first cell a person can still change it."""
    if cell.state != "completed":
        return
    for name, run in cell.workloads.items():
        answers = run.requests - run.failed
        if answers < plan.fewest_answers and name not in told and not plan.has_too_few_requests(name):
            told.add(name)
            progress.warned(
                f"workload {name!r} had {answers} whole answers in block {cell.block} of {cell.arm}, and a block needs "
                f"{plan.fewest_answers} for its {plan.statistic} to count: let it last longer"
            )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
