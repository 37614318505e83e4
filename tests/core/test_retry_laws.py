"""Retries as laws: whatever comes in whatever order, the budget is never exceeded, in a tree neither; a pause is within
its bounds; and for every error, phase and budget there is one decision."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.long_form import examples

from anywire import errors, events
from anywire.caller import Caller
from anywire.failure_settings import BreakerConfig, RetryConfig
from anywire.identity import hub_info
from anywire.messages import AgentInfo, TaskRequest
from anywire.pipeline.attempts.decide import Budget, Fail, Requeue, Resume, Retry, decide
from anywire.pipeline.attempts.retries import Retries
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline.tasks.retry_budget import MAX_BUDGETS, SLICES, RetryBudget, RetryBudgets
from anywire.pipeline_settings import PipelineConfig
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL, fifo, least_loaded
from anywire.testing.puppet import PuppetTransport

# The budget

CONFIGS = st.builds(
    RetryConfig,
    share=st.sampled_from((0.0, 0.2, 0.5, 2.0)),
    floor=st.integers(0, 4),
    window=st.sampled_from((1.0, 10.0)),
)


class BudgetMachine(RuleBasedStateMachine):
    """Beside the budget: when each task began and ended and each retry was allowed, from which what may be is counted
    anew."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = SimulatedClock()
        self.begun: list[float] = []
        self.ended: list[tuple[float, float]] = []
        self.allowed: list[float] = []
        self.below: list[tuple[int, float]] = []
        """Retries kept back for an orchestrator below, and when."""

    @initialize(config=CONFIGS)
    def begin_anew(self, config: RetryConfig) -> None:
        self.config, self.budget = config, RetryBudget(config)

    @rule()
    def begin(self) -> None:
        self.budget.begin(self.clock.now_ns())
        self.begun.append(self.clock.now())

    @rule()
    @precondition(lambda self: self.begun)
    def end(self) -> None:
        self.budget.end()
        self.ended.append((self.begun.pop(0), self.clock.now()))

    @rule(asked=st.integers(1, 3))
    def spend(self, asked: int) -> None:
        for _ in range(asked):
            if self.budget.left(self.clock.now_ns()):
                self.budget.spend(1, self.clock.now_ns())
                self.allowed.append(self.clock.now())

    @rule(asked=st.integers(1, 3))
    def send_below(self, asked: int) -> None:
        kept = min(asked, self.budget.left(self.clock.now_ns()))
        self.budget.keep_back(kept)
        self.below.append((kept, self.clock.now()))

    @rule(data=st.data())
    @precondition(lambda self: self.below)
    def come_back_from_below(self, data: Any) -> None:
        """What it has used was allowed when it was kept back."""
        kept, since = self.below.pop(0)
        used = data.draw(st.integers(0, kept))
        self.budget.give_back(kept)
        self.budget.spend(used, self.clock.now_ns())
        self.allowed += [since] * used

    @rule(seconds=st.sampled_from((0.01, 0.1, 0.95, 1.0, 3.0, 30.0)))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def each_was_within_the_budget_when_it_was_allowed(self) -> None:
        for at in set(self.allowed):
            since = at - self.config.window
            earlier = sum(since < when <= at for when in self.allowed)
            looked_back = since - self.config.window / SLICES
            alive = sum(begin <= at for begin in self.begun)
            alive += sum(begin <= at and end > looked_back for begin, end in self.ended)
            assert earlier <= self.config.floor + self.config.share * alive + 1e-9


def test_a_budget_is_never_exceeded() -> None:
    run_state_machine_as_test(BudgetMachine, settings=settings(max_examples=examples(40), stateful_step_count=60))


def test_a_budget_grants_what_it_may() -> None:
    budget, clock = RetryBudget(RetryConfig(share=0.5, floor=2, window=10)), SimulatedClock()
    for _ in range(10):
        budget.begin(clock.now_ns())
    assert budget.left(clock.now_ns()) == 7
    budget.spend(7, clock.now_ns())
    clock.advance(60)
    assert budget.left(clock.now_ns()) == 7, "what is still under way counts however long it takes"
    for _ in range(10):
        budget.end()
    assert budget.left(clock.now_ns()) == 7
    clock.advance(5)
    assert budget.left(clock.now_ns()) == 7
    clock.advance(20)
    assert budget.left(clock.now_ns()) == 2


