"""A simulated day: clients, an orchestrator with the strategies under test, agents, and books that are compared."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator
from typing import Any

from tests.health_laws import HealthLaws
from tests.simulation.agents import LATENCY, MAX_SLOTS, MODELS, SimulatedAgent, Wire
from tests.simulation.clients import READER_TIMEOUT, TENANTS, Client

from anywire import errors, events
from anywire.agent_health import Order
from anywire.failure_settings import BreakerConfig, HedgingConfig, RetryConfig
from anywire.identity import hub_info
from anywire.messages import Chunk
from anywire.pipeline.attempts.decide import Budget, Decision, Hedge, Resume, Retry, decide
from anywire.pipeline.health.health import Health
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline.orders.probes import PROBER
from anywire.pipeline.tasks.task import Attempt, Task
from anywire.pipeline_settings import PipelineConfig
from anywire.plugins import Plugins
from anywire.scheduler import Scheduler
from anywire.selector import Selector
from anywire.testing.clock import SimulatedClock
from churn import sizes

AGENTS = 12
QUANTUM = 0.01
"""Seconds between two turns of the event loop, in which readers read."""
QUEUE = 100
DEADLINE = 30.0
RATE = 160.0
"""Tasks in a second, in the mean."""
CHECKED = 100
"""Quanta between two looks into the books."""
EXPLAINED = 100
MOST = 2
"""Times that a stream gives its slot to an urgent task."""
YIELDING: dict[str, Any] = {
    "preemption": {"urgent": 5, "below": 0, "most": MOST},
    "fallbacks": {"m1": ["m2", "m3"], "m2": ["m3"], "m3": ["m1"]},
}
ORDERS: list[Order] = ["drained", "isolated", "", "", ""]
PAST = {
    ".registry._former": 1024,
    ".registry._rejected": 1024,
    ".registry.serving._formerly": 4096,
    ".attempts._abandoned": 256,
    ".limits._accounts": TENANTS,
    "._counts": 50,
    "._dropped._once._logged": 1000,
    "._kept._ended": EXPLAINED,
    "._ends.outcomes": 50,
    "._attempt_ends.by_transport": 2,
    "._retries._budgets._budgets": TENANTS * len(MODELS),
    ".health._records": (3 + len(MODELS)) * AGENTS,
    ".health._away": AGENTS,
    ".health._quarantine._stays": AGENTS,
    ".health._resting": AGENTS,
    ".health._doubtful": AGENTS,
    ".health._models._models": AGENTS,
    ".health._models._resting": len(MODELS),
    ".health._models._doubtful": len(MODELS),
    ".registry._barred": AGENTS,
    "._agent_observation._health": (3 + len(MODELS)) * AGENTS,
    "._waiting._models": len(MODELS),
    ".attempts._hedging._first_tokens._models": len(MODELS),
    "._waiting.refused": 50,
    "._dispatcher._chooser._left_out": 32,
    "._dispatcher._scheduler._charges.expected._means": TENANTS,
    "._dispatcher._scheduler._expected._means": TENANTS,
    "._dispatcher._scheduler._debts": TENANTS,
    "._dispatcher._scheduler._idle": 10_000,
}
"""What pipeline and schedulers keep of the past, and how much of it."""
SELECTOR = "._dispatcher._chooser._selector."
LEARNED = 20_000
"""How many entries a selector may keep in one place of what it has learned."""


class Record:
    """What the events have said of a task that is not over in all books."""

    __slots__ = ("attempts", "client", "ended", "follows", "stream")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.stream: Any = None
        self.follows = False
        self.ended: events.TaskEnded | None = None
        self.attempts: set[int] = set()

    @property
    def pair(self) -> tuple[str, str]:
        """Whose budget for retries is that of its task."""
        submission = self.client.submission
        return submission.model, submission.caller.tenant


class Spent:
    """What tasks of one model and tenant have cost, kept apart from the pipeline's own budget. ``ended`` is when those
    ended that had been sent."""

    def __init__(self, config: RetryConfig) -> None:
        self._config = config
        self._retries = deque[float]()
        self.ended = deque[float]()

    def retry(self, now: float, under_way: int) -> str:
        """One more; what is wrong with that, empty when nothing is."""
        config = self._config
        while self.ended and self.ended[0] < now - 1.1 * config.window - 1e-6:
            self.ended.popleft()
        while self._retries and self._retries[0] <= now - config.window:
            self._retries.popleft()
        self._retries.append(now)
        tasks = under_way + len(self.ended)
        if len(self._retries) > config.floor + config.share * tasks + 1e-9:
            return f"{len(self._retries)} retries within {config.window} s, of {tasks} tasks, with {config}"
        return ""


class World:
    """``seed`` decides everything, and differently for each pair of strategies; ``ways`` says whether tasks are hedged
    and resumed where chance is not to say it. `run` raises `AssertionError` with what is wrong."""

    def __init__(
        self, seed: int, scheduler: Scheduler, selector: Selector, plugins: Plugins, ways: tuple[bool, bool] | None
    ) -> None:
        self.seed, self.clock = seed, SimulatedClock()
        self.rng = chance = random.Random(f"{seed} {scheduler.config} {selector.name}")
        self.scheduler, self.selector, self.plugins = scheduler, selector, plugins
        self.hedges, resumes = ways or (chance.random() < 0.5, chance.random() < 0.5)
        yields = random.Random(f"{seed} {scheduler.name} {selector.name} yields").random() < 0.7
        self.wires = [
            Wire("native", "native", self.clock, random.Random(chance.random())),
            Wire("leased", "connection", self.clock, random.Random(chance.random())),
        ]
        means = random.Random(f"{seed} {selector.name} retries")
        self.retries = RetryConfig(
            share=means.choice([0.0, 0.2]), floor=means.choice([0, 1, 20]), window=means.choice([2.0, 10.0])
        )
        self.orchestrator = Orchestrator(
            hub_info("hub"),
            self.wires,
            scheduler,
            selector,
            config=PipelineConfig(
                deadline=DEADLINE,
                agent_wait=2.0,
                window=4,
                first_token_timeout=3.0,
                next_token_timeout=3.0,
                reader_timeout=READER_TIMEOUT,
                resume=resumes,
                tenant_queue_share=chance.choice([0.5, 1.0]),
                breaker=BreakerConfig(
                    recovery=0.5,
                    probes=chance.choice([1, 2]),
                    quarantine_trips=chance.choice([0, 2]),
                    quarantine_probe=0.5,
                    slow_start=chance.choice([0.0, 1.0]),
                ),
                explained_tasks=EXPLAINED,
                **(YIELDING if yields else {}),
                retries=self.retries,
                hedging=HedgingConfig(share=0.1 if self.hedges else 0.0),
            ),
            plugins=plugins,
            clock=self.clock,
            decide=self._decide,
        )
        self.agents = [
            SimulatedAgent(f"a{number}", self._wires_of(number), self.clock, random.Random(chance.random()))
            for number in range(AGENTS)
        ]
        self.laws = HealthLaws(self.orchestrator)
        self.orchestrator._retries._rng = random.Random(chance.random())
        self.spent = defaultdict[tuple[str, str], Spent](lambda: Spent(self.retries))
        self.open: dict[str, Record] = {}
        self.probes: set[str] = set()
        """Those under way: tasks of the pipeline itself, for which no client asks."""
        self.submitted = self.taken_in = 0
        self.refused: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        """By code, as the readers have seen it."""
        self.faults: list[str] = []
        self.trace = hashlib.sha256()
        """Of all that happened: equal seeds, equal traces."""
        self._readers: set[asyncio.Task[None]] = set()
        self._arrivals = True
        for kind, call in (
            (events.TaskAdmitted, self._admitted),
            (events.TaskEnded, self._ended),
            (events.AttemptSent, self._sent),
            (events.AttemptEnded, self._attempt_ended),
            (events.TaskPreempted, self._preempted),
        ):
            self.orchestrator.events.subscribe("world", call, kind)

    def _wires_of(self, number: int) -> list[Wire]:
        return self.wires if number % 3 == 0 else [self.wires[number % 3 - 1]]

    def _decide(
        self, task: Task, attempt: Attempt, error: errors.AnywireError, health: Health, budget: Budget
    ) -> Decision:
        if self.hedges and isinstance(error, errors.NoProgress) and not task.chunks:
            return Hedge()
        decision = decide(task, attempt, error, health, budget)
        if isinstance(decision, Retry | Resume) and not task.chunks:
            self._retried(task)
        return decision

    def _retried(self, task: Task) -> None:
        """Hold a retry against what its model and tenant may cost."""
        pair, tasks, under_way = (task.submission.model, task.submission.caller.tenant), self.orchestrator._tasks, 0
        for record in self.open.values():
            if record.ended is None and record.pair == pair:
                running = tasks.get(record.client.task_id)
                # The event of one that is no more there is still to come.
                under_way += running is None or running.sent > 0
        fault = self.spent[pair].retry(self.clock.now(), under_way)
        if fault:
            self.faults.append(f"{task.task_id}: {fault}")

    # The day

    async def run(self, tasks: int) -> None:
        """Let so many tasks come, then wait for the end of all, let all agents leave, and close."""
        # Nothing is logged here: what an event loop meets is a fault too.
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.faults.append(str(context)))
        await self.orchestrator.start()
        try:
            empty = dict(sizes(self.orchestrator))
            for agent in self.agents:
                self.clock.call_later(self.rng.expovariate(1.0), agent.live)
            self.clock.call_later(0.5, self._arrive, tasks)
            self.clock.call_later(self.rng.uniform(1.0, 4.0), self._black_out)
            self.clock.call_later(self.rng.expovariate(1 / 3), self._order)
            turns, last = 0, 0.0
            while self._arrivals or self.open or self._readers:
                self.clock.advance(QUANTUM)
                if self.rng.random() < 0.0003:
                    self.clock.pause(self.rng.choice([0.5, 3.0]))
                await asyncio.sleep(0)
                turns += 1
                if not turns % CHECKED or self.faults:
                    self._check()
                if not self._arrivals:
                    last = last or self.clock.now()
                    assert self.clock.now() < last + 3 * DEADLINE, f"{self._where()}: {list(self.open)[:5]} do not end"
            self._check()
            for agent in self.agents:
                agent.end()
            self.clock.advance(3600)
            await asyncio.sleep(0)
            self._check_that_nothing_is_left(empty)
        finally:
            for reader in self._readers:
                reader.cancel()
            await self.orchestrator.close()
        assert not self.clock.pending, f"{self._where()}: {self.clock.pending} timers are left"
        assert not self.faults, f"{self._where()}: {self.faults[:5]}"

    def _rate(self) -> float:
        """There are rushes and quiet hours."""
        return RATE * (1.0 + 0.9 * math.sin(self.clock.now() / 2.0))

    def _arrive(self, tasks: int) -> None:
        self.submitted += 1
        self._submit(Client(self.submitted, self.rng))
        if self.submitted < tasks:
            self.clock.call_later(self.rng.expovariate(self._rate()), self._arrive, tasks)
        else:
            self._arrivals = False

    def _black_out(self) -> None:
        """Now and then all agents crash at once, and stay away for longer than tasks wait for agents."""
        if self._arrivals:
            for agent in self.agents:
                agent.stay_away(3.0)
            self.clock.call_later(self.rng.expovariate(1 / 30), self._black_out)

    def _order(self) -> None:
        """An operator drains, isolates and restores agents, and the last of them when no task comes any more."""
        ids = [agent.agent_id for agent in self.agents if self.orchestrator.registry.knows(agent.agent_id)]
        if not self._arrivals:
            for agent_id in ids:
                self.orchestrator.order_agent(agent_id, "")
            return
        if ids:
            order: Order = self.rng.choice(ORDERS)
            self.orchestrator.order_agent(self.rng.choice(ids), order)
        self.clock.call_later(self.rng.expovariate(1.0), self._order)

    def _submit(self, client: Client) -> None:
        record = self.open[client.task_id] = Record(client)
        try:
            stream = self.orchestrator.submit(client.submission, task_id=client.task_id)
        except errors.AnywireError as error:
            self.refused[error.code] += 1
            del self.open[client.task_id]
            return
        self.taken_in += 1
        record.stream = stream
        client.act(stream, self.orchestrator, self.clock)
        loop = asyncio.get_running_loop()
        self._read(loop.create_task(self._read_to_the_end(record)))
        if client.way == "is_followed" and record.ended is None:
            record.follows = True
            chunks = self.orchestrator.follow(client.task_id, client.submission.caller)
            self._read(loop.create_task(self._follow_to_the_end(record, chunks)))

    def _read(self, reader: asyncio.Task[None]) -> None:
        self._readers.add(reader)
        reader.add_done_callback(self._was_read)

    def _was_read(self, reader: asyncio.Task[None]) -> None:
        self._readers.discard(reader)
        if not reader.cancelled() and reader.exception() is not None:
            self.faults.append(repr(reader.exception()))

    async def _read_to_the_end(self, record: Record) -> None:
        client = record.client
        await client.read(record.stream, self.clock)
        assert client.end is not None
        self.ended[client.end or "answered"] += 1
        self.trace.update(f"{client.task_id} {client.end} {self.clock.now()};".encode())
        self._settle(record)

    async def _follow_to_the_end(self, record: Record, chunks: AsyncGenerator[Chunk, None]) -> None:
        await record.client.follow(chunks)
        record.follows = False
        self._settle(record)

    # What the events say

    def _admitted(self, event: events.TaskAdmitted) -> None:
        if event.caller == PROBER.id:
            self.probes.add(event.task_id)
        elif event.task_id not in self.open:
            self.faults.append(f"{event.task_id} was admitted, and nobody asks for it")

    def _ended(self, event: events.TaskEnded) -> None:
        if event.caller == PROBER.id:
            self.probes.remove(event.task_id)
            return
        record = self.open.get(event.task_id)
        if record is None or record.ended is not None:
            self.faults.append(f"{event.task_id} ended once more, with {event.error!r}")
            return
        record.ended = event
        if event.attempts:
            self.spent[record.pair].ended.append(self.clock.now())
        self._settle(record)

    def _sent(self, event: events.AttemptSent) -> None:
        if event.caller == PROBER.id:
            return
        record = self.open.get(event.task_id)
        if record is None or record.ended is not None or event.attempt in record.attempts:
            self.faults.append(f"attempt {event.attempt} of {event.task_id} was sent twice, or after the end")
            return
        record.attempts.add(event.attempt)

    def _attempt_ended(self, event: events.AttemptEnded) -> None:
        record = self.open.get(event.task_id)
        if record is not None:
            record.attempts.discard(event.attempt)
            self._settle(record)

    def _preempted(self, event: events.TaskPreempted) -> None:
        record = self.open.get(event.task_id)
        if record is None or record.ended is not None or not 0 < event.times <= MOST:
            self.faults.append(f"{event.task_id} gave its slot after its end, or for the {event.times}th time")
        elif not record.client.submission.stream or record.client.submission.priority > 0:
            self.faults.append(f"{event.task_id} gave its slot, and is no stream of low priority")

    def _settle(self, record: Record) -> None:
        """Close the record of a task once its reader and the events have said all."""
        client, ended, stream = record.client, record.ended, record.stream
        if client.end is None or ended is None or record.attempts or record.follows:
            return
        fault = client.fault()
        if ended.error != client.end:
            fault = f"its reader saw {client.end!r}, and the event says {ended.error!r}"
        elif ended.agent_id != stream.agent_id or ended.attempts < stream.attempts:
            fault = f"its stream is of {stream.agent_id}, attempt {stream.attempts}, and its event says {ended}"
        if fault:
            self.faults.append(f"{client.task_id}: {fault}")
        del self.open[client.task_id]

    # The books

    def _check(self) -> None:
        """What holds at any time."""
        orchestrator, open_ = self.orchestrator, self.orchestrator.attempts.open
        assert not self.faults, f"{self._where()}: {self.faults[:5]}"
        stats = orchestrator.stats()
        assert not stats["plugin_failures"], f"{self._where()}: {stats['plugin_failures']}"
        assert not self.laws.faults, f"{self._where()}: {self.laws.faults[:3]}"
        unended = sum(record.ended is None for record in self.open.values()) + len(self.probes)
        assert stats["tasks"]["running"] + stats["tasks"]["queued"] == unended, self._where()
        assert len(self.scheduler) <= orchestrator.waiting <= QUEUE + AGENTS * MAX_SLOTS, self._where()
        running = {attempt.task.task_id for attempt in open_.values() if not attempt.cancelled}
        assert stats["tasks"]["running"] == len(running), self._where()
        in_flight = 0
        for agent in orchestrator.agents():
            assert 0 <= agent.in_flight <= MAX_SLOTS, self._where()
            in_flight += agent.in_flight
        assert in_flight == len(open_), f"{self._where()}: {in_flight} slots are taken, {len(open_)} attempts open"
        self._check_that_agents_run_what_is_open()
        kept = dict(sizes(orchestrator))
        for path, most in PAST.items():
            assert kept.get(path, 0) <= most, f"{self._where()}: {path}"

    def _check_that_agents_run_what_is_open(self) -> None:
        """An attempt that is open has reached its agent, or is on its way, and has not ended there."""
        agents = {agent.agent_id: agent for agent in self.agents if not agent.paused}
        reached = self.clock.now_ns() - int(2e9 * LATENCY)
        for key, attempt in self.orchestrator.attempts.open.items():
            agent = agents.get(attempt.agent_id)
            runs = agent is None or attempt.sent_ns > reached or key in agent.runs
            assert runs, f"{self._where()}: {key} is open, and has ended at its agent"

    def _check_that_nothing_is_left(self, empty: dict[str, int]) -> None:
        """What holds once all tasks have ended and all agents have left."""
        orchestrator, where = self.orchestrator, self._where()
        assert sum(self.ended.values()) == self.taken_in == self.submitted - self.refused.total(), where
        stats = orchestrator.stats()
        assert stats["tasks"] == {"running": 0, "queued": 0, "ended": dict(self.ended)}, f"{where}: {stats['tasks']}"
        assert self.laws.probes_sent == self.laws.probes_ended, where
        assert stats["agents"] == 0
        assert len(self.scheduler) == 0, where
        assert not orchestrator.attempts.open, where
        accounts = orchestrator.limits._accounts.values()
        assert not any(account.running or account.reserved for account in accounts), where
        bounds = empty | PAST | {".clock._due": QUEUE * 1000}
        for path, size in sizes(orchestrator):
            most = LEARNED if path.startswith(SELECTOR) else bounds.get(path, 0)
            assert size <= most, f"{where}: {size} are left in {path}"

    def _where(self) -> str:
        return f"ANYWIRE_SEED={self.seed} ANYWIRE_TASKS={self.submitted}"
