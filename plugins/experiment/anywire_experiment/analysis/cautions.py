"""What a reader must know of a run before its figures are believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from anywire_experiment.analysis import keeping_up
from anywire_experiment.analysis.energy import cautions_of_energy
from anywire_experiment.analysis.family import family_size, too_large
from anywire_experiment.analysis.outside import outside_of_it
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.wording import moments
from anywire_experiment.record.cells import Cell
from anywire_experiment.record.folder import ENVIRONMENT, Sessions
from anywire_experiment.record.provenance import code_cautions
from anywire_experiment.record.storage import RecordError
from anywire_experiment.statistics import FEWEST_BLOCKS, FEWEST_FOR_INTERVAL

BUSY = 0.5
"""Load average per core, from the minute before the run, above which the machine was not free for it."""


def sessions_of(folder: Path) -> Sessions | None:
    """Where and when a record was made; None when it does not say. Raises `RecordError`."""
    path = folder / ENVIRONMENT
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Sessions)
    except (OSError, msgspec.DecodeError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from error


def cautions_of(record: RawData) -> list[str]:
    """A sentence each. Raises `RecordError`."""
    return [
        *_of_cells(record.cells, record.expected),
        *_of_sessions(sessions_of(record.folder)),
        *_of_blocks(record),
        *too_large(record.plan, family_size(record)),
        *_of_bursts(record),
        *keeping_up.told(record),
        *cautions_of_energy(record.cells),
        *record.plan.repeated_traces(),
        *outside_of_it(sessions_of(record.folder)),
    ]


def _of_blocks(record: RawData) -> Iterator[str]:
    if len(record.arms) > 1 and record.plan.blocks < FEWEST_BLOCKS:
        few = f", and fewer than {FEWEST_FOR_INTERVAL} no interval" if record.plan.blocks < FEWEST_FOR_INTERVAL else ""
        plural = "" if record.plan.blocks == 1 else "s"
        yield f"the plan has {record.plan.blocks} block{plural}: fewer than {FEWEST_BLOCKS} give no verdict{few}"


def _of_bursts(record: RawData) -> Iterator[str]:
    for workload in record.plan.workloads:
        bursts = [(arm, shape) for arm in record.arms if (shape := record.stream_shape(arm, workload)) and shape.burst]
        if bursts:
            arms, first = ", ".join(arm for arm, _ in bursts), bursts[0][1]
            yield (
                f"the answers of {workload} came as bursts over {arms} ({first.tokens:g} tokens at "
                f"{moments(first.moments)}): time per token and tokens per second are not judged, and the time to the "
                "first token is nearly the whole latency"
            )


def _of_cells(cells: Sequence[Cell], expected: int) -> Iterator[str]:
    whole = [each for each in cells if each.state == "completed"]
    if len(cells) < expected:
        yield f"{expected - len(cells)} of {expected} cells have not run: this record is not finished"
    if len(whole) < len(cells):
        yield f"{len(cells) - len(whole)} of {expected} cells failed and are in no figure; the table of cells says why"
    if unsteady := sum(any(run.steady is False for run in each.workloads.values()) for each in whole):
        yield f"in {unsteady} of {len(whole)} cells a warm-up ended before the latency was steady"
    if any(_shared(each) for each in whole):
        yield "the load generator and the system shared cores, so each took time from the other"
    if len({each.boot_id for each in cells}) > 1:
        yield "the machine was started anew between cells"


def _shared(cell: Cell) -> bool:
    """No cores at all stands for any."""
    load, system = cell.cpus.get("load"), cell.cpus.get("system")
    return not load or not system or bool({*load} & {*system})


def _of_sessions(sessions: Sessions | None) -> Iterator[str]:
    if sessions is None or not sessions.sessions:
        return
    first = sessions.sessions[0].environment
    cores = len(first.usable_cores) or first.cores
    if first.load_average and cores and first.load_average[0] > BUSY * cores:
        yield f"the machine was busy: load average {first.load_average[0]:g} on {cores} cores before the run began"
    yield from code_cautions(first.commit, first.dirty, first.sources | first.installed)
    if len(sessions.sessions) > 1:
        yield f"the run was interrupted: it took {len(sessions.sessions)} sessions"
    for number, session in enumerate(sessions.sessions, start=1):
        if session.differs:
            yield f"session {number} was not as the first: {'; '.join(session.differs)}"
