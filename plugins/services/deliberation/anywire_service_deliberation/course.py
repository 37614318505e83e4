"""The course of one deliberation: a state machine without effects of its own. Events go in, effects come out."""

from __future__ import annotations

from anywire_service_deliberation.effects import Effect
from anywire_service_deliberation.record import Answer, Deliberation, Failure, WorkId


class Course:
    """One deliberation from its submission, or from what was kept of it.

    Stages: all members propose at once; then ``rounds`` times all critiques of a round (each of the others' newest
    proposal, in a drawn order, anonymous) and all revisions; then all scores; then the ranking, computed here, and at
    last the synthesis if it is wanted. A stage ends when each of its works has an answer or has failed for good, or at
    its time: the stages to come share what is left of the whole by fixed weights, so that the sum is never over the
    promise. A failed work is tried once more with avoid while its stage has time, then it is a failure. A member
    without a proposal has left; fewer proposals than ``quorum`` that were scored by anybody is ``failed`` (nothing at
    all) or ``timed_out`` (the time was over). Everything there, nobody missing: ``completed``; somebody or something
    missing: ``degraded`` with who and why. It stops early when the scores still missing cannot change the winner
    (`early`). Each event is idempotent, in any order, at any time after any other.
    """

    def __init__(self, state: Deliberation) -> None:
        self.state = state

    def begin(self, now: float) -> list[Effect]:
        """Begin, or go on after a restart: works without an answer are asked (again)."""
        raise NotImplementedError

    def answered(self, work: WorkId, answer: Answer, now: float) -> list[Effect]:
        raise NotImplementedError

    def failed(self, work: WorkId, failure: Failure, now: float, *, again: bool) -> list[Effect]:
        """``again``: another agent may do better."""
        raise NotImplementedError

    def cancel(self, reason: str, now: float) -> list[Effect]:
        raise NotImplementedError

    def wake(self, now: float) -> list[Effect]:
        raise NotImplementedError
