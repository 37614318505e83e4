"""What is drawn of each request beyond its time: its sizes, whether its client gives it up, and whose it is."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from anywire_experiment.plan.trace_formats import Arrival
from anywire_experiment.plan.traces import read_trace
from anywire_experiment.plan.traffic import LONGEST_ANSWER, LONGEST_PAUSE, LONGEST_PROMPT, count_of
from anywire_experiment.plan.workload import Workload

Drawn = TypeVar("Drawn")


class Shapes:
    """Draws the shapes of one workload's requests. What a request has already it keeps."""

    def __init__(self, workload: Workload, folder: Path) -> None:
        """Raises `ConfigError` for a file of sizes that cannot be read."""
        self._workload = workload
        sizes = workload.sizes
        self._pairs: list[tuple[int, int]] = []
        if sizes is not None and sizes.file is not None:
            self._pairs = [(each.input_tokens, each.output_tokens) for each in read_trace(folder / sizes.file)]

    @property
    def draws(self) -> bool:
        """Whether there is anything to draw."""
        return self._workload.sizes is not None or self._workload.cancel is not None

    def of(self, arrival: Arrival, rng: random.Random) -> Arrival:
        """With sizes, and when its client gives it up."""
        given, made = self._sizes(rng)
        seconds, tokens = self._given_up(rng)
        return arrival._replace(
            input_tokens=arrival.input_tokens or given,
            output_tokens=arrival.output_tokens or made,
            cancel_s=arrival.cancel_s or seconds,
            cancel_tokens=arrival.cancel_tokens or tokens,
        )

    def owned(self, arrival: Arrival, rng: random.Random) -> Arrival:
        """With a priority, tenant and deadline, which all requests of a session have in common."""
        workload = self._workload
        return arrival._replace(
            priority=chosen(workload.priorities, rng, 0) if arrival.priority is None else arrival.priority,
            tenant=arrival.tenant or chosen(workload.tenants, rng, ""),
            deadline_s=arrival.deadline_s or chosen(workload.deadlines, rng, 0.0),
        )

    def _sizes(self, rng: random.Random) -> tuple[int, int]:
        sizes = self._workload.sizes
        if self._pairs:
            return rng.choice(self._pairs)
        if sizes is None:
            return 0, 0
        given = count_of(sizes.prompt, rng, LONGEST_PROMPT) if sizes.prompt is not None else 0
        made = count_of(sizes.answer, rng, LONGEST_ANSWER) if sizes.answer is not None else 0
        return given, made

    def _given_up(self, rng: random.Random) -> tuple[float, int]:
        """Seconds and pieces, 0 for neither."""
        cancel = self._workload.cancel
        if cancel is None or rng.random() >= cancel.share:
            return 0.0, 0
        if cancel.after is not None:
            return min(max(cancel.after.draw(rng), 1e-3), LONGEST_PAUSE), 0
        return 0.0, count_of(cancel.after_tokens, rng, LONGEST_ANSWER) if cancel.after_tokens is not None else 0


def chosen(shares: Mapping[Drawn, float], rng: random.Random, otherwise: Drawn) -> Drawn:
    """One of the keys of ``shares``, each as often as its value says."""
    return rng.choices([*shares], [*shares.values()])[0] if shares else otherwise
