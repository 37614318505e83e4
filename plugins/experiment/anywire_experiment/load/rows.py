"""What came of each request, until it is written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from anywire_experiment.exercises.exercise import Exercise, is_right

Phase = Literal["warm_up", "measured"]

MAX_SAID_CHARS = 1000
"""Characters of the answer to an exercise that a record keeps."""


class Answer(msgspec.Struct):
    """What a target says of one request. ``outcome`` is "ok" or the code of the failure, ``origin`` says who failed;
    times as in `samples`."""

    outcome: str = "ok"
    origin: str = ""
    status: int = 0
    transport: str = ""
    agent: str = ""
    attempts: int = 0
    task_id: str = ""
    sent_ns: int = 0
    first_ns: int = 0
    done_ns: int = 0
    tokens: int = -1
    text: str = ""
    piece_ns: list[int] = []

    def judged(self, transports: frozenset[str]) -> Answer:
        """With the outcome of an answer that came whole, but empty or over a transport not among ``transports``.

        Two name none, and are not judged by it: a stream that waited for longer than the gateway leaves its client
        without a sign, whose headers are sent before an agent is chosen; and the answer of a service, which has no
        agent. Over what a service has asked agents is known later (`anywire_experiment.record.cells.join_samples`).
        """
        if self.tokens < 0:
            self.tokens = len(self.piece_ns)
        is_unnamed = not self.transport and (bool(self.piece_ns) or not self.agent)
        if self.outcome == "ok" and not self.text:
            self.outcome = "no_tokens"
        if self.outcome == "ok" and transports and self.transport not in transports and not is_unnamed:
            self.outcome = "wrong_transport"
        return self


class Asked(msgspec.Struct, frozen=True):
    """What is known of a request before its answer. ``session`` and ``turn`` are the columns of that name: numbers from
    0 within the phase, null where a request depends on no other one; requests of a turn are sent at once. ``offered``
    is the rate of its step where the rate that is borne is searched, else null."""

    workload: str
    phase: Phase
    index: int
    client: int
    intended_ns: int
    priority: int
    prompt_chars: int
    deadline_s: float = 0.0
    exercise: Exercise | None = None
    session: int | None = None
    turn: int | None = None
    offered: float | None = None


class Rows:
    """The requests of a cell. Columns are made of them at the end, when nothing is measured any more."""

    def __init__(self) -> None:
        self._rows: list[tuple[Asked, Answer]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, asked: Asked, answer: Answer) -> None:
        self._rows.append((asked, answer))

    def write(self, path: Path) -> None:
        """In order of workload, phase and index. Raises OSError."""
        import pyarrow as pa  # when nothing is measured any more, and nobody waits for the generator to start
        import pyarrow.parquet as pq

        from anywire_experiment.record.samples import LOADED

        columns: dict[str, list[Any]] = {"text_hash": [_hash(answer.text) for _, answer in self._rows]}
        for name in Asked.__struct_fields__:
            columns[name] = [getattr(asked, name) for asked, _ in self._rows]
        for name in Answer.__struct_fields__:
            if name in LOADED.names:
                columns[name] = [getattr(answer, name) for _, answer in self._rows]
        columns |= _checked(columns["exercise"], [answer for _, answer in self._rows])
        table = pa.table({name: columns[name] for name in LOADED.names}, schema=LOADED)
        pq.write_table(table.sort_by([(key, "ascending") for key in ("workload", "phase", "index")]), path)


def _checked(exercises: Sequence[Exercise | None], answers: Sequence[Answer]) -> dict[str, list[Any]]:
    """What was asked, what is right, what was said, and whether that is right: only a whole answer can be."""
    found: dict[str, list[Any]] = {"exercise": [], "exercise_kind": [], "expected": [], "said": [], "right": []}
    for exercise, answer in zip(exercises, answers, strict=True):
        found["exercise"].append(exercise.id if exercise else "")
        found["exercise_kind"].append(exercise.kind if exercise else "")
        found["expected"].append(exercise.expected if exercise else "")
        found["said"].append(_short(answer.text) if exercise else "")
        found["right"].append(answer.outcome == "ok" and is_right(exercise, answer.text) if exercise else None)
    return found


def _short(text: str) -> str:
    """Its beginning and its end, where answers mostly are."""
    half = MAX_SAID_CHARS // 2
    shown = text if len(text) <= MAX_SAID_CHARS else f"{text[:half]} … {text[-half:]}"
    return shown.encode(errors="replace").decode()


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest() if text else ""
