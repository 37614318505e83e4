"""How a deliberation looks to whoever asks for one: over REST, over the client plane, and in a report. The types are
the schema of both ends; what a newer server tells beside them is passed over.

The service ``deliberation`` makes them, and it is a plugin; clients of the core read them. Times are seconds since
1970, rounded to milliseconds; 0 and empty texts say that there is none (yet).
"""

from __future__ import annotations

from typing import Any

import msgspec

from anywire.deliberation_terms import FINAL, Check, Rubric


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """Who has made something, over what, at what cost. ``attempts`` are those of the pipeline for the try that
    answered."""

    text: str
    agent: str = ""
    transport: str = ""
    model: str = ""
    attempts: int = 1
    prompt_tokens: int = 0
    completion_tokens: int = 0
    began: float = 0.0
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        return max(0.0, self.ended - self.began)


class Version(Made, frozen=True, kw_only=True):
    """A proposal as it was in a ``round``: 0 for the first one."""

    round: int = 0
    checks: tuple[Check, ...] = ()


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """``text`` is the newest of its ``versions``, the one that was scored. ``rank`` 0: it has none."""

    member: str
    role: str
    text: str
    rank: int = 0
    value: float = 0.0
    versions: tuple[Version, ...] = ()


class Critique(Made, frozen=True, kw_only=True):
    """What ``member`` says of ``about``'s proposal."""

    round: int
    member: str
    about: str


class Score(Made, frozen=True, kw_only=True):
    """What ``member`` gives ``about``'s proposal: points by criterion, and their mean by weight."""

    member: str
    about: str
    score: float
    points: dict[str, float] = {}


class Rank(msgspec.Struct, frozen=True, kw_only=True):
    """``scores`` are those of each judge. ``dissent``, of the winner: judges who score any other proposal higher. Of
    another: judges who score it higher than the winner's."""

    rank: int
    member: str
    value: float
    scores: dict[str, float] = {}
    dissent: tuple[str, ...] = ()


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of work that has failed for good, or a failed try of one that was tried again."""

    work: str
    kind: str
    round: int
    member: str
    about: str = ""
    code: str
    message: str
    agent: str = ""
    tries: int = 1
    at: float = 0.0


class Late(Made, frozen=True, kw_only=True):
    """An answer that came too late: listed, not counted."""

    work: str
    kind: str
    round: int
    member: str
    about: str = ""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What has been spent: tokens of all answers, late ones too; ``tasks`` that have ended, failed ones too;
    ``attempts`` of those that answered; ``agent_seconds`` that answers took together, ``seconds`` from the submission
    to the end, 0 before it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    tasks: int = 0
    attempts: int = 0
    agent_seconds: float = 0.0
    seconds: float = 0.0


class Participant(msgspec.Struct, frozen=True, kw_only=True):
    """A member and what it has done. ``agents`` and ``transports`` are those that answered for it, the first one first.
    ``state`` is ``waiting`` before it has a proposal, ``proposed``, or ``missing`` when it has left without one.
    ``score`` is the mean of those that it was given."""

    name: str
    role: str
    model: str = ""
    temperature: float | None = None
    seed: int | None = None
    style: str = ""
    state: str = "waiting"
    agents: tuple[str, ...] = ()
    transports: tuple[str, ...] = ()
    attempts: int = 0
    answers: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    agent_seconds: float = 0.0
    score: float | None = None
    rank: int = 0


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """``done`` and ``failed`` of the ``works`` of the ``stage`` under way; empty where none is."""

    stage: str = ""
    round: int = 0
    works: int = 0
    done: int = 0
    failed: int = 0


class Links(msgspec.Struct, frozen=True, kw_only=True):
    """Paths at the same server."""

    deliberation: str
    events: str


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A deliberation without its texts, as lists and a submission tell it. ``title`` is the beginning of the task,
    ``winner`` the name of a member."""

    id: str
    object: str = "deliberation"
    status: str
    reason: str = ""
    title: str = ""
    role: str = ""
    members: int = 0
    rounds: int = 0
    round: int = 0
    rubric: str = ""
    aggregation: str = ""
    quorum: int = 1
    council: str = ""
    winner: str = ""
    submitted: float = 0.0
    deadline: float = 0.0
    ended: float = 0.0
    expires: float = 0.0
    progress: Progress = Progress()
    cost: Cost = Cost()
    links: Links

    @property
    def is_final(self) -> bool:
        return self.status in FINAL


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    """A deliberation with all that has come of it. ``answer`` is the winner's text; ``synthesis`` is no proposal: the
    winner made it of all of them, and nobody has scored it. ``retried`` are failed tries of works that were tried
    again. ``dropped`` counts scores that were nonsense, ``spared`` those that were not waited for."""

    id: str
    object: str = "deliberation"
    status: str
    reason: str = ""
    task: str
    requirements: tuple[str, ...] = ()
    role: str = ""
    members: tuple[Participant, ...] = ()
    rounds: int = 0
    round: int = 0
    rubric: Rubric
    aggregation: str = ""
    quorum: int = 1
    timeout: float = 0.0
    council: str = ""
    metadata: dict[str, Any] = {}
    winner: str = ""
    answer: str = ""
    synthesis: str = ""
    proposals: tuple[Proposal, ...] = ()
    critiques: tuple[Critique, ...] = ()
    scores: tuple[Score, ...] = ()
    ranking: tuple[Rank, ...] = ()
    dissent: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    retried: tuple[Missing, ...] = ()
    late: tuple[Late, ...] = ()
    dropped: int = 0
    spared: int = 0
    submitted: float = 0.0
    deadline: float = 0.0
    ended: float = 0.0
    expires: float = 0.0
    progress: Progress = Progress()
    cost: Cost = Cost()
    links: Links

    @property
    def is_final(self) -> bool:
        return self.status in FINAL
