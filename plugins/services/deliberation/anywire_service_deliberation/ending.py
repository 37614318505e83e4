"""How a deliberation ends: its ranking, its status, and who is missing and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from anywire_service_deliberation.aggregation import ranked
from anywire_service_deliberation.question import Rubric
from anywire_service_deliberation.record import Deliberation, Failure, Ranked, Status, WorkId
from anywire_service_deliberation.stages import authors, is_enough, scores, standing

OUT_OF_TIME = frozenset({"late", "deadline_exceeded", "deadline_too_short", "no_progress"})
"""Codes of failures for want of time."""

MAX_REASON_CHARS = 4000
MAX_MESSAGE_CHARS = 200


def middle(rubric: Rubric) -> float:
    """The score from which on a proposal is approved."""
    return (rubric.lowest + rubric.highest) / 2


def with_ranking(state: Deliberation) -> Deliberation:
    """The same with what its scores say. Below the quorum nobody is the winner."""
    question = state.question
    if not is_enough(state):
        return state
    names = authors(state)
    if len(names) == 1:
        ranking: tuple[Ranked, ...] = (Ranked(names[0], rank=1, value=0.0),)
    else:
        ranking = ranked(scores(state), names, question.aggregation, middle=middle(question.rubric))
    return msgspec.structs.replace(state, ranking=ranking, winner=ranking[0].member)


def ended(state: Deliberation, now: float, *, time_is_over: bool) -> Deliberation:
    """The same, at its end: no work is under way, and the ranking is there if the quorum is."""
    late = time_is_over or any(failure.code in OUT_OF_TIME for failure in state.failures.values())
    missing = missing_works(state)
    status: Status
    if not state.winner:
        status = "timed_out" if late else "failed"
        missing = f"{_below_quorum(state)}: {missing}" if missing else _below_quorum(state)
    else:
        status = "degraded" if missing else "completed"
    return msgspec.structs.replace(state, status=status, ended=now, reason=missing[:MAX_REASON_CHARS])


def missing_works(state: Deliberation) -> str:
    """Who is missing, with what, and why, in the order of the question; empty when all works were done."""
    failed: dict[str, dict[str, list[Failure]]] = {}
    for text, failure in state.failures.items():
        work = WorkId.of(text)
        failed.setdefault(work.member, {}).setdefault(work.kind, []).append(failure)
    members = [member.name for member in state.question.members if member.name in failed]
    return "; ".join(sentence for name in members for sentence in _sentences(name, failed[name]))


def _below_quorum(state: Deliberation) -> str:
    have = authors(state)
    total = len(state.question.members)
    proposals = f"{len(have)} of {total} members {'has' if len(have) == 1 else 'have'} a proposal"
    if len(have) >= max(state.question.quorum, 2):
        proposals += f", {len(standing(state))} of them scored"
    return f"{proposals}, {state.question.quorum} must"


def _sentences(name: str, failed: dict[str, list[Failure]]) -> Iterator[str]:
    for kind, failures in failed.items():
        codes = Counter(failure.code for failure in failures)
        whys = [f"{code} {count} times" if count > 1 else code for code, count in sorted(codes.items())]
        message = next((failure.message for failure in failures if failure.message), "")
        why = f"{', '.join(whys)}: {message[:MAX_MESSAGE_CHARS]}" if message else ", ".join(whys)
        what = f"no {kind}" if len(failures) == 1 else f"{len(failures)} {kind}s missing"
        yield f"{name}: {what} ({why})"
