"""Who carries out the effects of a course, in a test: what is under way, what is kept, what time it is."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from anywire_service_deliberation.course import Course
from anywire_service_deliberation.effects import Ask, Effect, Finished, Keep, Stop, WakeAt
from anywire_service_deliberation.question import Criterion, Member, Question, Role, Rubric
from anywire_service_deliberation.record import Answer, Deliberation, Failure, WorkId

SUBMITTED = 1_700_000_000.0


def question(members: int = 3, **changes: Any) -> Question:
    asked: dict[str, Any] = {
        "id": "q-1",
        "task": "Reverse a list.",
        "members": tuple(Member(f"member-{number}", "DEV") for number in range(1, members + 1)),
        "roles": {"DEV": Role("DEV", "You write code.")},
        "rubric": Rubric("clean-code", (Criterion("clarity"),)),
        "timeout": 300.0,
    }
    return Question(**asked | changes)


def work(text: str) -> WorkId:
    return WorkId.of(text)


class Acted:
    """Holds the course to its contract at every step: what it asks for is kept before, no work is asked for that has an
    answer or is under way, nothing is due after the promise, and nothing happens after its end."""

    def __init__(self, asked: Question) -> None:
        self.now = SUBMITTED
        self.kept = Deliberation(asked, "submitted", SUBMITTED, SUBMITTED + asked.timeout)
        self.course = Course(self.kept)
        self.under_way: dict[WorkId, Ask] = {}
        self.asks: list[Ask] = []
        self.stops: list[WorkId] = []
        self.wakes_at = math.inf
        self.finished: list[Deliberation] = []

    @property
    def state(self) -> Deliberation:
        return self.course.state

    def status(self) -> str:
        return self.course.state.status

    def begin(self) -> None:
        self._carry_out(self.course.begin(self.now))

    def restart(self, down: float = 0.0) -> None:
        """Lose everything but what is kept, and begin again ``down`` seconds later."""
        self.now += down
        self.kept = msgspec.json.decode(msgspec.json.encode(self.kept), type=Deliberation)
        self.course = Course(self.kept)
        self.under_way.clear()
        self.wakes_at = math.inf
        self.begin()

    def answer(self, named: WorkId | str, value: float | None = None, **members: Any) -> None:
        """With a text that says who it is of, or with the score ``value``."""
        done = work(named) if isinstance(named, str) else named
        if done.kind == "score" and value is None:
            value = 3.0
        told = Answer(str(done), score=value, agent=f"agent of {done.member}", **members)
        self.under_way.pop(done, None)
        self._carry_out(self.course.answered(done, told, self.now))

    def fail(self, named: WorkId | str, code: str = "agent_lost", *, again: bool = False, tries: int = 0) -> None:
        """The try that is under way, or the one of that number."""
        done = work(named) if isinstance(named, str) else named
        under_way = self.under_way.get(done)
        tries = tries or (under_way.tries if under_way else 1)
        if under_way is not None and under_way.tries == tries:
            del self.under_way[done]
        failure = Failure(code, f"{code} says why", f"agent {tries} of {done.member}", tries, self.now)
        self._carry_out(self.course.failed(done, failure, self.now, again=again))

    def answer_all(self) -> None:
        """What is under way, and what follows from it while it is of the same stage."""
        for each in list(self.under_way):
            if each in self.under_way:
                self.answer(each)

    def cancel(self, reason: str = "the client has gone") -> None:
        self._carry_out(self.course.cancel(reason, self.now))

    def wake(self) -> None:
        self._carry_out(self.course.wake(self.now))

    def pass_time(self, seconds: float) -> None:
        """Wake the course whenever it wants to be woken."""
        end = self.now + seconds
        while self.wakes_at <= end and not self.finished:
            self.now, self.wakes_at = max(self.now, self.wakes_at), math.inf
            self.wake()
        self.now = max(self.now, end)

    def _carry_out(self, effects: list[Effect]) -> None:
        assert not (effects and self.finished), "effects after its end"
        for effect in effects:
            match effect:
                case Keep(state):
                    assert effect is effects[0]
                    self._keep(state)
                case Stop(stopped):
                    assert stopped in self.under_way
                    del self.under_way[stopped]
                    self.stops.append(stopped)
                case Ask(asked):
                    assert asked not in self.under_way
                    assert str(asked) not in self.kept.answers
                    assert str(asked) not in self.kept.failures
                    assert self.now < effect.deadline <= self.kept.deadline
                    self.under_way[asked] = effect
                    self.asks.append(effect)
                case WakeAt(at):
                    assert at <= self.kept.deadline
                    self.wakes_at = at
                case Finished(state):
                    assert effect is effects[-1]
                    assert state is self.kept
                    assert state.is_final
                    assert not self.under_way
                    self.finished.append(state)
        assert self.course.state == self.kept, "a change that is not kept"

    def _keep(self, state: Deliberation) -> None:
        before = self.kept
        assert not before.is_final
        assert before.answers.items() <= state.answers.items()
        assert before.failures.items() <= state.failures.items()
        assert not state.answers.keys() & state.failures.keys()
        assert not state.answers.keys() & state.late.keys()
        self.kept = state
