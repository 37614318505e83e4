"""What is asked: a question, its members, and the rubric by which they score each other."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from anywire.caller import ANYBODY, Caller
from anywire.deliberation_terms import Criterion as Criterion
from anywire.deliberation_terms import Rubric as Rubric

Aggregation = Literal["borda", "mean", "median", "approval", "pairwise"]

MAX_MEMBERS = 64
MAX_ROUNDS = 10
MAX_TASK_CHARS = 200_000
MAX_REQUIREMENTS = 64
MAX_CRITERIA = 32


class Role(msgspec.Struct, frozen=True):
    """``prompt`` is the system message of a member in this role."""

    name: str
    prompt: str
    description: str = ""


class Member(msgspec.Struct, frozen=True):
    """``name`` is unique in its question (``member-1``) and has no ``/``. ``model`` "" is the orchestrator's default.
    ``style`` is a sentence that makes members who share a model differ."""

    name: str
    role: str
    model: str = ""
    temperature: float | None = None
    seed: int | None = None
    style: str = ""


class Question(msgspec.Struct, frozen=True):
    """A deliberation as it was asked for, complete and checked.

    ``id`` names it for its tenant. ``rounds`` are those of critique and revision, 0 for none. ``quorum`` is how many
    members must have a proposal that was scored. ``timeout`` is the promise for the whole, in seconds: it ends within
    it. ``max_tokens`` bounds each answer. ``roles`` has the roles of all members by name. ``council`` is the one it was
    asked of, empty for none. ``digest`` of the request: the same id with another one is refused. ``trace`` (a W3C
    traceparent) and ``priority`` are those of all of its tasks.
    """

    id: str
    task: str
    members: tuple[Member, ...]
    roles: dict[str, Role]
    rubric: Rubric
    rounds: int = 1
    requirements: tuple[str, ...] = ()
    quorum: int = 1
    timeout: float = 300.0
    aggregation: Aggregation = "borda"
    synthesis: bool = False
    max_tokens: int = 512
    council: str = ""
    caller: Caller = ANYBODY
    metadata: dict[str, Any] = {}
    digest: str = ""
    trace: str = ""
    priority: int = 0
