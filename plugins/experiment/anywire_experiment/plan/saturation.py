"""The rate at which a system is saturated: how a plan asks for it, which rates are tried, and what is found.

A step is an open loop (independent arrivals) at one rate. The system bears a rate if it keeps up: what it answers at
the end of the step takes no longer than at the lowest rate, but for a small share of the step; above the system's
capacity the queue, and with it the latency, grows by a share of the time that passes. Rates double until one is not
borne. Then the bracket between the highest that was borne and the lowest that was not is halved (as a ratio) until it
is as narrow as the plan wants; what is found is its middle. Each block searches anew, so the interval of what an arm
bears is over blocks, as of every other figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pydantic
from numpy.typing import NDArray

from anywire_experiment.plan.section import Positive, Section

FEWEST = 20
"""Requests of the shortest step: fewer tell nothing of how latency goes on."""
MOST_REQUESTS = 200_000
"""Of the step at the highest rate."""
LAST = 0.75
"""Share of a step after which its end begins."""


class Search(Section):
    """Independent arrivals at one rate after the other, until it is known which the system bears."""

    kind: Literal["search"] = "search"
    low: Positive = pydantic.Field(description="requests per second of the first step, which the system should bear")
    high: Positive = pydantic.Field(description="requests per second above which none is tried")
    seconds: Positive = pydantic.Field(3.0, description="how long a step is; longer ones tell finer differences")
    precision: float = pydantic.Field(
        0.1, ge=0.02, le=1, description="ratio, less 1, of a rate that is not borne to one that is, at which it ends"
    )
    latency: Positive | None = pydantic.Field(
        None, description="seconds that 95 % of a step's requests must not exceed; empty: it is enough to keep up"
    )
    failing: float = pydantic.Field(0.01, ge=0, lt=1, description="share of a step's requests that may fail")

    @pydantic.model_validator(mode="after")
    def _can_tell(self) -> Search:
        if self.high <= self.low:
            raise ValueError(f"high: {self.high:g} per second is not above `low`, {self.low:g}")
        if self.low * self.seconds < FEWEST:
            raise ValueError(
                f"a step at {self.low:g} per second for {self.seconds:g} s has some {self.low * self.seconds:.0f} "
                f"requests; it needs {FEWEST}: raise `low` or `seconds`"
            )
        if self.high * self.seconds > MOST_REQUESTS:
            raise ValueError(
                f"a step at {self.high:g} per second for {self.seconds:g} s has more than {MOST_REQUESTS} requests: "
                "lower `high` or `seconds`"
            )
        return self


class Step(NamedTuple):
    """What was seen of one: when each request was meant to be sent, in seconds since the first, how long each took from
    then, whether it was answered, and how late the load generator sent it, in seconds."""

    rate: float
    at: NDArray[np.float64]
    took: NDArray[np.float64]
    answered: NDArray[np.bool_]
    late: NDArray[np.float64]

    @property
    def latency(self) -> float:
        """Seconds, the median of the answers; infinite without any."""
        return float(np.median(self.took[self.answered])) if self.answered.any() else math.inf


class Bracket(NamedTuple):
    """The highest rate that was borne, 0 for none, and the lowest that was not, infinite for none. ``is_generators``:
    that one was sent too late, so that it says nothing of the system."""

    borne: float
    not_borne: float
    is_generators: bool = False

    @property
    def capacity(self) -> float | None:
        """Requests per second that the system bears; None where the plan's rates, or what the load generator can send,
        do not enclose it."""
        found = self.borne > 0 and math.isfinite(self.not_borne) and not self.is_generators
        return math.sqrt(self.borne * self.not_borne) if found else None


def is_borne(search: Search, step: Step, base: float) -> bool:
    """Whether a step's rate was borne; ``base`` is the median latency at the lowest rate, in seconds."""
    if not step.at.size or np.count_nonzero(~step.answered) > search.failing * step.at.size:
        return False
    end = step.answered & (step.at >= LAST * search.seconds)
    if end.any() and np.median(step.took[end]) - base > search.precision / 2 * search.seconds:
        return False
    took = np.where(step.answered, step.took, math.inf)
    return search.latency is None or float(np.quantile(took, 0.95, method="higher")) <= search.latency


def is_generators(search: Search, step: Step) -> bool:
    """Whether a step was sent so late at its end that half of what tells a rate that is not borne may come of that."""
    end = step.answered & (step.at >= LAST * search.seconds)
    return bool(end.any()) and float(np.median(step.late[end])) > search.precision / 4 * search.seconds


def bracket(search: Search, steps: Sequence[Step]) -> Bracket:
    """What steps, in their order, come to; the first one is at the lowest rate."""
    found = Bracket(0.0, math.inf)
    for step in steps:
        if is_borne(search, step, steps[0].latency):
            found = found._replace(borne=max(found.borne, step.rate))
        elif step.rate < found.not_borne:
            found = Bracket(found.borne, step.rate, is_generators(search, step))
    return found


def next_rate(search: Search, steps: Sequence[Step]) -> float | None:
    """The rate of the next step; None once nothing more is to be learnt."""
    if not steps:
        return search.low
    borne, not_borne, _ = bracket(search, steps)
    if not borne:
        return None
    if math.isinf(not_borne):
        return min(2 * borne, search.high) if borne < search.high else None
    return math.sqrt(borne * not_borne) if not_borne > borne * (1 + search.precision) else None


class Length(NamedTuple):
    """How long a search is at a system that bears its lowest rate: steps at rates that are borne, and at some that are
    not, as many of both as may be."""

    borne: int
    not_borne: int

    @property
    def steps(self) -> int:
        return self.borne + self.not_borne

    def longest(self, search: Search) -> float:
        """Seconds. What was sent at twice the rate that is borne is answered after twice the time."""
        return search.seconds * (self.borne + 2 * self.not_borne)


def lengths(search: Search) -> Iterator[Length]:
    """Of the search, for each rate after which it may stop to double."""
    rate, borne = search.low, 1
    while rate < search.high:
        following = min(2 * rate, search.high)
        apart = math.log(following / rate) / math.log1p(search.precision)
        halvings = math.ceil(math.log2(apart)) if apart > 1 else 0
        yield Length(borne, 1 + halvings)
        rate, borne = following, borne + 1
    yield Length(borne, 0)
