"""Rounds: every system once in each, in an order drawn anew, started afresh and alone.

Each is started anew for each round, so that a round is a sample of its own: two starts of one program differ by some
percent (where its memory lies, what its tables look like), and an interval over rounds of one start would not know. And
nobody else runs meanwhile: heartbeats and health checks of a dozen idle systems would take part in every figure.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from peers import meters
from peers.client import Clients, Tally
from peers.figures import Figures, of_phase
from peers.systems import NotReady, Running, System, running
from peers.workload import BURST_TOKENS, PHASES, Phase

WARM_UP = (Phase("warm", 64), Phase("warm streams", 16, BURST_TOKENS))
WARM_UP_SHARE = 0.2
"""Of the seconds of a phase, for each of them."""
SETTLE = 0.2
"""Seconds between two phases, in which what was left to do is done."""


class Measured(msgspec.Struct):
    """One system in one round. ``errors`` are wrong answers and broken connections, ``error`` is the first of them, or
    why it did not start. ``others`` are the most cores that anything else on the machine used in a phase."""

    system: str
    round: int
    figures: Figures = {}
    errors: int = 0
    error: str = ""
    others: float = 0.0
    started: bool = True


async def measure(
    system: System, number: int, engines: Sequence[str], engine_processes: Sequence[int], folder: Path, seconds: float
) -> Measured:
    """Start a system, ask it in every phase for so many seconds, and end it. One that is given up is the last."""
    found = Measured(system.name, number)
    try:
        async with running(system, engines, folder) as at:
            for phase in (*WARM_UP, *PHASES):
                await asyncio.sleep(SETTLE)
                share = WARM_UP_SHARE if phase in WARM_UP else 1.0
                tally, figures = await _phase(phase, at, engine_processes, found, share * seconds)
                if phase in PHASES:
                    found.figures |= figures
                if tally.hopeless:
                    break  # what is wrong shows again in every further phase
            if at.processes:
                found.figures |= {"ready": at.ready, "memory": meters.memory(at.processes) / 2**20}
    except NotReady as error:
        found.started, found.errors, found.error = False, found.errors + 1, str(error)
    return found


async def _phase(
    phase: Phase, at: Running, engine_processes: Sequence[int], found: Measured, seconds: float
) -> tuple[Tally, Figures]:
    clients = Clients(at.urls, phase)
    tally = clients.tally
    gc.collect()
    gc.disable()
    try:
        await clients.open()
        machine, own = meters.Machine.now(), meters.own_cpu()
        engines, before = meters.read(engine_processes), meters.read(at.processes)
        began, until = await clients.run(seconds)
        after = meters.read(at.processes)
        spent = meters.used(before, after)
        known = spent.cpu + meters.used(engines, meters.read(engine_processes)).cpu + meters.own_cpu() - own
        found.others = max(found.others, meters.others(machine, meters.Machine.now(), known))
    except OSError as error:
        tally.fail(f"no connection: {error}")
        return tally, {}
    finally:
        clients.close()
        gc.enable()
        found.errors += tally.errors
        found.error = found.error or (tally.error and f"{phase.name}: {tally.error}")
    return tally, of_phase(phase, tally, began, until, spent if at.processes else None)


async def measure_all(
    systems: Sequence[System],
    engines: Sequence[str],
    engine_processes: Sequence[int],
    folder: Path,
    *,
    rounds: int,
    seconds: float,
    minutes: float,
    seed: int,
    tell: Callable[[Measured], None],
) -> list[Measured]:
    """All rounds, or as many whole ones as fit into so many minutes. A system that does not start is left out of the
    rounds that follow."""
    order, left = random.Random(seed), list(systems)
    found: list[Measured] = []
    began, longest = time.monotonic(), 0.0
    for number in range(rounds):
        at = time.monotonic()
        if at - began + longest > 60 * minutes:
            print(f"{number} of {rounds} rounds: no further one fits into {minutes:g} minutes", file=sys.stderr)
            break
        order.shuffle(left)
        for system in list(left):
            one = await measure(
                system, number, engines, engine_processes, folder / f"{number}-{system.name.replace('/', '-')}", seconds
            )
            found.append(one)
            tell(one)
            if not one.started:
                left.remove(system)
        longest = max(longest, time.monotonic() - at)
    return found