def test_models_and_tenants_have_budgets_of_their_own_and_the_oldest_is_forgotten() -> None:
    budgets = RetryBudgets(RetryConfig())
    first = budgets.of("m", "a")
    assert budgets.of("m", "b") is not first
    assert budgets.of("n", "a") is not first
    for number in range(MAX_BUDGETS - 3):
        budgets.of("m", f"t{number}")
    assert budgets.of("m", "a") is first
    budgets.of("m", "one more")
    assert budgets.of("m", "a") is first
    assert len(budgets._budgets) == MAX_BUDGETS


# Arrivals over the pipeline, with children


@settings(max_examples=examples(12))
@given(
    seed=st.integers(0, 10**6),
    share=st.sampled_from((0.0, 0.2)),
    floor=st.integers(0, 6),
    agents=st.sampled_from(((1, 0), (0, 2), (3, 0), (2, 1))),
)
def test_a_root_and_its_children_never_exceed_its_budget(
    seed: int, share: float, floor: int, agents: tuple[int, int]
) -> None:
    """Within one window: each attempt anywhere beyond the first of its task is a retry."""

    async def scenario() -> None:
        chance, clock, wire = random.Random(seed), SimulatedClock(), PuppetTransport()
        config = PipelineConfig(
            retries=RetryConfig(share=share, floor=floor, window=1000, base=0.01), breaker=BreakerConfig(errors=0)
        )
        pipeline = Orchestrator(hub_info("hub"), [wire], fifo(), least_loaded(), config=config, clock=clock)
        await pipeline.start()
        for number in range(agents[0]):
            name = f"child{number}"
            wire.join(name, slots=64, info=AgentInfo(name, 1, engine="orchestrator", capabilities=("chat",)))
        for number in range(agents[1]):
            wire.join(f"leaf{number}", slots=64)
        tasks = made = 0
        answered: set[tuple[str, int]] = set()
        while tasks < 60 or pipeline.tasks():
            for _ in range(chance.randrange(8) if tasks < 60 else 0):
                tasks += 1
                caller = Caller("key", "tenant")
                pipeline.submit(Submission("chat", MODEL, "{}", chance.random() < 0.5, caller=caller))
            for agent_id, request in wire.requests:
                key = (request.task_id, request.attempt)
                if key in answered or chance.random() < 0.5:
                    continue
                answered.add(key)
                used = chance.randint(1, request.attempts_left) if agent_id.startswith("child") else 1
                made += used
                end(wire, request, used, chance)
            clock.advance(chance.choice((0.0, 0.1)))
        assert tasks <= made <= tasks + floor + share * tasks
        await pipeline.close()

    asyncio.run(scenario())


def end(wire: PuppetTransport, request: TaskRequest, used: int, chance: random.Random) -> None:
    """Let an agent answer an attempt, or fail; a child says how many it made."""
    agent_id, incarnation = wire.receiver(request)
    error: errors.AnywireError = errors.EngineFailed("broken", status=chance.choice((0, 500, 503)))
    if chance.random() < 0.3:
        error = errors.AgentLost("gone")
    final = wire.final(request, error, attempts_used=used)
    if chance.random() < 0.1:
        final = msgspec.structs.replace(final, deltas=("answer",), error="")
    wire.sink.chunk_received(agent_id, incarnation, final)


# Pauses


@given(
    losses=st.integers(0, 100),
    base=st.floats(0, 10),
    longest=st.floats(0, 10),
    seed=st.integers(0, 1000),
)
def test_a_pause_is_within_its_bounds(losses: int, base: float, longest: float, seed: int) -> None:
    config = RetryConfig(base=base, longest=longest)
    retries = Retries(config, SimulatedClock(), Counter(), True, random.Random(seed))
    submission = SimpleNamespace(kind="chat", model="m", caller=SimpleNamespace(tenant=""))
    task = SimpleNamespace(
        losses=losses,
        attempts_left=3,
        has_acted=False,
        submission=submission,
        retry_budget=None,
        queued=SimpleNamespace(deadline_ns=0),
    )
    pause = retries.budget(cast("Any", task), cast("Any", SimpleNamespace(used=1)), False, models=0).pause
    assert 0 <= pause <= min(longest, base * 2.0**losses)


async def test_pauses_of_many_are_spread_over_the_whole_of_it() -> None:
    """Full jitter: clients that fail together do not come back together."""
    retries = Retries(RetryConfig(base=1.0), SimulatedClock(), Counter(), True, random.Random(1))
    submission = SimpleNamespace(kind="chat", model="m", caller=SimpleNamespace(tenant=""))
    task = SimpleNamespace(
        losses=0,
        attempts_left=3,
        has_acted=False,
        submission=submission,
        retry_budget=None,
        queued=SimpleNamespace(deadline_ns=0),
    )
    drawn = [
        retries.budget(cast("Any", task), cast("Any", SimpleNamespace(used=1)), False, models=0).pause
        for _ in range(200)
    ]
    tenths = Counter(int(pause * 10) for pause in drawn)
    assert set(tenths) == set(range(10))


