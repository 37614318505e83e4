"""What questions, records and views of deliberations have in common, and how a client asks for one as a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict
from uuid import uuid4

import msgspec

MODEL = "deliberate"
"""The model whose tasks are deliberations; with ``:ROLE`` after it those of members in that role."""
MEMBER = "deliberation"
"""Member of a chat's request with a deliberation's own options (``members``, ``rounds``, ``rubric`` …), and of the
chunks of its stream that tell how it goes on."""

Status = Literal[
    "submitted",
    "generating",
    "critiquing",
    "revising",
    "scoring",
    "completed",
    "degraded",
    "failed",
    "timed_out",
    "cancelled",
]
FINAL: frozenset[Status] = frozenset({"completed", "degraded", "failed", "timed_out", "cancelled"})


class Update(msgspec.Struct, frozen=True):
    """One event of a deliberation. ``number`` grows by one from 1 on; ``name`` is ``stage`` (data: status, round),
    ``asked``, ``answered``, ``failed``, ``late`` (data: work, agent …), ``ended`` (data: status, winner, reason)."""

    number: int
    name: str
    at: float
    data: dict[str, Any]


class Criterion(msgspec.Struct, frozen=True):
    """One line of a rubric. ``weight`` is greater than 0; ``anchors`` says in words what some of the points from
    `Rubric.lowest` to `Rubric.highest` mean."""

    name: str
    description: str = ""
    weight: float = 1.0
    anchors: dict[int, str] = {}


class Rubric(msgspec.Struct, frozen=True):
    """Points from ``lowest`` to ``highest`` for each criterion; a proposal's score is their mean by weight. A proposal
    is approved (aggregation ``approval``) from the middle of that range on."""

    name: str
    criteria: tuple[Criterion, ...]
    lowest: int = 1
    highest: int = 5
    description: str = ""


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a check says about a proposal. ``kind`` is ``policy`` (``findings`` are violations), ``lint`` (errors, and
    how many ``warnings``), ``dry_run`` (``exit_code``, its output in ``message``), or a name of your own."""

    kind: str
    passed: bool
    message: str = ""
    findings: tuple[str, ...] = ()
    warnings: int = 0
    exit_code: int = 0
    score: float | None = None
    details: dict[str, str] = {}


class Asked(TypedDict, total=False):
    """What may be said of a deliberation beside its task; None is as if it were left out, and what is left out is as
    the service is configured.

    ``id`` names it: asked again with the same question it is the same deliberation. ``members`` are their number, or
    one mapping for each (``role``, ``model``, ``temperature``, ``seed``, ``style``, ``name``). ``rounds`` are those of
    critique and revision. ``rubric`` is the name of one, or ``{"criteria": [{"name", "description", "weight",
    "anchors"}]}``. ``requirements`` are sentences that an answer must meet. ``quorum`` is how many members must have a
    proposal that was scored. ``timeout`` is in seconds, for the whole. ``aggregation`` is ``borda``, ``mean``,
    ``median``, ``approval`` or ``pairwise``. ``council`` names members that are kept. ``max_tokens`` bounds each text.
    """

    id: str | None
    role: str | None
    members: int | Sequence[Mapping[str, Any]] | None
    rounds: int | None
    rubric: str | Mapping[str, Any] | None
    requirements: Sequence[str] | None
    quorum: int | None
    timeout: float | None
    aggregation: str | None
    synthesis: bool | None
    council: str | None
    max_tokens: int | None
    metadata: Mapping[str, Any] | None


def given(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in asked.items() if value is not None}


def new_id() -> str:
    """An id for a deliberation that nobody can guess."""
    return f"d-{uuid4().hex}"
