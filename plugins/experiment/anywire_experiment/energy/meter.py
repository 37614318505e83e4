"""All sources of a machine, read together, and often enough that no counter wraps unseen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anywire.errors import ConfigError
from anywire.printable import printable
from anywire_experiment.energy.jetson import jetson
from anywire_experiment.energy.nvidia import load_nvml, nvidia
from anywire_experiment.energy.rapl import rapl
from anywire_experiment.energy.source import Source
from anywire_experiment.record.energy import CellEnergy

IDLE = 5.0
"""Seconds for which the machine's power is measured before anything runs."""


class Meter:
    """Joules by source since it was begun. When one source fails, nothing is counted from then on, and `missing` says
    why: a sum without it would be of something else."""

    def __init__(
        self, sources: Sequence[Source], missing: Sequence[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sources, self.missing, self._clock = list(sources), list(missing), clock
        self._idle: dict[str, float] = {}
        self.read()

    @property
    def sources(self) -> list[str]:
        return [each.name for each in self._sources]

    @property
    def every(self) -> float | None:
        """Seconds after which it must be read again, None when it need not."""
        return min((each.every for each in self._sources if each.every is not None), default=None)

    def read(self) -> dict[str, float]:
        """Joules by source so far; empty where nothing is counted."""
        found: dict[str, float] = {}
        now = self._clock()
        for each in self._sources:
            try:
                found[each.name] = each.joules(now)
            except (OSError, ValueError) as error:
                self._sources = []
                self.missing.append(f"{each.name} could be read no more: {printable(str(error), 200)}")
                return {}
        return found

    def since(self, before: dict[str, float]) -> dict[str, float]:
        """Joules by source since ``before`` was read."""
        return {name: joules - before[name] for name, joules in self.read().items()} if before else {}

    async def measure_idle(self, seconds: float = IDLE) -> None:
        """Measure the power of the machine as it is, in which nothing of an experiment runs yet."""
        if not self._sources:
            return
        before, began = self.read(), self._clock()
        await asyncio.sleep(seconds)
        used = self.since(before)
        took = self._clock() - began
        self._idle = {name: joules / took for name, joules in used.items()}

    def told(self) -> CellEnergy:
        """What it measures, for the record."""
        return CellEnergy(self.sources, dict(self._idle), list(self.missing))


@asynccontextmanager
async def kept_reading(meter: Meter) -> AsyncIterator[Meter]:
    """The meter, read as often as its sources need."""
    task = asyncio.create_task(_keep_reading(meter, meter.every)) if meter.every is not None else None
    try:
        yield meter
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def meter_of(chosen: Collection[str] = (), root: Path = Path("/"), load: Callable[[], Any] = load_nvml) -> Meter:
    """A meter of this machine's sources: those ``chosen``, or all. Raises `ConfigError` for a chosen one that is not
    there."""
    found: list[Source] = []
    missing: list[str] = []
    for sources, why in (rapl(root), nvidia(load), jetson(root)):
        found += sources
        missing += [why] if why else []
    names = [each.name for each in found]
    if unknown := [each for each in chosen if each not in names]:
        known = ", ".join(names) or f"none ({'; '.join(missing)})"
        raise ConfigError(f"energy: this machine has no source {unknown[0]!r}; it has: {known}")
    return Meter([each for each in found if not chosen or each.name in chosen], missing)


async def _keep_reading(meter: Meter, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        meter.read()
