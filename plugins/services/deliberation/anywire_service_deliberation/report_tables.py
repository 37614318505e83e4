"""What a report tells of a deliberation, apart from how it looks: facts and tables of texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from anywire.deliberation_views import Missing, Score, Whole


class Table(NamedTuple):
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


STATES = {
    "completed": "completed: nothing is missing",
    "degraded": "degraded: there is a winner, and something is missing",
    "failed": "failed: there is no winner",
    "timed_out": "timed out: there is no winner within the time",
    "cancelled": "cancelled",
}
SYNTHESIS = "Made by the winner of all proposals. It is no proposal itself: nobody has scored it."


def facts(state: Whole) -> list[tuple[str, str]]:
    """What holds for the whole, a name and a text each."""
    cost = state.cost
    found = [
        ("status", STATES.get(state.status, f"{state.status}, under way")),
        ("reason", state.reason),
        ("role", state.role),
        ("members", f"{len(state.members)}, of which {state.quorum} must have a scored proposal"),
        ("rounds of critique", str(state.rounds)),
        ("rubric", f"{state.rubric.name}, from {state.rubric.lowest} to {state.rubric.highest} points"),
        ("aggregation", state.aggregation),
        ("council", state.council),
        ("time", f"{cost.seconds:.1f} s of {state.timeout:g} s" if state.ended else ""),
        (
            "cost",
            f"{cost.total_tokens} tokens ({cost.prompt_tokens} in prompts, {cost.completion_tokens} in answers), "
            f"{cost.tasks} tasks, {cost.agent_seconds:.1f} s of agents",
        ),
        ("nonsense scores", f"{state.dropped}, dropped" if state.dropped else ""),
        ("scores not needed", f"{state.spared}: the lead could not be lost" if state.spared else ""),
    ]
    return [(name, text) for name, text in found if text]


def dissent(state: Whole) -> str:
    """Who would have had another winner; empty when nobody."""
    if not state.dissent:
        return ""
    return f"{', '.join(state.dissent)} scored another proposal higher than the winner's."


def tables(state: Whole) -> Iterator[Table]:
    """Those that have rows."""
    for table in (ranking(state), members(state), scores(state), checks(state), missing(state), late(state)):
        if table.rows:
            yield table


def ranking(state: Whole) -> Table:
    means = {each.name: each.score for each in state.members}
    rows = [
        (
            str(each.rank),
            each.member,
            f"{each.value:.3g}",
            points(means.get(each.member)),
            ", ".join(f"{judge} {points(score)}" for judge, score in each.scores.items()),
            ", ".join(each.dissent),
        )
        for each in state.ranking
    ]
    columns = ("rank", "member", state.aggregation, "mean score", "scores of", "dissent")
    return Table("Ranking", columns, tuple(rows))


def members(state: Whole) -> Table:
    rows = [
        (
            each.name,
            each.role,
            each.model,
            ", ".join(each.agents),
            ", ".join(each.transports),
            each.state,
            f"{each.answers}",
            f"{each.failures}",
            f"{each.attempts}",
            f"{each.prompt_tokens + each.completion_tokens}",
            f"{each.agent_seconds:.1f}",
        )
        for each in state.members
    ]
    columns = ("member", "role", "model", "agents", "over", "state", "answers", "failures", "attempts", "tokens", "s")
    return Table("Members", columns, tuple(rows))


def scores(state: Whole) -> Table:
    """By judge and the one judged, with the points of each criterion."""
    criteria = tuple(each.name for each in state.rubric.criteria)
    rows = [
        (each.member, each.about, points(each.score), *(points(each.points.get(name)) for name in criteria))
        for each in sorted(state.scores, key=_by_about)
    ]
    return Table("Scores", ("judge", "proposal of", "score", *criteria), tuple(rows))


def checks(state: Whole) -> Table:
    rows = [
        (
            each.member,
            check.kind,
            "passed" if check.passed else "not passed",
            "; ".join(filter(None, (check.message, *check.findings))),
        )
        for each in state.proposals
        for check in (each.versions[-1].checks if each.versions else ())
    ]
    return Table("Checks of the proposals", ("proposal of", "check", "", "what it says"), tuple(rows))


def missing(state: Whole) -> Table:
    """What has failed for good, then what was tried again."""
    rows = [(*_failed(each), "") for each in state.missing] + [
        (*_failed(each), "tried again") for each in state.retried
    ]
    return Table("Missing, and tried again", ("member", "work", "why", "agent", ""), tuple(rows))


def late(state: Whole) -> Table:
    rows = [(each.member, what(each.kind, each.round, each.about), each.agent) for each in state.late]
    return Table("Too late to count", ("member", "work", "agent"), tuple(rows))


def what(kind: str, number: int, about: str) -> str:
    """A piece of work in words: ``critique of member-2, round 1``."""
    return f"{kind}{f' of {about}' if about else ''}{f', round {number}' if number else ''}"


def points(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}".rstrip("0").rstrip(".")


def _failed(each: Missing) -> tuple[str, str, str, str]:
    why = f"{each.code}: {each.message}" if each.message else each.code
    return each.member, what(each.kind, each.round, each.about), why, each.agent


def _by_about(score: Score) -> tuple[str, str]:
    return score.about, score.member
