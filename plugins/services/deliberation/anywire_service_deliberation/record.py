"""A deliberation as it is kept: what was asked, what came of each piece of work, how it ended. All times are seconds
since 1970, so that they mean the same after a restart."""

from __future__ import annotations

from typing import Literal, cast

import msgspec

from anywire.deliberation_terms import FINAL as FINAL
from anywire.deliberation_terms import Check as Check
from anywire.deliberation_terms import Status as Status
from anywire_service_deliberation.question import Question

Stage = Literal["generating", "critiquing", "revising", "scoring", "synthesis"]
Kind = Literal["proposal", "critique", "revision", "score", "synthesis"]


class WorkId(msgspec.Struct, frozen=True, order=True):
    """One piece of work: ``member`` makes something of that ``kind`` in that ``round`` (from 1; 0 for proposals, scores
    and the synthesis), about ``about``'s proposal for a critique or a score, else empty. As text:
    ``critique/1/member-2/member-3``."""

    kind: Kind
    round: int
    member: str
    about: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.kind, str(self.round), self.member, self.about)))

    @classmethod
    def of(cls, text: str) -> WorkId:
        """The one that has this text."""
        kind, number, member, *about = text.split("/")
        return cls(cast("Kind", kind), int(number), member, about[0] if about else "")


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a piece of work has brought. ``text`` is the model's; ``points`` by criterion and ``score`` (the mean by
    weight) of a score; ``checks`` of a proposal or a revision. ``agent``, ``transport``, ``attempts`` say who answered
    over what. ``began`` is when this try was submitted."""

    text: str
    points: dict[str, float] = {}
    score: float | None = None
    agent: str = ""
    transport: str = ""
    model: str = ""
    attempts: int = 1
    prompt_tokens: int = 0
    completion_tokens: int = 0
    began: float = 0.0
    ended: float = 0.0
    checks: tuple[Check, ...] = ()


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why the ``tries``-th try of a piece of work has brought nothing. ``code`` is an error's (``agent_lost`` …), or
    ``nonsense`` for a score that says nothing, ``late`` for what was not there in time, ``hanging`` for a try that was
    replaced because it took far longer than others."""

    code: str
    message: str
    agent: str = ""
    tries: int = 1
    at: float = 0.0


class Ranked(msgspec.Struct, frozen=True, omit_defaults=True):
    """``value`` is the aggregation's; ``scores`` are those of each judge; ``rank`` 1 is the winner."""

    member: str
    rank: int
    value: float
    scores: dict[str, float] = {}
    dissent: tuple[str, ...] = ()
    """Of the winner: judges who score any other proposal higher. Of another: judges who score it higher than the
    winner's."""


class Deliberation(msgspec.Struct, frozen=True, omit_defaults=True):
    """``answers`` and ``failures`` are keyed by `WorkId` as text: a piece of work has one of them at most, and what is
    there is never changed. ``retried`` has the failed tries of works that were tried again. ``late`` are answers that
    came after their work had failed or its stage was over: listed, not counted. ``dropped`` counts scores that were
    nonsense, ``spared`` those that were not waited for because they could not change the winner.

    ``ranking`` and ``winner`` are there from the end of the scoring on; a synthesis may still be made then, while the
    status is ``scoring``. ``synthesis`` is its text.
    """

    question: Question
    status: Status
    submitted: float
    deadline: float
    ended: float = 0.0
    round: int = 0
    answers: dict[str, Answer] = {}
    failures: dict[str, Failure] = {}
    retried: dict[str, tuple[Failure, ...]] = {}
    late: dict[str, Answer] = {}
    dropped: int = 0
    spared: int = 0
    ranking: tuple[Ranked, ...] = ()
    winner: str = ""
    synthesis: str = ""
    reason: str = ""
    """Why it is degraded, failed, timed out or cancelled."""
    expires: float = 0.0
    """When it may be removed. Whoever keeps it sets it once it has ended."""
    of_chat: bool = False
    """Whether it was asked as a chat: then it is cancelled when its client goes."""

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def newest(self) -> float:
        """When the newest of what has come of it came."""
        came = [answer.ended for answer in (*self.answers.values(), *self.late.values())]
        came += [failure.at for failure in self.failures.values()]
        came += [failure.at for tries in self.retried.values() for failure in tries]
        return max(came, default=self.submitted)
