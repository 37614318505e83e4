"""The whole table carried out, cell after cell, into a record."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from anywire.errors import ConfigError
from anywire.near import nearest
from anywire.plugins import Plugins
from anywire_experiment.fault_table import pages, record
from anywire_experiment.fault_table.brokers import missing_server
from anywire_experiment.fault_table.cell import FaultCell, arm_of
from anywire_experiment.fault_table.record import Table
from anywire_experiment.fault_table.setting import Setting
from anywire_experiment.fault_table.verdict import judged
from anywire_experiment.faults.catalogue import BY_NAME, FAULTS, TRANSPORTS, Fault
from anywire_experiment.plan.arms import check
from anywire_experiment.record.sources import sources_of

_PLAIN = ("stand_in", "signals", "clock")
"""Needs of faults that every system has, or that are looked at when their cell is carried out."""


class Interrupted(Exception):
    """Asked to stop; what the record has is not sealed."""


def run(
    faults: Sequence[str],
    transports: Sequence[str],
    out: Path,
    *,
    setting: Setting,
    invocation: Sequence[str],
    say: Callable[[str], None],
) -> Table:
    """Carry out each of ``faults`` over each of ``transports``, by names, into the new folder ``out``; for none named,
    all that there are. ``say`` is given each line of the table. Raises
    `ConfigError` and `RecordError` before anything starts, `Interrupted` on SIGINT or SIGTERM."""
    chosen = [_fault(each) for each in faults] or list(FAULTS)
    named = [_transport(each) for each in transports] or _installed()
    # What else a cell needs is looked at when its turn comes: without it there is no such cell.
    kinds = {each.needs: each for each in chosen if each.needs in _PLAIN} or {"signals": BY_NAME["agent-killed"]}
    arms = [arm_of(fault, each, Path("/nowhere"), setting) for fault in kinds.values() for each in named]
    for arm in arms:
        check(arm, arm.name)
    record.create(out, invocation, sources_of(arms))
    asyncio.run(_carry_out(chosen, named, out, setting, say))
    return record.conclude(out, setting)


async def _carry_out(
    faults: Sequence[Fault],
    transports: Sequence[str],
    out: Path,
    setting: Setting,
    say: Callable[[str], None],
) -> None:
    loop = asyncio.get_running_loop()
    interrupted: asyncio.Future[str] = loop.create_future()

    def interrupt() -> None:
        if not interrupted.done():
            interrupted.set_result("interrupted")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    say(pages.head())
    for fault in faults:
        for transport in transports:
            folder = record.cell_folder(out, fault.name, transport)
            observed = await FaultCell(fault, transport, folder, setting, interrupted).run()
            if interrupted.done():
                raise Interrupted
            say(pages.line(judged(fault, observed)))


def _fault(name: str) -> Fault:
    if name in BY_NAME:
        return BY_NAME[name]
    near = nearest(name, list(BY_NAME))
    hint = f"did you mean {near!r}? " if near else ""
    raise ConfigError(f"there is no fault {name!r}: {hint}known: {', '.join(BY_NAME)}")


def _transport(name: str) -> str:
    Plugins().load("transports", name)
    return name


def _installed() -> list[str]:
    """Those of the project that are here, with their servers."""
    known = Plugins().names("transports")
    return [each for each in TRANSPORTS if each in known and not missing_server(each)]
