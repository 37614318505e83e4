"""The updates of a deliberation as its clients know them."""

from __future__ import annotations

from typing import Any

from anywire_gateway_grpc import orchestrator_pb2 as wire
from anywire_gateway_grpc.results import result, winner
from anywire_service_deliberation.offered import Update
from anywire_service_deliberation.record import Deliberation, WorkId
from anywire_service_deliberation.request import works_of

STAGES = {
    "submitted": "generating",
    "generating": "generating",
    "critiquing": "reviewing",
    "revising": "reviewing",
    "scoring": "scoring",
    "synthesis": "scoring",
}
BEFORE_THE_END = 99
"""Per cent that are told at most before it has ended."""


class Progress:
    """Makes an update of each event of one deliberation, in their order."""

    def __init__(self, state: Deliberation) -> None:
        question = state.question
        self._works = works_of(len(question.members), question.rounds, synthesis=question.synthesis)
        self._done = 0
        self._percent = 0
        self._status = "generating"

    def told(self, update: Update, state: Deliberation) -> wire.DeliberationUpdate:
        """``state`` is as new as the event, or newer."""
        data, member, partial = update.data, "", None
        match update.name:
            case "stage":
                self._status = STAGES.get(str(data["status"]), self._status)
                step = str(data["status"]) + (f", round {data['round']}" if data.get("round") else "")
            case "ended":
                self._status, self._percent, member = "complete", 100, state.winner
                step, partial = f"{state.status}: {state.reason}" if state.reason else state.status, winner(state)
            case name:
                work = WorkId.of(str(data["work"]))
                member = work.member
                if name in ("answered", "failed") and not data.get("again"):
                    self._done += 1
                if name == "answered" and work.kind in ("proposal", "revision"):
                    partial = result(state, member)
                step = _sentence(name, work, data)
        if update.name != "ended":
            percent = min(BEFORE_THE_END, 100 * self._done // self._works)
            self._percent = max(self._percent, percent)
        return wire.DeliberationUpdate(
            status=self._status,
            progress_percent=self._percent,
            current_step=step,
            current_agent=member,
            partial_result=partial,
        )


def _sentence(name: str, work: WorkId, data: dict[str, Any]) -> str:
    what = f"{work.kind} by {work.member}" + (f" of {work.about}'s proposal" if work.about else "")
    if name == "failed":
        again = ", it is asked again" if data.get("again") else ""
        return f"{what} failed ({data.get('code')}: {data.get('message')}){again}"
    if name == "asked" and data.get("tries", 1) > 1:
        return f"{what} asked again"
    return f"{what} {name}"
