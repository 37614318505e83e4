"""Sessions carried out: each turn is sent when the one before it was answered and its pause is over, with the answers
that really came as its history."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any, Protocol

from anywire_experiment.load.prompts import PromptMaker
from anywire_experiment.load.rows import Answer
from anywire_experiment.load.sessions import Session
from anywire_experiment.load.target import Question
from anywire_experiment.load.timer import PreciseTimer
from anywire_experiment.plan.trace_formats import Arrival
from anywire_experiment.plan.traffic import CANCELLED, NOT_ASKED

Messages = list[dict[str, Any]]

MOST_UNDER_WAY = 10_000
"""Sessions of an open loop that may be under way at once; the requests of one more fail as ``generator_full``."""


class Asking(Protocol):
    """The phase of a workload that sessions are a part of."""

    def goes_on(self) -> bool: ...

    def numbered(self) -> int:
        """The number of the request that is sent now."""
        ...

    def question(self, arrival: Arrival, messages: Messages, session: int, turn: int) -> Question: ...

    async def ask(self, question: Question, index: int, client: int, intended_ns: int) -> Answer: ...

    def came(self, question: Question, answer: Answer, index: int, client: int, intended_ns: int) -> None:
        """Write down what came of a request."""
        ...


class Conversations:
    """All sessions of one phase. No request is sent from ``until_ns`` on; what is under way then is waited for."""

    def __init__(
        self, asking: Asking, found: Iterator[Session], prompts: PromptMaker, start_ns: int, until_ns: float
    ) -> None:
        self._asking, self._found, self._prompts = asking, found, prompts
        self._start_ns, self._until_ns = start_ns, until_ns

    async def in_turn(self, tenants: list[str]) -> None:
        """As many clients as there are tenants, each beginning its next session when the last one is over."""
        with PreciseTimer() as alarms:
            await asyncio.gather(*(self._client(number, tenant, alarms) for number, tenant in enumerate(tenants)))

    async def at_their_times(self) -> None:
        """Each session begins at its own time, however many are under way."""
        under_way: set[asyncio.Task[None]] = set()
        with PreciseTimer() as alarms:
            for session in self._found:
                due_ns = self._start_ns + round(session.at * 1e9)
                if due_ns >= self._until_ns or not self._asking.goes_on():
                    break
                talk = _Talk(self._asking, session, self._prompts)
                questions = talk.questions()
                await alarms.until(due_ns)
                if len(under_way) >= MOST_UNDER_WAY:
                    talk.not_asked(0, "generator_full", 0, due_ns)
                    continue
                task = asyncio.create_task(self._hold(talk, questions, due_ns, 0, alarms))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            await asyncio.gather(*under_way)

    def _goes_on(self) -> bool:
        return time.monotonic_ns() < self._until_ns and self._asking.goes_on()

    async def _client(self, number: int, tenant: str, alarms: PreciseTimer) -> None:
        while self._goes_on() and (session := next(self._found, None)) is not None:
            talk = _Talk(self._asking, session, self._prompts, tenant)
            questions = talk.questions()
            await self._hold(talk, questions, time.monotonic_ns(), number, alarms)

    async def _hold(
        self, talk: _Talk, questions: list[Question], due_ns: int, client: int, alarms: PreciseTimer
    ) -> None:
        """Carry out a session whose first turn is due now."""
        asking = self._asking
        for at, turn in enumerate(talk.session.turns):
            if at:
                questions = talk.questions()
                # Without a pause the turn is due when it is ready, as in any closed loop.
                due_ns = due_ns + round(turn.pause_s * 1e9) if turn.pause_s else time.monotonic_ns()
                if due_ns < self._until_ns:
                    await alarms.until(due_ns)
            if due_ns >= self._until_ns or not asking.goes_on():
                return
            answers = await asyncio.gather(*(asking.ask(each, asking.numbered(), client, due_ns) for each in questions))
            due_ns = max(each.done_ns for each in answers)
            if any(each.outcome not in ("ok", CANCELLED) for each in answers):
                talk.not_asked(at + 1, NOT_ASKED, client, due_ns)
                return
            talk.heard(answers)


class _Talk:
    """What is said in one session."""

    def __init__(self, asking: Asking, session: Session, prompts: PromptMaker, tenant: str = "") -> None:
        self.session = session
        self._asking, self._tenant = asking, tenant
        self._prompts = prompts.of_session(session.number)
        self._history: Messages = []
        self._asked: list[Messages] = []
        """What each request of this turn has said beyond the history."""
        self._at = 0

    def questions(self) -> list[Question]:
        """Those of the next turn."""
        turn = self.session.turns[self._at]
        self._asked = [self._said(each) for each in turn.asks]
        made = [
            self._question(ask, self._history + said, self._at)
            for ask, said in zip(turn.asks, self._asked, strict=True)
        ]
        self._at += 1
        return made

    def heard(self, answers: list[Answer]) -> None:
        """Add a turn's answers to the history."""
        for said, answer in zip(self._asked, answers, strict=True):
            if answer.text and self.session.has_history:
                self._history = [*self._history, *said, {"role": "assistant", "content": answer.text}]

    def not_asked(self, turn: int, outcome: str, client: int, at_ns: int) -> None:
        """Write down the requests from that turn on, which are not sent."""
        for number, each in enumerate(self.session.turns[turn:], start=turn):
            for ask in each.asks:
                answer = Answer(outcome, first_ns=at_ns, done_ns=at_ns)
                self._asking.came(self._question(ask, [], number), answer, self._asking.numbered(), client, at_ns)

    def _question(self, ask: Arrival, messages: Messages, turn: int) -> Question:
        tenant = self._tenant or ask.tenant
        return self._asking.question(ask._replace(tenant=tenant), messages, self.session.number, turn)

    def _said(self, ask: Arrival) -> Messages:
        tokens = ask.input_tokens
        if ask.blocks:
            self._history = []  # the blocks are all of the prompt, history included
        elif self._history:
            more = tokens
            if self.session.is_total:
                more = tokens - sum(len(each["content"].split()) for each in self._history)
            if more > 0 or not self.session.is_total:
                return [{"role": "user", "content": self._prompts.further(more)}]
            self._history = []  # the recorded client has sent less than that: it has begun anew
        return self._prompts.messages(tokens, ask.prefix, ask.blocks)
