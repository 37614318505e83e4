"""When requests are meant to be sent: the arrival processes of open loops."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from anywire_experiment.plan.trace_formats import Arrival
from anywire_experiment.plan.traces import read_trace
from anywire_experiment.plan.workload import Bursts, Poisson, Trace


def arrivals(process: Poisson | Bursts | Trace, rng: np.random.Generator, folder: Path = Path()) -> Iterator[Arrival]:
    """In order of time; endless but for a trace. Raises `ConfigError` for a trace that cannot be read."""
    match process:
        case Poisson():
            return _poisson(process.rate, rng)
        case Bursts():
            times = (burst * process.every for burst in itertools.count())
            return (Arrival(at) for at in times for _ in range(process.size))
        case Trace():
            return iter(read_trace(folder / process.file, process))


def _poisson(rate: float, rng: np.random.Generator) -> Iterator[Arrival]:
    at = 0.0
    while True:
        for gap in rng.exponential(1 / rate, 256):
            at += gap
            yield Arrival(at)
