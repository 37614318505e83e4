"""The search for the rate that a system bears, carried out step by step."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from anywire_experiment.load.arrivals import arrivals
from anywire_experiment.load.rows import Answer
from anywire_experiment.plan.saturation import Search, Step, next_rate
from anywire_experiment.plan.trace_formats import Arrival
from anywire_experiment.plan.workload import Poisson


class Stepping(Protocol):
    """The phase of a workload whose rate is searched."""

    async def schedule(self, moments: Iterator[list[Arrival]], start_ns: int, seconds: float) -> None:
        """Send requests at their times, and wait for all of them."""
        ...


class Searching:
    """Sends steps, one after the other. ``offered`` is the rate of the one under way."""

    def __init__(self, search: Search, stepping: Stepping, rng: np.random.Generator) -> None:
        self._search, self._stepping, self._rng = search, stepping, rng
        self._seen: list[tuple[int, int, int, bool]] = []
        self.offered: float | None = None

    async def run(self) -> None:
        """Until it is known which rate is borne, or that none of the plan's is the limit."""
        steps: list[Step] = []
        while (rate := next_rate(self._search, steps)) is not None:
            self.offered, self._seen = rate, []
            due = arrivals(Poisson(rate=rate), self._rng)
            moments = (list(group) for _, group in itertools.groupby(due, lambda each: each.at))
            await self._stepping.schedule(moments, time.monotonic_ns(), self._search.seconds)
            steps.append(step_of(rate, self._seen))

    def came(self, intended_ns: int, answer: Answer) -> None:
        """A request of the step under way has ended."""
        sent_ns = answer.sent_ns or intended_ns
        self._seen.append((intended_ns, sent_ns, answer.done_ns, answer.outcome == "ok"))


def step_of(rate: float, seen: list[tuple[int, int, int, bool]]) -> Step:
    """What requests, each with its intended time, when it was sent and has ended, and whether it was answered, come
    to."""
    if not seen:
        nothing = np.array([])
        return Step(rate, nothing, nothing, np.array([], dtype=bool), nothing)
    intended, sent, done, answered = (np.array(each) for each in zip(*seen, strict=True))
    begin = intended.min()
    return Step(rate, (intended - begin) / 1e9, (done - intended) / 1e9, answered.astype(bool), (sent - intended) / 1e9)
