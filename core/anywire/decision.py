"""How an agent was chosen for a task: what `anywire.context.Context.explain` and `anywire.events.TaskDispatched` tell.
Texts of tasks are in none of it."""

from __future__ import annotations

import msgspec

MAX_CONSIDERED = 8
"""Candidates that a decision names, the one chosen included; of a task that asks for it (`Submission.explain`)
`MAX_EXPLAINED`. How many there were is always told."""
MAX_EXPLAINED = 64
MAX_DECISIONS = 32
"""Decisions that are kept of one task: the newest."""


class Considered(msgspec.Struct, frozen=True):
    """A candidate when the choice was made. ``in_flight`` are the attempts that the orchestrator had on it, of
    ``slots``."""

    agent_id: str
    in_flight: int
    slots: int


class LeftOut(msgspec.Struct, frozen=True):
    """Agents that were no candidates: ``count`` of them, the first ones named in ``agents``. ``why`` is for a
    person."""

    why: str
    count: int
    agents: tuple[str, ...]


class Decision(msgspec.Struct, frozen=True):
    """One choice. ``agent_id`` is empty when none was chosen and the task was held; ``repeated`` counts such choices
    that followed each other with nothing new. ``model`` is the task's model that was looked for. ``candidates`` is how
    many agents the selector could choose from, ``considered`` some of them, ``left_out`` those that were
    filtered out before. ``scores`` and ``reason`` are the selector's, empty when it gave none. ``after_ms`` is the
    time since the task was received, ``took_us`` how long filters and selector took."""

    model: str
    agent_id: str
    selector: str
    candidates: int
    considered: tuple[Considered, ...]
    left_out: tuple[LeftOut, ...]
    scores: dict[str, float]
    reason: str
    after_ms: float
    took_us: float
    repeated: int = 1
