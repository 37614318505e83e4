"""Closed and open loops: sends a workload's requests at their times and writes down what came of each."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from anywire_experiment.load.arrivals import arrivals
from anywire_experiment.load.conversations import Conversations
from anywire_experiment.load.questions import Questions
from anywire_experiment.load.rows import Answer, Asked, Phase, Rows
from anywire_experiment.load.searching import Searching
from anywire_experiment.load.sessions import sessions
from anywire_experiment.load.target import Question, Target
from anywire_experiment.load.timer import PreciseTimer
from anywire_experiment.plan.saturation import Search
from anywire_experiment.plan.trace_formats import Arrival
from anywire_experiment.plan.traffic import CANCELLED, NOT_ASKED
from anywire_experiment.plan.workload import Closed, Poisson, Trace, Workload

MAX_UNDER_WAY = 10_000
"""Requests of an open loop that may be under way at once; one more fails as ``generator_full``, unsent."""

STEADY_EVERY, STEADY_FROM = 50, 100
"""Answers between two looks at whether the warm-up is over, and before the first: the rule needs so many."""


class Done(NamedTuple):
    """A phase of a workload that is over."""

    ended_ns: int
    requests: int
    failed: int


class Generator:
    """Runs one workload against one target: warm-up, then measurement."""

    def __init__(
        self,
        name: str,
        workload: Workload,
        target: Target,
        rows: Rows,
        *,
        seed: int,
        transports: frozenset[str],
        folder: Path = Path(),
        request: Mapping[str, Any] | None = None,
    ) -> None:
        self.workload, self.target, self.transports, self.folder = workload, target, transports, folder
        self.request = dict(request or {})
        """Members of every request, over those of the workload."""
        self.model = str(self.request.get("model", workload.model))
        self._name, self._rows = name, rows
        self.seed, self._seeds = seed, [seed, zlib.crc32(name.encode())]

    async def warm_up(self) -> tuple[int, bool | None]:
        """How many requests it took, and whether the latency was steady in the end, None when there were too few to
        tell. Raises `AnywireError` when the system offers no model."""
        rule = self.workload.warm_up
        limit = max(rule.requests, rule.limit)
        steady_from = _steady_from() if limit >= STEADY_FROM else None
        process = self.workload.arrivals
        talk = self.workload.conversation
        at_once = talk.fan_out.branches if talk is not None and talk.fan_out is not None else 1
        await self.target.connect((process.clients if isinstance(process, Closed) else 1) * at_once)
        if not self.model:
            self.model = await self.target.first_model()
        latencies: list[float] = []
        steady: bool | None = None

        def keep(asked: Asked, answer: Answer) -> None:
            nonlocal steady
            self._rows.add(asked, answer)
            if answer.outcome in (CANCELLED, NOT_ASKED):
                return  # neither says how quick the system is
            latencies.append(answer.done_ns - asked.intended_ns)
            enough = len(latencies) >= max(rule.requests, STEADY_FROM) and len(latencies) % STEADY_EVERY == 0
            if steady_from is not None and enough:
                steady = steady_from(np.array(latencies)) is not None

        going = _Round(self, self._name, "warm_up", self._rng(0), keep, lambda: bool(steady))
        done = await going.run(limit, math.inf)
        return done.requests, steady

    async def measure(self, began: Callable[[int], None]) -> Done:
        """``began`` is told the time of the start, in ns, at once."""
        going = _Round(self, self._name, "measured", self._rng(1), self._rows.add, lambda: False)
        return await going.run(self.workload.requests or math.inf, self.workload.seconds or math.inf, began)

    def _rng(self, phase: int) -> np.random.Generator:
        return np.random.default_rng([*self._seeds, phase])


def _steady_from() -> Callable[[ArrayLike], int | None]:
    # Its import takes longer than many a workload, and a short warm-up does without.
    from anywire_experiment.statistics import steady_from

    return steady_from


class _Round:
    """One phase. It ends after ``limit`` requests or ``seconds``, or once ``enough`` says so; what is under way then is
    waited for."""

    def __init__(
        self,
        generator: Generator,
        name: str,
        phase: Phase,
        rng: np.random.Generator,
        keep: Callable[[Asked, Answer], None],
        enough: Callable[[], bool],
    ) -> None:
        self._generator, self._workload = generator, generator.workload
        self._name, self._phase, self._rng, self._keep, self._enough = name, phase, rng, keep, enough
        self._questions = Questions(
            name,
            self._workload,
            phase,
            rng,
            seed=generator.seed,
            model=generator.model,
            request=generator.request,
            folder=generator.folder,
        )
        self._requests = self._failed = 0
        self._limit = 0.0
        self._searching: Searching | None = None

    async def run(self, limit: float, seconds: float, began: Callable[[int], None] = lambda at_ns: None) -> Done:
        self._limit = limit
        process, workload = self._workload.arrivals, self._workload
        folder = self._generator.folder
        if isinstance(process, Search) and self._phase == "measured":
            began(time.monotonic_ns())
            self._searching = Searching(process, self, self._rng)
            await self._searching.run()
            return Done(time.monotonic_ns(), self._requests, self._failed)
        if isinstance(process, Search):
            process = Poisson(rate=process.low)
        due: Iterable[Arrival] = itertools.repeat(Arrival(0.0))
        if not isinstance(process, Closed):
            due = arrivals(process, self._rng, folder)
        if isinstance(process, Trace):
            due = list(due)
        found = sessions(workload, due, f"{self._generator.seed}/{self._name}/{self._phase}", limit, folder)
        start_ns = time.monotonic_ns()
        until_ns = start_ns + seconds * 1e9
        began(start_ns)
        if found is not None:
            going = Conversations(self, found, self._questions.prompts, start_ns, until_ns)
            if isinstance(process, Closed):
                await going.in_turn([workload.tenant_of(number) for number in range(process.clients)])
            else:
                await going.at_their_times()
        elif isinstance(process, Closed):
            await asyncio.gather(*(self._client(number, until_ns) for number in range(process.clients)))
        else:
            moments = (list(group) for _, group in itertools.groupby(due, lambda each: each.at))
            await self.schedule(moments, start_ns, seconds)
        return Done(time.monotonic_ns(), self._requests, self._failed)

    async def _client(self, number: int, until_ns: float) -> None:
        tenant = self._workload.tenant_of(number)
        while self.goes_on():
            question = self.question(Arrival(0.0, tenant=tenant))
            intended_ns = time.monotonic_ns()
            # Another client may have sent the last one meanwhile; from here to the send nobody can.
            if intended_ns >= until_ns or not self.goes_on():
                return
            await self.ask(question, self.numbered(), number, intended_ns)

    async def schedule(self, moments: Iterator[list[Arrival]], start_ns: int, seconds: float) -> None:
        under_way: set[asyncio.Task[Answer]] = set()
        with PreciseTimer() as timer:
            for moment in moments:
                if moment[0].at >= seconds or not self.goes_on():
                    break
                questions = [self.question(each) for each in moment]
                intended_ns = start_ns + round(moment[0].at * 1e9)
                await timer.until(intended_ns)
                for question in questions:
                    if not self.goes_on():
                        break
                    index = self.numbered()
                    if len(under_way) >= MAX_UNDER_WAY:
                        now = time.monotonic_ns()
                        self.came(question, Answer("generator_full", first_ns=now, done_ns=now), index, 0, intended_ns)
                        continue
                    task = asyncio.create_task(self.ask(question, index, 0, intended_ns))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    def goes_on(self) -> bool:
        return self._requests < self._limit and not self._enough()

    def numbered(self) -> int:
        self._requests += 1
        return self._requests - 1

    async def ask(self, question: Question, index: int, client: int, intended_ns: int) -> Answer:
        answer = await self._generator.target.ask(question)
        self.came(question, answer, index, client, intended_ns)
        return answer

    def came(self, question: Question, answer: Answer, index: int, client: int, intended_ns: int) -> None:
        answer.judged(self._generator.transports)
        if question.is_given_up and answer.outcome == "ok":
            answer.outcome = CANCELLED
        elif answer.outcome == CANCELLED and not question.is_given_up:
            answer.outcome = "cancelled_by_server"
        self._failed += answer.outcome not in ("ok", CANCELLED)
        asked = Asked(
            self._name,
            self._phase,
            index,
            client,
            intended_ns,
            question.priority,
            question.prompt_chars,
            question.deadline_s,
            question.exercise,
            question.session,
            question.turn,
            self._searching.offered if self._searching is not None else None,
        )
        if self._searching is not None:
            self._searching.came(intended_ns, answer)
        self._keep(asked, answer)

    def question(
        self,
        arrival: Arrival,
        messages: list[dict[str, Any]] | None = None,
        session: int | None = None,
        turn: int | None = None,
    ) -> Question:
        return self._questions.of(arrival, messages, session, turn)