# The table of decisions

LOST = {errors.AgentLost, errors.AgentUnavailable, errors.NoProgress, errors.Refused}
PHASES: tuple[errors.Phase, ...] = ("not_sent", "maybe_sent", "streaming")


def test_every_error_that_is_tried_again_is_in_the_table() -> None:
    anywhere = {cls for cls in errors.BY_CODE.values() if cls.again == "anywhere"}
    elsewhere = {cls for cls in errors.BY_CODE.values() if cls.again == "elsewhere"}
    assert (anywhere, elsewhere) == (LOST, {errors.EngineFailed})


@pytest.mark.parametrize("cls", errors.BY_CODE.values(), ids=errors.BY_CODE)
def test_the_table_of_decisions(cls: type[errors.AnywireError]) -> None:
    """Every phase, what was shown, and every budget."""
    for phase, chunks, can_resume, losses, attempts, retries, repeats, elsewhere, status, asked in itertools.product(
        PHASES,
        (0, 3),
        (False, True),
        (0, 1),
        (0, 2),
        (0, 5),
        (False, True),
        (False, True),
        (0, 400, 429, 500, 503),
        (0.0, 1.0, 9.0),
    ):
        task: Any = SimpleNamespace(chunks=chunks, can_resume=can_resume and chunks > 0, losses=losses)
        attempt: Any = SimpleNamespace(chunks=chunks)
        error = cls("it is so", phase=phase, status=status, retry_after=asked)
        budget = Budget(attempts, elsewhere, retries, repeats, 0.25, 2.0)
        found = decide(task, attempt, error, cast("Any", None), budget)
        told = f"{cls.code} {phase} {chunks} {can_resume} {status} {asked} {budget}: {found}"
        assert found == expected(cls, phase, chunks, task.can_resume, losses, status, asked, budget), told
        assert found == decide(task, attempt, error, cast("Any", None), budget), "it is a pure function"
        if isinstance(found, Retry):
            assert not chunks, told
            assert min(attempts, retries) > 0, told
        if isinstance(found, Resume):
            assert chunks, told
            assert attempts > 0, told


def expected(
    cls: type[errors.AnywireError],
    phase: errors.Phase,
    chunks: int,
    can_resume: bool,
    losses: int,
    status: int,
    asked: float,
    budget: Budget,
) -> Any:
    """The table, row by row."""
    if cls is errors.Refused and not chunks:
        return Requeue()
    if cls is errors.AgentUnavailable and phase == "not_sent":
        return Requeue()
    overloaded = status in (429, 503)
    if cls in LOST:
        if phase == "streaming" and not chunks and not budget.elsewhere:
            return Fail()  # an orchestrator below says so
        pause = 0.0 if budget.elsewhere and not losses else 0.25
    elif cls is errors.EngineFailed:
        if budget.elsewhere:
            pause = 0.25
        elif overloaded and asked == 1.0:
            pause = 1.25
        else:
            return Fail()
    else:
        return Fail()
    if not budget.attempts:
        return Fail()
    if not budget.repeats and phase != "not_sent" and not overloaded:
        return Fail()
    if chunks:
        return Resume(pause) if can_resume else Fail()
    return Retry(pause) if budget.retries else Fail(by_budget=True)


# The events


async def test_nothing_is_sent_before_its_pause_is_over(wire: PuppetTransport, clock: SimulatedClock) -> None:
    config = PipelineConfig(retries=RetryConfig(base=1.0), max_attempts=5, breaker=BreakerConfig(errors=0))
    pipeline = Orchestrator(hub_info("hub"), [wire], fifo(), least_loaded(), config=config, clock=clock)
    await pipeline.start()
    told: list[events.TaskRequeued] = []
    pipeline.events.subscribe("test", told.append, events.TaskRequeued)
    for number in range(5):
        wire.join(f"a{number}")
    pipeline.submit(Submission("chat", MODEL, "{}", True))
    for failures in range(4):
        wire.chunk(wire.requests[-1][1], 0, final=True, error=errors.to_wire(errors.EngineFailed("broken")))
        after = told[-1].after_ms
        assert 0 <= after <= min(2000, 1000 * 2**failures)
        sent = len(wire.requests)
        clock.advance(max(0.0, after / 1000 - 0.001))
        if after > 2:
            assert len(wire.requests) == sent
        clock.advance(0.002)
        assert len(wire.requests) == sent + 1
    await pipeline.close()
