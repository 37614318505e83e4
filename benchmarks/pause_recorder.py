"""A plugin that records each pause of the event loop, in an orchestrator's process and in an agent's; `pauses.py` reads
the records. An agent records with the engine ``recorded_synthetic``."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from anywire.builtin.synthetic import SyntheticEngine
from anywire.event_bus import EventBus
from anywire.hookspecs import hookimpl

FOLDER = "ANYWIRE_PAUSES"
"""The variable that names the folder of the records, one file for each process."""
INTERVAL, SHORTEST = 0.001, 0.003
"""Seconds between two looks at the clock, and of the shortest pause that is recorded."""
_tickers: set[asyncio.Task[None]] = set()


def _record(role: str) -> None:
    if FOLDER in os.environ:
        ticker = asyncio.get_running_loop().create_task(_tick(Path(os.environ[FOLDER]) / f"{role}-{os.getpid()}"))
        _tickers.add(ticker)


async def _tick(path: Path) -> None:
    """One line a pause: its length on the wall, and the processor time that the loop's thread took in it."""
    with path.open("w", buffering=1, encoding="utf-8") as records:
        wall, cpu = time.monotonic(), time.thread_time()
        while True:
            await asyncio.sleep(INTERVAL)
            was_wall, was_cpu = wall, cpu
            wall, cpu = time.monotonic(), time.thread_time()
            if wall - was_wall - INTERVAL > SHORTEST:
                records.write(f"{wall - was_wall - INTERVAL:.6f} {cpu - was_cpu:.6f}\n")


class RecordedEngine(SyntheticEngine):
    name = "recorded_synthetic"

    async def start(self, changed: Callable[[], None]) -> None:
        _record("agent")
        await super().start(changed)


@hookimpl
def anywire_subscribe(events: EventBus) -> None:
    _record("server")


@hookimpl
def anywire_register(kind: str) -> Mapping[str, type] | None:
    return {RecordedEngine.name: RecordedEngine} if kind == "engines" else None
