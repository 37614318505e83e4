"""From what is kept of a deliberation to what is shown of it (`anywire.deliberation_views`). Pure: a thread may do
it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from anywire.deliberation_views import (
    Cost,
    Critique,
    Late,
    Links,
    Missing,
    Participant,
    Progress,
    Proposal,
    Rank,
    Score,
    Summary,
    Version,
    Whole,
)
from anywire_service_deliberation.record import Answer, Deliberation, Failure, WorkId
from anywire_service_deliberation.stages import current, works
from anywire_service_deliberation.views import one_line

LARGE = 256
"""Answers from which on the view of one is made in a thread, so that nobody waits for it."""

Works = list[tuple[WorkId, Answer]]


def summary(state: Deliberation, base: str) -> Summary:
    """``base`` is the path of all deliberations (``/v1/deliberations``)."""
    question = state.question
    return Summary(
        id=question.id,
        status=state.status,
        reason=state.reason,
        title=one_line(question.task),
        role=_role(state),
        members=len(question.members),
        rounds=question.rounds,
        round=state.round,
        rubric=question.rubric.name,
        aggregation=question.aggregation,
        quorum=question.quorum,
        council=question.council,
        winner=state.winner,
        progress=progress(state),
        cost=cost(state),
        links=links(state, base),
        **_times(state),
    )


def whole(state: Deliberation, base: str) -> Whole:
    """All of it; see `summary`."""
    question, answers = state.question, [(WorkId.of(text), answer) for text, answer in state.answers.items()]
    ordered = sorted(answers, key=lambda each: each[0])
    proposals = tuple(_proposals(state, answers))
    return Whole(
        id=question.id,
        status=state.status,
        reason=state.reason,
        task=question.task,
        requirements=question.requirements,
        role=_role(state),
        members=tuple(_participants(state, answers)),
        rounds=question.rounds,
        round=state.round,
        rubric=question.rubric,
        aggregation=question.aggregation,
        quorum=question.quorum,
        timeout=question.timeout,
        council=question.council,
        metadata=question.metadata,
        winner=state.winner,
        answer=next((each.text for each in proposals if each.member == state.winner), ""),
        synthesis=state.synthesis,
        proposals=proposals,
        critiques=tuple(
            Critique(round=work.round, member=work.member, about=work.about, **_made(answer))
            for work, answer in ordered
            if work.kind == "critique"
        ),
        scores=tuple(
            Score(
                member=work.member, about=work.about, score=answer.score or 0.0, points=answer.points, **_made(answer)
            )
            for work, answer in ordered
            if work.kind == "score"
        ),
        ranking=tuple(
            Rank(rank=each.rank, member=each.member, value=each.value, scores=each.scores, dissent=each.dissent)
            for each in state.ranking
        ),
        dissent=next((each.dissent for each in state.ranking if each.member == state.winner), ()),
        missing=tuple(_missing(text, failure) for text, failure in state.failures.items()),
        retried=tuple(_missing(text, failure) for text, failures in state.retried.items() for failure in failures),
        late=tuple(Late(work=text, **_named(text), **_made(answer)) for text, answer in state.late.items()),
        dropped=state.dropped,
        spared=state.spared,
        progress=progress(state),
        cost=cost(state),
        links=links(state, base),
        **_times(state),
    )


def links(state: Deliberation, base: str) -> Links:
    path = f"{base}/{quote(state.question.id, safe='')}"
    return Links(deliberation=path, events=f"{path}/events")


def progress(state: Deliberation) -> Progress:
    """How far the stage under way is."""
    stage = current(state)
    if stage is None:
        return Progress(round=state.round)
    of_stage = [str(work) for work in works(state)]
    done = sum(text in state.answers for text in of_stage)
    failed = sum(text in state.failures for text in of_stage)
    return Progress(stage=stage, round=state.round, works=len(of_stage), done=done, failed=failed)


def cost(state: Deliberation) -> Cost:
    """What has been spent until now."""
    made = [*state.answers.values(), *state.late.values()]
    prompt, completion = (sum(each.prompt_tokens for each in made), sum(each.completion_tokens for each in made))
    late = sum(text in state.failures for text in state.late)  # the task of one that failed has answered after all
    failed = len(state.failures) + sum(map(len, state.retried.values())) - late
    return Cost(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        tasks=len(made) + failed,
        attempts=sum(each.attempts for each in made),
        agent_seconds=_seconds(sum(max(0.0, each.ended - each.began) for each in made)),
        seconds=_seconds(max(0.0, state.ended - state.submitted) if state.ended else 0.0),
    )


def _proposals(state: Deliberation, answers: Works) -> Iterator[Proposal]:
    ranks = {each.member: each for each in state.ranking}
    texts: dict[str, list[tuple[int, Answer]]] = {}
    for work, answer in answers:
        if work.kind in ("proposal", "revision"):
            texts.setdefault(work.member, []).append((work.round, answer))
    for member in state.question.members:
        if member.name not in texts:
            continue
        versions = sorted(texts[member.name], key=lambda each: each[0])
        rank = ranks.get(member.name)
        yield Proposal(
            member=member.name,
            role=member.role,
            text=versions[-1][1].text,
            rank=rank.rank if rank is not None else 0,
            value=rank.value if rank is not None else 0.0,
            versions=tuple(Version(round=number, checks=answer.checks, **_made(answer)) for number, answer in versions),
        )


def _participants(state: Deliberation, answers: Works) -> Iterator[Participant]:
    failures = Counter(WorkId.of(text).member for text in state.failures)
    for text, several in state.retried.items():
        failures[WorkId.of(text).member] += len(several)
    ranks = {each.member: each.rank for each in state.ranking}
    own: dict[str, list[Answer]] = {member.name: [] for member in state.question.members}
    given: dict[str, list[float]] = {member.name: [] for member in state.question.members}
    for work, answer in answers:
        own[work.member].append(answer)
        if work.kind == "score" and answer.score is not None:
            given[work.about].append(answer.score)
    for member in state.question.members:
        name, made = member.name, own[member.name]
        first = str(WorkId("proposal", 0, name))
        missing = "missing" if first in state.failures or state.is_final else "waiting"
        scores = given[name]
        yield Participant(
            name=name,
            role=member.role,
            model=member.model or next((each.model for each in made if each.model), ""),
            temperature=member.temperature,
            seed=member.seed,
            style=member.style,
            state="proposed" if first in state.answers else missing,
            agents=tuple(dict.fromkeys(each.agent for each in made if each.agent)),
            transports=tuple(dict.fromkeys(each.transport for each in made if each.transport)),
            attempts=sum(each.attempts for each in made),
            answers=len(made),
            failures=failures[name],
            prompt_tokens=sum(each.prompt_tokens for each in made),
            completion_tokens=sum(each.completion_tokens for each in made),
            agent_seconds=_seconds(sum(max(0.0, each.ended - each.began) for each in made)),
            score=sum(scores) / len(scores) if scores else None,
            rank=ranks.get(name, 0),
        )


def _missing(text: str, failure: Failure) -> Missing:
    return Missing(
        work=text,
        code=failure.code,
        message=failure.message,
        agent=failure.agent,
        tries=failure.tries,
        at=_seconds(failure.at),
        **_named(text),
    )


def _named(text: str) -> dict[str, Any]:
    work = WorkId.of(text)
    return {"kind": work.kind, "round": work.round, "member": work.member, "about": work.about}


def _made(answer: Answer) -> dict[str, Any]:
    return {
        "text": answer.text,
        "agent": answer.agent,
        "transport": answer.transport,
        "model": answer.model,
        "attempts": answer.attempts,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "began": _seconds(answer.began),
        "ended": _seconds(answer.ended),
    }


def _times(state: Deliberation) -> dict[str, Any]:
    return {name: _seconds(getattr(state, name)) for name in ("submitted", "deadline", "ended", "expires")}


def _role(state: Deliberation) -> str:
    """The role of all members; several as ``DEV, QA``."""
    return ", ".join(dict.fromkeys(member.role for member in state.question.members))


def _seconds(number: float) -> float:
    return round(number, 3)
