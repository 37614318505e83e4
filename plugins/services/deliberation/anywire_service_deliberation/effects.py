"""What the course of a deliberation asks for. Whoever carries it out tells the course what came of it."""

from __future__ import annotations

import msgspec

from anywire_service_deliberation.record import Deliberation, WorkId


class Ask(msgspec.Struct, frozen=True):
    """Submit this piece of work, the ``tries``-th time (from 1), avoiding agents that have failed at it; of members that
    share a model also those that have the others' work, where there are more. It must be done at ``deadline`` (seconds
    since 1970)."""

    work: WorkId
    tries: int
    avoid: tuple[str, ...]
    deadline: float


class Stop(msgspec.Struct, frozen=True):
    """Cancel this piece of work if it is under way; what it still brings is told as late."""

    work: WorkId


class Keep(msgspec.Struct, frozen=True):
    """Store this state before any effect after it is carried out."""

    state: Deliberation


class WakeAt(msgspec.Struct, frozen=True):
    """Call `Course.wake` at this time; replaces the earlier one."""

    at: float


class Finished(msgspec.Struct, frozen=True):
    """It has ended; the last effect."""

    state: Deliberation


Effect = Ask | Stop | Keep | WakeAt | Finished
