"""What the answers of a phase come to, and what rounds are compared by: arithmetic alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cost import median_ratio
from peers.client import Tally
from peers.meters import Used
from peers.workload import Phase

Figures = dict[str, float]


class Figure(NamedTuple):
    """One column: what it is called, and whether more of it is better. Times are microseconds."""

    name: str
    title: str
    more_is_better: bool = False


FIGURES = (
    Figure("one_p50", "p50, 1 client"),
    Figure("one_p99", "p99, 1 client"),
    Figure("one_cpu", "CPU of a request, 1 client"),
    Figure("one_wakeups", "wake-ups of a request, 1 client"),
    Figure("many_rate", "requests/s, 64 clients", True),
    Figure("many_p50", "p50, 64 clients"),
    Figure("many_p99", "p99, 64 clients"),
    Figure("many_cpu", "CPU of a request, 64 clients"),
    Figure("many_wakeups", "wake-ups of a request, 64 clients"),
    Figure("burst_rate", "tokens/s, 32 streams", True),
    Figure("burst_first", "first token p50, 32 streams"),
    Figure("burst_cpu", "CPU of a token, 32 streams"),
    Figure("burst_wakeups", "wake-ups of a token, 32 streams"),
    Figure("paced_way", "a paced token's way, p50"),
    Figure("paced_way_p99", "a paced token's way, p99"),
    Figure("paced_cpu", "CPU of a paced token"),
    Figure("paced_wakeups", "wake-ups of a paced token"),
    Figure("ready", "seconds until ready"),
    Figure("memory", "MiB of memory"),
)
"""Those that tables may have."""
BY_NAME = {each.name: each for each in FIGURES}


def of_phase(phase: Phase, tally: Tally, began: int, until: int, spent: Used | None) -> Figures:
    """The figures of one phase, which was measured between two moments. Rates count what came between them, the rest
    counts every answer. ``spent`` is what the system used for it, None where there is none. Empty without an answer."""
    found: Figures = {}
    items = len(tally.arrivals) if phase.tokens else len(tally.requests)
    if not items:
        return found
    if phase.tokens:
        found[f"{phase.name}_rate"] = rate(tally.arrivals, began, until, phase.clients * phase.tokens)
        found[f"{phase.name}_first"] = percentile(tally.firsts, 50) / 1000
        found[f"{phase.name}_way"] = percentile(tally.ways, 50) / 1000
        found[f"{phase.name}_way_p99"] = percentile(tally.ways, 99) / 1000
    else:
        times = [ended - sent for sent, ended in tally.requests]
        found[f"{phase.name}_rate"] = rate([ended for _, ended in tally.requests], began, until, phase.clients)
        found[f"{phase.name}_p50"] = percentile(times, 50) / 1000
        found[f"{phase.name}_p99"] = percentile(times, 99) / 1000
    if spent is not None:
        found[f"{phase.name}_cpu"] = 1e6 * spent.cpu / items
        found[f"{phase.name}_wakeups"] = spent.wakeups / items
    return found


def rate(moments: Sequence[int], began: int, until: int, least: int) -> float:
    """How many of these moments there are a second, between two; up to the last of all where less than ``least`` lie
    there, because a single answer took as long as the phase."""
    count = sum(began <= each < until for each in moments)
    if count < least:
        count, until = len(moments), max(*moments, began + 1)
    return 1e9 * count / (until - began)


def percentile(values: Sequence[int], percent: float) -> float:
    return float(np.percentile(values, percent))


class Ratio(NamedTuple):
    """The median of the ratios of all rounds, with its 95 % interval (the whole range of less than 3)."""

    median: float
    low: float
    high: float
    rounds: int


Rounds = Mapping[int, Figures]
"""The figures of a system by round."""


def medians(rounds: Rounds) -> Figures:
    """The median of each figure over all rounds that have it."""
    names = {name for figures in rounds.values() for name in figures}
    return {name: statistics.median([each[name] for each in rounds.values() if name in each]) for name in names}


def ratio(rounds: Rounds, reference: Rounds, name: str) -> Ratio | None:
    """How many times the reference's figure a system's is, from the rounds in which both have it; None without any."""
    pairs = [
        (reference[each][name], figures[name])
        for each, figures in rounds.items()
        if name in figures and reference.get(each, {}).get(name)
    ]
    if not pairs:
        return None
    before, after = zip(*pairs, strict=True)
    return Ratio(*median_ratio(before, after), len(pairs))
