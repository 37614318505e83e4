"""The course of one deliberation: a state machine without effects of its own. Events go in, effects come out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from anywire_service_deliberation.budget import ends_by, extended, hanging_at, stage_ends
from anywire_service_deliberation.early import is_decided
from anywire_service_deliberation.effects import Ask, Effect, Finished, Keep, Stop, WakeAt
from anywire_service_deliberation.ending import ended, with_ranking
from anywire_service_deliberation.record import Answer, Deliberation, Failure, WorkId
from anywire_service_deliberation.stages import authors, current, following, is_enough, works

MAX_TRIES = 2
"""Times a piece of work is asked for before it has failed for good."""

LOOKS = 16
"""Times that the missing scores are looked at. With many members each look takes milliseconds."""


class Course:
    """One deliberation from its submission, or from what was kept of it.

    Stages: all members propose at once; then ``rounds`` times all critiques of a round (each author's newest proposal
    by each other author) and all revisions; then all scores; then the ranking, computed here, and at last the synthesis
    if it is wanted, by the winner. A member without a proposal has left. Who was not criticised in a round does not
    revise in it; whose revision fails keeps the proposal from before. A stage without works is passed over.

    A stage ends when each of its works has an answer or has failed for good, or at its time (`budget`). A failed work
    is tried once more while its stage has time, avoiding the agent that failed; so is one whose try hangs. The scoring
    ends early once the scores that are missing cannot change the winner (`early`).

    It ends as ``completed`` with everything there; as ``degraded`` when something is missing, which ``reason`` tells
    with who and why; without a winner as ``timed_out`` when anything was not there in time, else as ``failed``. There
    is no winner with fewer proposals than ``quorum`` that were scored by anybody. (The only proposal needs no score:
    nobody is left to give one.)

    `begin` comes first, once. The other events may come in any order, repeatedly, and late: what says nothing new
    has no effects. Times never go back: an earlier ``now`` than before counts as that one. After `Finished` nothing
    changes any more.
    """

    def __init__(self, state: Deliberation, agent_of: Callable[[WorkId], str | None] = lambda work: "") -> None:
        """``agent_of`` says which agent has a work that is under way, empty where that is not known. A failure of one
        that hangs or is late names it. None where nobody has it yet: it waits for a free slot, and does not hang."""
        self.state, self._agent_of = state, agent_of
        self._begun = False
        self._now = -math.inf
        self._open: dict[WorkId, None] = {}
        """Works of the stage under way that have no answer and have not failed for good, in their order."""
        self._under_way: set[WorkId] = set()
        """Those of them that were asked for, in this process."""
        self._to_ask: set[WorkId] = set()
        self._to_stop: list[WorkId] = []
        """What the event that is dealt with asks for at its end."""
        self._works = 0
        self._began = self._looked = self._ends = 0.0
        self._answered = 0
        self._slowest = 0.0
        """Of the stage under way: how many works it has; when it began, was looked at for what hangs, and ends; how
        many answers it has got in this process, and in how many seconds the slowest."""
        self._wakes_at = math.inf

    def begin(self, now: float) -> list[Effect]:
        """Begin, or go on after a restart: works without an answer are asked (again). The stage that was under way
        gets its share of the time that is left anew."""
        if self._begun:
            return []
        self._begun = True
        if self.state.is_final:
            return [Finished(self.state)]
        return self._event(now, lambda: None, self._open_stage)

    def answered(self, work: WorkId, answer: Answer, now: float) -> list[Effect]:
        """``work`` has brought this. An empty text, and a score that is not within the rubric, are failures with the
        code ``nonsense``."""
        return self._event(now, lambda: self._take(work, answer))

    def failed(self, work: WorkId, failure: Failure, now: float, *, again: bool) -> list[Effect]:
        """A try of ``work`` has failed. ``again``: another agent may do better. It has no effects if that try
        (``failure.tries``) is not the one under way."""
        return self._event(now, lambda: self._fail(work, failure, again=again))

    def cancel(self, reason: str, now: float) -> list[Effect]:
        """End it as ``cancelled``, with what there is."""
        first, self._begun = None if self._begun else self._open_stage, True
        return self._event(now, lambda: self._cancel(reason), first)

    def wake(self, now: float) -> list[Effect]:
        """The time of `WakeAt` has come. Too early does no harm."""
        self._wakes_at = math.inf
        return self._event(now, lambda: None)

    # What happens

    def _event(self, now: float, happens: Callable[[], None], first: Callable[[], None] | None = None) -> list[Effect]:
        if not self._begun or self.state.is_final:
            return []
        before = self.state
        self._now = max(self._now, now)
        if first is not None:
            first()
        self._go_on()
        if not self.state.is_final:
            happens()
            self._go_on()
        return self._effects(before)

    def _take(self, work: WorkId, answer: Answer) -> None:
        if work not in self._open:
            self._list_late(work, answer)
        elif wrong := self._what_is_wrong(work, answer):
            told = [(each.agent, each.at) for each in self.state.retried.get(str(work), ()) if each.code == "nonsense"]
            if (answer.agent, answer.ended) not in told:
                self._fail(work, Failure("nonsense", wrong, answer.agent, self._tries(work), answer.ended), again=True)
        else:
            self._close(work)
            self._answered += 1
            self._slowest = self._now - self._began
            self._change(answers={**self.state.answers, str(work): answer})

    def _fail(self, work: WorkId, failure: Failure, *, again: bool) -> None:
        if work not in self._open or failure.tries < self._tries(work):
            return
        failure = msgspec.structs.replace(failure, tries=self._tries(work))
        if work.kind == "score" and failure.code == "nonsense":
            self._change(dropped=self.state.dropped + 1)
        if again and failure.tries < MAX_TRIES:
            self._try_again(work, failure)
        else:
            self._close(work)
            self._change(failures={**self.state.failures, str(work): failure})

    def _cancel(self, reason: str) -> None:
        self._close_all()
        self._change(status="cancelled", ended=self._now, reason=reason)

    def _list_late(self, work: WorkId, answer: Answer) -> None:
        text = str(work)
        if text in self.state.failures and text not in self.state.late:
            self._change(late={**self.state.late, text: answer})

    def _what_is_wrong(self, work: WorkId, answer: Answer) -> str:
        if work.kind != "score":
            return "" if answer.text.strip() else "the answer is empty"
        rubric = self.state.question.rubric
        if answer.score is not None and rubric.lowest <= answer.score <= rubric.highest:
            return ""
        return f"the score is {answer.score}, it must be from {rubric.lowest} to {rubric.highest}"

    # Stages

    def _go_on(self) -> None:
        """End the stages that are over, and try again what hangs."""
        while not self.state.is_final and self._is_over():
            self._end_stage()
        hanging = self._hanging_at()
        if hanging is not None and self._now >= hanging:
            message = f"no answer within {self._now - self._began:.1f} s, others took {self._slowest:.1f} s at most"
            for work in [work for work in self._open if self._tries(work) == 1]:
                if (agent := self._agent_of(work)) is not None:
                    self._to_stop.append(work)
                    self._try_again(work, Failure("hanging", message, agent, at=self._now))
            self._looked = self._now

    def _is_over(self) -> bool:
        if not self._open:
            return True
        if self._now < self._ends:
            return self._is_decided()
        further = None if is_enough(self.state) else extended(self.state, self._now)
        if further is None:
            return True
        self._ends = further
        return False

    def _is_decided(self) -> bool:
        """Whether the open scores are not needed. Looked at `LOOKS` times at most in the last two turns of the judges:
        before, hardly a lead is safe. Also where all that is open is one judge's."""
        if current(self.state) != "scoring":
            return False
        count, turn = len(self._open), len(authors(self.state))
        if count > 2 * turn or (count % math.ceil(2 * turn / LOOKS) and count != turn - 1):
            return False
        return is_enough(self.state) and is_decided(self.state, self._open)

    def _open_stage(self) -> None:
        """Ask for what is missing of the stage that the state is in."""
        of_stage = works(self.state)
        done = self.state.answers.keys() | self.state.failures.keys()
        self._open = {work: None for work in of_stage if str(work) not in done}
        self._to_ask = set(self._open)
        self._works = len(of_stage)
        self._began, self._ends = self._now, stage_ends(self.state, self._now)
        self._looked = self._began
        self._answered, self._slowest = 0, 0.0

    def _end_stage(self) -> None:
        """Count what is open as late, or as spared where the stage has time left, and go on to the next stage."""
        stage = current(self.state)
        if self._open and self._now < self._ends:
            self._change(spared=len(self._open))
        elif self._open:
            late = {
                str(work): Failure(
                    "late", "no answer in time", self._agent_of(work) or "", self._tries(work), self._now
                )
                for work in self._open
            }
            self._change(failures={**self.state.failures, **late})
        self._close_all()
        if stage == "scoring":
            self.state = with_ranking(self.state)
        elif stage == "synthesis" and (answer := self.state.answers.get(str(works(self.state)[0]))) is not None:
            self._change(synthesis=answer.text)
        time_is_over = self._now >= ends_by(self.state)
        next_state = None if time_is_over and stage != "scoring" else following(self.state, stage)
        if next_state is None:
            self.state = ended(self.state, self._now, time_is_over=time_is_over)
        else:
            self.state = next_state
            self._open_stage()

    # Works

    def _tries(self, work: WorkId) -> int:
        """The number of the try under way."""
        return len(self.state.retried.get(str(work), ())) + 1

    def _try_again(self, work: WorkId, failure: Failure) -> None:
        text = str(work)
        self._change(retried={**self.state.retried, text: (*self.state.retried.get(text, ()), failure)})
        self._to_ask.add(work)

    def _close(self, work: WorkId) -> None:
        del self._open[work]
        self._to_ask.discard(work)
        self._under_way.discard(work)

    def _close_all(self) -> None:
        self._to_stop.extend(work for work in self._open if work in self._under_way)
        for work in list(self._open):
            self._close(work)

    def _hanging_at(self) -> float | None:
        if all(self._tries(work) > 1 for work in self._open):
            return None
        return hanging_at(
            self._began,
            self._ends,
            looked=self._looked,
            works=self._works,
            answered=self._answered,
            slowest=self._slowest,
        )

    # What comes of it

    def _change(self, **members: Any) -> None:
        self.state = msgspec.structs.replace(self.state, **members)

    def _effects(self, before: Deliberation) -> list[Effect]:
        effects: list[Effect] = [] if self.state is before else [Keep(self.state)]
        effects += [Stop(work) for work in self._to_stop]
        if self._to_ask:
            effects += [self._ask(work) for work in self._open if work in self._to_ask]
        self._under_way |= self._to_ask
        self._to_ask, self._to_stop = set(), []
        if self.state.is_final:
            return [*effects, Finished(self.state)]
        hanging = self._hanging_at()
        wakes_at = self._ends if hanging is None else min(hanging, self._ends)
        if wakes_at != self._wakes_at:
            self._wakes_at = wakes_at
            effects.append(WakeAt(wakes_at))
        return effects

    def _ask(self, work: WorkId) -> Ask:
        """A proposal and a score have until the end of all stages: theirs are extended below the quorum, and what is
        under way at the end of its stage is stopped."""
        failed = self.state.retried.get(str(work), ())
        agents = dict.fromkeys(failure.agent for failure in failed if failure.agent)
        deadline = ends_by(self.state) if work.kind in ("proposal", "score") else self._ends
        return Ask(work, len(failed) + 1, tuple(agents), deadline)
