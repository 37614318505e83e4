"""Numbers of many deliberations: by role, by model, by agent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean, quantiles
from typing import Any

from anywire_service_deliberation.prompts import newest
from anywire_service_deliberation.record import Answer, Deliberation, Failure, WorkId

NEWEST = 500
"""Deliberations that are counted at most, the newest."""


class _Tally:
    """What members of one role, model or agent have done."""

    def __init__(self) -> None:
        self.works = self.failures = self.tokens = self.proposals = self.wins = 0
        self.seconds: list[float] = []
        self.scores: list[float] = []

    def told(self) -> dict[str, Any]:
        return {
            "works": self.works,
            "failures": self.failures,
            "tokens": self.tokens,
            "seconds": round(sum(self.seconds), 3),
            "mean_seconds": round(fmean(self.seconds), 3) if self.seconds else None,
            "proposals": self.proposals,
            "wins": self.wins,
            "mean_score": round(fmean(self.scores), 3) if self.scores else None,
        }


def statistics(found: Sequence[Deliberation], now: float) -> dict[str, Any]:
    """``count`` deliberations ``by_status``; ``seconds`` of those that have ended; ``roles``, ``models`` and ``agents``
    each with its works, failures, tokens, seconds, proposals, wins, and the mean score that its proposals were given.

    Wins and scores are those of who wrote the newest version of a proposal."""
    roles: dict[str, _Tally] = {}
    models: dict[str, _Tally] = {}
    agents: dict[str, _Tally] = {}
    for state in found:
        members = {member.name: member for member in state.question.members}
        for text, answer in state.answers.items():
            member = members[WorkId.of(text).member]
            for tally in (
                _of(roles, member.role),
                _of(models, answer.model or member.model),
                _of(agents, answer.agent),
            ):
                _add(tally, answer)
        failed: list[tuple[str, Failure]] = list(state.failures.items())
        failed += [(text, failure) for text, tries in state.retried.items() for failure in tries]
        for text, failure in failed:
            member = members[WorkId.of(text).member]
            tallies = [_of(roles, member.role), _of(models, member.model)]
            for tally in [*tallies, _of(agents, failure.agent)] if failure.agent else tallies:
                tally.failures += 1
        for ranked in state.ranking:
            member, author = members[ranked.member], newest(state, ranked.member)
            for tally in (
                _of(roles, member.role),
                _of(models, author.model or member.model),
                _of(agents, author.agent),
            ):
                tally.proposals += 1
                tally.wins += ranked.rank == 1
                tally.scores += ranked.scores.values()
    took = [state.ended - state.submitted for state in found if state.is_final]
    return {
        "count": len(found),
        "by_status": dict(Counter(state.status for state in found)),
        "by_role": dict(Counter(state.question.members[0].role for state in found)),
        "seconds": _seconds(took),
        "roles": {name: tally.told() for name, tally in sorted(roles.items())},
        "models": {name: tally.told() for name, tally in sorted(models.items())},
        "agents": {name: tally.told() for name, tally in sorted(agents.items())},
        "at": now,
    }


def _of(tallies: dict[str, _Tally], name: str) -> _Tally:
    return tallies.setdefault(name, _Tally())


def _add(tally: _Tally, answer: Answer) -> None:
    tally.works += 1
    tally.tokens += answer.prompt_tokens + answer.completion_tokens
    tally.seconds.append(max(0.0, answer.ended - answer.began))


def _seconds(took: list[float]) -> dict[str, float]:
    if not took:
        return {}
    cuts = quantiles(took, n=100, method="inclusive") if len(took) > 1 else [took[0]] * 99
    return {
        "mean": round(fmean(took), 3),
        "p50": round(cuts[49], 3),
        "p95": round(cuts[94], 3),
        "p99": round(cuts[98], 3),
        "max": round(max(took), 3),
    }
