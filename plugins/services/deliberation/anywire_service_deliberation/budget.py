"""The time of a deliberation: one budget that its stages share, and which tries hang."""

from __future__ import annotations

from anywire_service_deliberation.record import Deliberation, Stage
from anywire_service_deliberation.stages import ahead

WEIGHTS: dict[Stage, float] = {"generating": 4, "critiquing": 2, "revising": 4, "scoring": 1.5, "synthesis": 3}
"""Parts of the time that is left which a stage may take, of the sum of its own and those of the stages after it. A
critique and a score are shorter than a proposal, but a member has one for each of the others: their weights are for
each of these, `MOST_OTHERS` at most."""
MOST_OTHERS = 4

RESERVE = 0.02
"""Part of the whole that no stage gets, at most `RESERVE_S` seconds: the result is put on the disk in it."""
RESERVE_S = 1.0

LEAST_SHARE = 0.05
"""A stage that would end below the quorum takes further shares of the time that is left, while one is this part of the
whole at least."""

HANGING_AFTER = 0.5
HANGING_AFTER_S = 10.0
"""A try does not hang before this part of its stage's time or this many seconds, whatever is sooner."""
HANGING_FACTOR = 3.0
"""Nor before this many times the time in which the others should be through, had they one slot for all of them."""


def ends_by(state: Deliberation) -> float:
    """When the last stage must be over."""
    return state.deadline - min(RESERVE_S, RESERVE * (state.deadline - state.submitted))


def stage_ends(state: Deliberation, now: float) -> float:
    """When a stage that begins ``now``, the one that ``state`` is in, must be over."""
    others = min(max(len(state.question.members) - 1, 1), MOST_OTHERS)
    to_come = [WEIGHTS[stage] * (others if stage in ("critiquing", "scoring") else 1) for stage in ahead(state)]
    end = ends_by(state)
    if now >= end or len(to_come) == 1:
        return end
    return now + (end - now) * to_come[0] / sum(to_come)


def extended(state: Deliberation, now: float) -> float | None:
    """When the stage under way must be over if it takes a further share ``now``; None when too little is left."""
    end = stage_ends(state, now)
    least = LEAST_SHARE * (state.deadline - state.submitted)
    return end if end - now >= least else None


def hanging_at(began: float, ends: float, *, looked: float, works: int, answered: int, slowest: float) -> float | None:
    """When the tries that began with their stage, at ``began``, are held for hanging: of its ``works`` so many were
    ``answered``, the ``slowest`` in so many seconds. None without any to compare with, and where one as slow as that
    would have no time for a second try. ``looked`` is when that was done last, for works that nobody had yet; it is
    ``began`` before.

    With one slot for all works the last is done after ``slowest * works / answered``, if all take the same time: a
    machine that is merely busy is not asked twice.
    """
    if not answered:
        return None
    least = min(HANGING_AFTER * (ends - began), HANGING_AFTER_S)
    at = looked + max(least, HANGING_FACTOR * slowest * works / answered)
    return at if at + slowest <= ends else None
