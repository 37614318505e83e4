"""When the scores that are still missing cannot change the winner.

Each missing score may become any that the rubric allows, or none at all. For each aggregation there is the least value
that the leader may end with and the greatest that each other may: the lead cannot be lost when the least of the one is
above the greatest of the others. Equal ones are left to the missing scores, since ties are broken by all of them. The
bounds are those of each member for itself, so that some leads which cannot be lost are not seen, but none that can.
"""

from __future__ import annotations

from collections.abc import Collection

from anywire_service_deliberation.aggregation import Scores, ranked
from anywire_service_deliberation.ending import middle
from anywire_service_deliberation.question import Aggregation, Rubric
from anywire_service_deliberation.record import Deliberation, WorkId
from anywire_service_deliberation.stages import authors, scores

Bounds = tuple[float, float]
"""The least and the greatest value that a member may end with."""
Missing = frozenset[tuple[str, str]]
"""Pairs of a judge and the one judged."""

NEAR = 1e-9
"""Values that differ by less may be equal but for their rounding."""


def is_decided(state: Deliberation, missing: Collection[WorkId]) -> bool:
    """Whether the winner is the same whatever becomes of the scores that are ``missing``."""
    question = state.question
    names = authors(state)
    pairs = frozenset((work.member, work.about) for work in missing)
    return is_settled(scores(state), pairs, names, question.aggregation, question.rubric)


def is_settled(given: Scores, missing: Missing, names: tuple[str, ...], by: Aggregation, rubric: Rubric) -> bool:
    """The same of these scores. The nearest rival is looked at first: most often it is the one that may still win."""
    order = [each.member for each in ranked(given, names, by, middle=middle(rubric))]
    if not order:
        return False
    leader = order[0]
    rivals = [*order[1:], *(name for name in names if name not in order)]
    if by == "borda":
        least = borda_bounds(given, missing, leader)[0]
        return all(borda_bounds(given, missing, rival)[1] + NEAR < least for rival in rivals)
    if by == "pairwise":
        least = pairwise_bounds(given, missing, names, leader)[0]
        return all(pairwise_bounds(given, missing, names, rival)[1] + NEAR < least for rival in rivals)
    worst = ranked(_worst(given, missing, leader, rubric), names, by, middle=middle(rubric))
    return worst[0].member == leader and (len(worst) == 1 or worst[1].value + NEAR < worst[0].value)


def _worst(given: Scores, missing: Missing, leader: str, rubric: Rubric) -> Scores:
    """All scores as bad as they may become for the leader. A mean, a median, and the part that approves depend on a
    member's own scores alone, and a lowest score that is added never raises them, as a highest never lowers them."""
    worst = {judge: dict(judged) for judge, judged in given.items()}
    for judge, name in missing:
        worst.setdefault(judge, {})[name] = rubric.lowest if name == leader else rubric.highest
    return worst


def borda_bounds(given: Scores, missing: Missing, name: str) -> Bounds:
    """The mean over the ballots that have the member, of the part of the others on it that it beats, where a tie is
    half. What is missing of a ballot may be beaten by all of it, or beat all of it."""
    least, most, ballots = 0.0, 0.0, 0
    for judge in given.keys() | {judge for judge, _ in missing}:
        judged = given.get(judge, {})
        to_come = sum(1 for each, other in missing if each == judge and other != name)
        if (judge, name) in missing:
            most += 1
            ballots += 1
        elif name in judged and len(judged) + to_come > 1:
            own = judged[name]
            beaten = sum((own > other) + 0.5 * (own == other) for other in judged.values()) - 0.5
            least += beaten / (len(judged) - 1 + to_come)
            most += (beaten + to_come) / (len(judged) - 1 + to_come)
            ballots += 1
    return (least / ballots, most / ballots) if ballots else (0.5, 0.5)


def pairwise_bounds(given: Scores, missing: Missing, names: tuple[str, ...], name: str) -> Bounds:
    """The duels that it wins less those that it loses: of the same members they order as the part that is won does. A
    duel goes to the one that more of the judges who scored both put first."""
    least, most = 0, 0
    for other in names:
        margin, to_come = 0, 0
        for judge in names:
            judged = given.get(judge, {})
            if name in judged and other in judged:
                margin += (judged[name] > judged[other]) - (judged[name] < judged[other])
            elif all(each in judged or (judge, each) in missing for each in (name, other)):
                to_come += 1
        least += _sign(margin - to_come)
        most += _sign(margin + to_come)
    return least, most


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
