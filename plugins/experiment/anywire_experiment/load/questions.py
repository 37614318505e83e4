"""What is asked: each request with everything that the workload, a trace or an exercise says of it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from anywire_experiment.exercises.exercise import Exercise
from anywire_experiment.exercises.files import in_turn, read_exercises
from anywire_experiment.exercises.generated import generated
from anywire_experiment.load.prompts import PromptMaker
from anywire_experiment.load.rows import Phase
from anywire_experiment.load.shapes import Shapes
from anywire_experiment.load.target import Question, chat
from anywire_experiment.plan.trace_formats import Arrival
from anywire_experiment.plan.workload import Trace, Workload

Drawn = TypeVar("Drawn")


class Questions:
    """The requests of one phase of the workload ``name``, one after the other. ``request`` has members of every one,
    over those of the workload. Raises `ConfigError` for a file of exercises or sizes that cannot be read."""

    def __init__(
        self,
        name: str,
        workload: Workload,
        phase: Phase,
        rng: np.random.Generator,
        *,
        seed: int,
        model: str,
        request: Mapping[str, Any],
        folder: Path,
    ) -> None:
        self._workload, self._model, self._request, self._rng = workload, model, request, rng
        self._sessions = f"{name}-{phase}"
        process = workload.arrivals
        self.prompts = PromptMaker(
            workload.prompts,
            int(rng.integers(2**63)),
            seed,
            in_turn=phase == "warm_up",
            block_tokens=process.block_tokens if isinstance(process, Trace) else 512,
        )
        self._exercises = _exercises(workload, rng, folder)
        self._shapes = Shapes(workload, folder)
        self._shape_rng = random.Random(f"{seed}/{name}/{phase}/shapes")

    def of(
        self,
        arrival: Arrival,
        messages: list[dict[str, Any]] | None = None,
        session: int | None = None,
        turn: int | None = None,
    ) -> Question:
        """What is asked at ``arrival``. ``messages`` are those of a ``turn`` of a ``session``; without them a prompt or
        an exercise is made."""
        workload, request = self._workload, self._request
        model = arrival.model if arrival.model and "model" not in request else self._model
        if messages is None and self._shapes.draws:
            arrival = self._shapes.of(arrival, self._shape_rng)
        exercise = next(self._exercises) if self._exercises is not None else None
        if exercise is not None:
            messages = [{"role": "user", "content": exercise.prompt}]
        elif messages is None:
            messages = self.prompts.messages(arrival.input_tokens, arrival.prefix, arrival.blocks)
        stream = workload.stream if arrival.stream is None else arrival.stream
        length = arrival.output_tokens or workload.max_tokens
        return Question(
            model,
            chat(model, messages, workload, length, request, stream),
            stream,
            _drawn(workload.priorities, self._rng, 0) if arrival.priority is None else arrival.priority,
            workload.timeout,
            sum(len(each["content"]) for each in messages),
            arrival.tenant or _drawn(workload.tenants, self._rng, ""),
            arrival.deadline_s or _drawn(workload.deadlines, self._rng, 0.0),
            exercise,
            arrival.cancel_s,
            arrival.cancel_tokens if stream else 0,
            session,
            turn,
            f"{self._sessions}-{session}" if session is not None else "",
        )


def _exercises(workload: Workload, rng: np.random.Generator, folder: Path) -> Iterator[Exercise] | None:
    """Those of the workload, in an order drawn with ``rng``; None when its prompts are no exercises."""
    chosen = workload.exercises
    if chosen is None:
        return None
    seed = int(rng.integers(2**63))
    if chosen.file is None:
        return generated(chosen.kinds, seed)
    return in_turn(read_exercises(folder / chosen.file), seed)


def _drawn(shares: dict[Drawn, float], rng: np.random.Generator, otherwise: Drawn) -> Drawn:
    """One of the keys of ``shares``, each as often as its value says."""
    if not shares:
        return otherwise
    weights = np.array(list(shares.values()))
    return list(shares)[int(rng.choice(len(shares), p=weights / weights.sum()))]
