"""The stages of a deliberation: which works each has, and which stage follows. All of it is read from what is kept, so
that it is the same after a restart."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from anywire_service_deliberation.record import Deliberation, Stage, WorkId


def current(state: Deliberation) -> Stage | None:
    """The stage under way; None before the first and after the last."""
    match state.status:
        case "generating" | "critiquing" | "revising" as stage:
            return stage
        case "scoring":
            return "synthesis" if state.winner else "scoring"
        case _:
            return None


def ahead(state: Deliberation) -> list[Stage]:
    """The stage under way and all that may follow it."""
    question = state.question
    stage = current(state)
    rounds: list[Stage] = ["critiquing", "revising"] * question.rounds if len(question.members) > 1 else []
    plan: list[Stage] = ["generating", *rounds, "scoring"]
    if question.synthesis:
        plan.append("synthesis")
    match stage:
        case None:
            return [] if state.is_final else plan
        case "critiquing":
            return plan[2 * state.round - 1 :]
        case "revising":
            return plan[2 * state.round :]
        case _:
            return plan[plan.index(stage) :]


def authors(state: Deliberation) -> tuple[str, ...]:
    """Members that have a proposal, in the order of the question. The others have left."""
    return tuple(
        member.name for member in state.question.members if str(WorkId("proposal", 0, member.name)) in state.answers
    )


def works(state: Deliberation) -> list[WorkId]:
    """All works of the stage under way, those that are done too, in the order in which they are asked."""
    match current(state):
        case "generating":
            return [WorkId("proposal", 0, member.name) for member in state.question.members]
        case "critiquing":
            return [WorkId("critique", state.round, critic, author) for critic, author in _pairs(authors(state))]
        case "revising":
            criticised = {author for critic, author in _pairs(authors(state)) if _is_criticised(state, critic, author)}
            return [WorkId("revision", state.round, name) for name in authors(state) if name in criticised]
        case "scoring":
            return [WorkId("score", 0, judge, author) for judge, author in _pairs(authors(state))]
        case "synthesis":
            return [WorkId("synthesis", 0, state.winner)]
        case None:
            return []


def following(state: Deliberation, stage: Stage | None) -> Deliberation | None:
    """The same in the stage after ``stage``, which is over; None after the last. It is ranked after the scoring."""
    number, status = state.round, state.status
    match stage:
        case None:
            status = "generating"
        case "critiquing":
            status = "revising"
        case "generating" | "revising":
            if stage == "generating" and not is_enough(state):
                return None
            goes_round = number < state.question.rounds and len(authors(state)) > 1
            status, number = ("critiquing", number + 1) if goes_round else ("scoring", number)
        case "scoring":
            return state if current(state) == "synthesis" and state.question.synthesis else None
        case "synthesis":
            return None
    return msgspec.structs.replace(state, status=status, round=number)


def is_enough(state: Deliberation) -> bool:
    """Whether the stage under way has brought what the quorum needs of it."""
    match current(state):
        case "generating":
            return len(authors(state)) >= max(state.question.quorum, 1)
        case "scoring":
            return len(standing(state)) >= max(state.question.quorum, 1)
        case _:
            return True


def scores(state: Deliberation) -> dict[str, dict[str, float]]:
    """By judge, by the author judged: those that count."""
    found: dict[str, dict[str, float]] = {}
    for judge, author in _pairs(authors(state)):
        answer = state.answers.get(str(WorkId("score", 0, judge, author)))
        if answer is not None and answer.score is not None:
            found.setdefault(judge, {})[author] = answer.score
    return found


def standing(state: Deliberation) -> tuple[str, ...]:
    """Members whose proposals count for the quorum: those that were scored by anybody, and the only proposal, which
    nobody is left to score."""
    names = authors(state)
    if len(names) < 2:
        return names
    scored = {author for judged in scores(state).values() for author in judged}
    return tuple(name for name in names if name in scored)


def _pairs(names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Each with each other, so that after every ``len(names)`` pairs all have had the same number of turns."""
    for shift in range(1, len(names)):
        for index, name in enumerate(names):
            yield name, names[(index + shift) % len(names)]


def _is_criticised(state: Deliberation, critic: str, author: str) -> bool:
    return str(WorkId("critique", state.round, critic, author)) in state.answers
