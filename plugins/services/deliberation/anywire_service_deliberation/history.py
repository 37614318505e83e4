"""The events of a deliberation, made of what is kept of it: the same ones, with the same numbers, after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from anywire_service_deliberation.offered import Update
from anywire_service_deliberation.record import Answer, Deliberation, Failure, Kind, Stage, WorkId
from anywire_service_deliberation.stages import current, works

_STAGES: dict[Kind, Stage] = {
    "proposal": "generating",
    "critique": "critiquing",
    "revision": "revising",
    "score": "scoring",
    "synthesis": "synthesis",
}


class _Place(NamedTuple):
    """A stage, in the order of a deliberation: critique and revision go by rounds."""

    block: int
    round: int
    step: int
    stage: Stage


class History:
    """``updates`` grow by what `extend` finds in a newer state. Their number is bounded by the works of the question:
    two for each, three for each further try."""

    def __init__(self) -> None:
        self.updates: list[Update] = []
        self._place = _Place(-1, 0, 0, "generating")
        self._answers = self._failures = self._late = 0
        self._retried: dict[str, int] = {}
        self._ended = False

    def extend(self, state: Deliberation) -> None:
        """Add what ``state`` has that earlier ones had not. What came between two states is told in the order of its
        times; a stage begins before the first thing that came of it."""
        if self._ended:
            return
        if not self.updates:
            self._add("stage", state.submitted, status="submitted", round=0)
        for at, name, work, data in self._news(state):
            self._go_to(state, _place_of(work))
            self._add(name, at, work=str(work), **data)
            if name == "failed" and data["again"]:
                self._add("asked", at, **_asked(state, work, data["tries"] + 1))
        stage = current(state)
        if stage is not None:
            self._go_to(state, _place(stage, state.round))
        if state.is_final:
            self._ended = True
            self._add("ended", state.ended, status=state.status, winner=state.winner, reason=state.reason)

    def _news(self, state: Deliberation) -> Iterator[tuple[float, str, WorkId, dict[str, Any]]]:
        found: list[tuple[float, str, WorkId, dict[str, Any]]] = []
        for text, failures in state.retried.items():
            for failure in failures[self._retried.get(text, 0) :]:
                found.append((failure.at, "failed", WorkId.of(text), _failed(failure, again=True)))
            self._retried[text] = len(failures)
        for text, failure in islice(state.failures.items(), self._failures, None):
            found.append((failure.at, "failed", WorkId.of(text), _failed(failure, again=False)))
        for text, answer in islice(state.answers.items(), self._answers, None):
            found.append((answer.ended, "answered", WorkId.of(text), _answered(answer)))
        for text, answer in islice(state.late.items(), self._late, None):
            found.append((answer.ended, "late", WorkId.of(text), _answered(answer)))
        self._failures, self._answers, self._late = len(state.failures), len(state.answers), len(state.late)
        yield from sorted(found, key=lambda news: news[0])

    def _go_to(self, state: Deliberation, place: _Place) -> None:
        """Tell that a later stage has begun, with the event before it, and which works were asked for with that."""
        if place[:3] <= self._place[:3]:
            return
        self._place, at = place, self.updates[-1].at
        status = "scoring" if place.stage == "synthesis" else place.stage
        self._add("stage", at, status=place.stage, round=place.round)
        winner = state.winner if place.stage == "synthesis" else ""
        then = msgspec.structs.replace(state, status=status, round=place.round, winner=winner)
        for work in works(then):
            self._add("asked", at, **_asked(state, work, 1))

    def _add(self, event: str, moment: float, **data: Any) -> None:
        self.updates.append(Update(len(self.updates) + 1, event, moment, data))


def history(state: Deliberation) -> list[Update]:
    """All events up to this state."""
    made = History()
    made.extend(state)
    return made.updates


def _place_of(work: WorkId) -> _Place:
    return _place(_STAGES[work.kind], work.round)


def _place(stage: Stage, number: int) -> _Place:
    match stage:
        case "generating":
            return _Place(0, 0, 0, stage)
        case "critiquing":
            return _Place(1, number, 0, stage)
        case "revising":
            return _Place(1, number, 1, stage)
        case "scoring":
            return _Place(2, 0, 0, stage)
        case "synthesis":
            return _Place(3, 0, 0, stage)


def _asked(state: Deliberation, work: WorkId, tries: int) -> dict[str, Any]:
    member = next((each for each in state.question.members if each.name == work.member), None)
    return {
        "work": str(work),
        "tries": tries,
        "role": member.role if member else "",
        "model": member.model if member else "",
    }


def _answered(answer: Answer) -> dict[str, Any]:
    data: dict[str, Any] = {
        "agent": answer.agent,
        "transport": answer.transport,
        "model": answer.model,
        "attempts": answer.attempts,
        "seconds": round(max(0.0, answer.ended - answer.began), 3),
        "tokens": answer.prompt_tokens + answer.completion_tokens,
    }
    if answer.score is not None:
        data["score"] = answer.score
    return data


def _failed(failure: Failure, *, again: bool) -> dict[str, Any]:
    return {
        "code": failure.code,
        "message": failure.message,
        "agent": failure.agent,
        "tries": failure.tries,
        "again": again,
    }
