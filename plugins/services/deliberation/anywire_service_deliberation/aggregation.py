"""From scores to a ranking: deterministic, the same for any names and order of members and judges.

Each method gives each member a value; the greatest wins. A method sees what is there alone: a judge who has scored
nobody, or not this member, says nothing about it.

``mean``, ``median``
    Of the member's scores (of an even number of them: the mean of the two in the middle).
``approval``
    The part of the member's judges who approve: whose score is ``middle`` or more (Brams & Fishburn 1978).
``borda``
    The mean over the member's judges of the part of the others that the judge has scored and puts after it, an equal
    score being half. Each judge has one voice, however many it has scored; one who has scored one member alone has none
    here. With all scores there, this orders as Borda's count does (Borda 1781; equal scores as in Emerson 2013). 0.5
    without any comparison.
``pairwise``
    Copeland's method (Copeland 1951): the part of its duels that the member wins. A duel of two goes to the one that
    more of the judges who scored both put first; a duel that nobody wins, or nobody has seen, is half a win. Who wins
    all duels (the Condorcet winner) wins.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from itertools import combinations

from anywire_service_deliberation.question import Aggregation
from anywire_service_deliberation.record import Ranked

Scores = Mapping[str, Mapping[str, float]]
"""By judge, by the one judged. Nobody judges oneself; any may be missing."""

DIGITS = 9
"""Decimal places in which scores and values are compared: the same mean in another order of adding is a tie."""


def ranked(scores: Scores, members: tuple[str, ...], by: Aggregation, *, middle: float) -> tuple[Ranked, ...]:
    """All of ``members`` that were scored, the best first. Ties: by the mean, then the median, then the most wins head
    to head (the value of ``pairwise``), then the place in ``members``, which is the order in which the question names
    them.

    ``scores`` that are no finite numbers, of oneself, or of who is not in ``members`` do not count. ``middle`` is the
    score from which on a proposal is approved.
    """
    ballots = _ballots(scores, members)
    standing = [name for name in members if any(name in ballot for ballot in ballots.values())]
    given = {name: {judge: ballot[name] for judge, ballot in ballots.items() if name in ballot} for name in standing}
    values = _values(ballots, given, by, middle)
    means, medians, duels = (_values(ballots, given, tie, middle) for tie in ("mean", "median", "pairwise"))

    def place(name: str) -> tuple[float, float, float, float]:
        return -values[name], -means[name], -medians[name], -duels[name]

    order = sorted(standing, key=place)
    against = {name: _prefer(ballots, name, order[0]) for name in order[1:]}
    dissenters = {judge for judges in against.values() for judge in judges}
    against |= {name: tuple(judge for judge in ballots if judge in dissenters) for name in order[:1]}
    return tuple(
        Ranked(name, rank, values[name], given[name], against[name]) for rank, name in enumerate(order, start=1)
    )


def _ballots(scores: Scores, members: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """What counts, with the judges in the order of ``members``, and any others after them."""
    judges = [*(name for name in members if name in scores), *sorted(scores.keys() - set(members))]
    return {
        judge: {
            name: round(score, DIGITS)
            for name in members
            if name != judge and (score := scores[judge].get(name)) is not None and math.isfinite(score)
        }
        for judge in judges
    }


def _values(
    ballots: dict[str, dict[str, float]], given: dict[str, dict[str, float]], by: str, middle: float
) -> dict[str, float]:
    values: dict[str, float]
    match by:
        case "mean":
            values = _each(given, lambda scores: math.fsum(scores) / len(scores))
        case "median":
            values = _each(given, statistics.median)
        case "approval":
            values = _each(given, lambda scores: sum(score >= middle for score in scores) / len(scores))
        case "borda":
            values = _borda(ballots, given)
        case "pairwise":
            values = _pairwise(given)
        case _:
            raise ValueError(f"there is no aggregation {by!r}")
    return {name: round(value, DIGITS) for name, value in values.items()}


def _each(given: dict[str, dict[str, float]], value: Callable[[list[float]], float]) -> dict[str, float]:
    return {name: value(list(scores.values())) for name, scores in given.items()}


def _borda(ballots: dict[str, dict[str, float]], given: dict[str, dict[str, float]]) -> dict[str, float]:
    parts: dict[str, list[float]] = {name: [] for name in given}
    for ballot in ballots.values():
        order = sorted(ballot.values())
        for name, score in ballot.items() if len(order) > 1 else ():
            lower, not_higher = bisect_left(order, score), bisect_right(order, score)
            parts[name].append((lower + (not_higher - lower - 1) / 2) / (len(order) - 1))
    return {name: math.fsum(found) / len(found) if found else 0.5 for name, found in parts.items()}


def _pairwise(given: dict[str, dict[str, float]]) -> dict[str, float]:
    wins = dict.fromkeys(given, 0.0)
    for one, other in combinations(given, 2):
        lead = 0
        for judge, score in given[one].items():
            compared = given[other].get(judge)
            if compared is not None:
                lead += (score > compared) - (score < compared)
        wins[one] += 0.5 if lead == 0 else float(lead > 0)
        wins[other] += 0.5 if lead == 0 else float(lead < 0)
    return {name: won / (len(given) - 1) if len(given) > 1 else 0.5 for name, won in wins.items()}


def _prefer(ballots: dict[str, dict[str, float]], name: str, winner: str) -> tuple[str, ...]:
    """Judges who score ``name`` higher than the winner."""
    return tuple(
        judge
        for judge, ballot in ballots.items()
        if name in ballot and winner in ballot and ballot[name] > ballot[winner]
    )
