"""What the course of a deliberation asks for. Whoever carries it out tells the course what came of it."""

from __future__ import annotations

import msgspec

from anywire_service_deliberation.record import Deliberation, WorkId


class Ask(msgspec.Struct, frozen=True):
    """Submit this piece of work, the ``tries``-th time (from 1). It must be done at ``deadline`` (seconds since 1970).

    ``avoid`` has the agents that have failed at it. Whoever carries this out adds those that it knows alone: the agent
    of the try that this one replaces, and for a proposal the agents that have those of members with the same model.
    One `Failure` at most is told of each try, with its ``tries``; one of an earlier try changes nothing.
    """

    work: WorkId
    tries: int
    avoid: tuple[str, ...]
    deadline: float


class Stop(msgspec.Struct, frozen=True):
    """Cancel this piece of work if it is under way. An answer that it still brings may be told; that it was cancelled
    is not told as a failure. An `Ask` for the same work may follow: another agent gets it then."""

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
