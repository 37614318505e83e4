"""The conformance kits for schedulers and selectors: laws that hold whatever the strategy."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import msgspec
import pytest

from anywire.caller import Caller
from anywire.messages import AgentInfo, AgentStatus
from anywire.offers import offers, offers_text
from anywire.pipeline.choosing import choice_fault
from anywire.plugins import PluginKind, Plugins
from anywire.scheduler import Outcome, QueuedTask, QueueKey, Scheduler
from anywire.selector import AgentView, CandidateList, Choice, Selector

MODELS = ("m1", "m2", "m3")
SECOND = 10**9


def _task(number: int, rng: random.Random, prefix: bool = False) -> QueuedTask:
    """Any task, received ``number`` nanoseconds after the first."""
    keys = tuple(QueueKey(model, "chat") for model in rng.sample(MODELS, rng.choice([1, 1, 1, 2])))
    tenant, blocks = rng.choice(["", "t1", "t2"]), tuple(rng.choices(range(4), k=3))
    return QueuedTask(
        f"t{number}",
        keys,
        rng.randint(-2, 2),
        number,
        number + SECOND,
        rng.randint(1, 5000),
        max_tokens=rng.choice([0, 10, 1000]),
        caller=Caller(tenant, tenant),
        session=rng.choice(["", "s1", "s2"]),
        prefix=blocks if prefix else (),
    )


def _equal(number: int) -> QueuedTask:
    """One of many that differ in nothing but when they were received."""
    return QueuedTask(f"t{number}", (QueueKey("m1", "chat"),), 0, number, 10**12, 100)


def _outcome(task_id: str, agent_id: str, rng: random.Random) -> Outcome:
    return Outcome(task_id, agent_id, rng.choice(["", "", "engine_failed"]), 1.0, 2.0, 3, 10, 20)


class _Strategies:
    """How both kits make what they test."""

    kind: ClassVar[PluginKind]
    options: ClassVar[dict[str, Any]] = {}
    plugins: tuple[str, ...] = ()

    def _make(self, name: str, options: dict[str, Any]) -> Any:
        plugins = Plugins()
        for source in self.plugins:
            plugins.add(source)
        return plugins.create(self.kind, name, {**self.options, **options})


class SchedulerConformance(_Strategies):
    """Subclass it and name the scheduler. ``options`` are its settings, ``plugins`` files or modules to load first."""

    kind = "schedulers"
    scheduler: str

    def make(self, **options: Any) -> Any:
        return self._make(self.scheduler, options)

    def outranks(self, new: QueuedTask, waiting: QueuedTask) -> bool:
        """Whether ``new`` may take the place of ``waiting`` when everything is full."""
        return new.priority > waiting.priority

    def test_empty_gives_nothing(self) -> None:
        scheduler: Scheduler = self.make()
        assert scheduler.take(lambda keys: True, 0) is None
        assert len(scheduler) == 0
        assert not scheduler.remove("nobody")
        assert scheduler.displace(_equal(0)) is None

    def test_what_was_taken_is_always_put_back(self) -> None:
        """The pipeline bounds what waits, and never refuses what it took in before."""
        scheduler: Scheduler = self.make(max_queue_size=1)
        for number in range(3):
            scheduler.put_back(_equal(number))
        assert len(scheduler) == 3

    @pytest.mark.parametrize("seed", range(20))
    def test_every_task_comes_out_once_or_was_removed(self, seed: int) -> None:
        """``ready`` is asked at most once for the same keys and call; ``now_ns`` stands still or grows."""
        rng = random.Random(seed)
        scheduler: Scheduler = self.make(max_queue_size=10_000)
        inside: dict[str, QueuedTask] = {}
        taken: list[QueuedTask] = []
        now = 0
        for number in range(400):
            now = max(now, number) + rng.choice([0, 1, SECOND, 60 * SECOND]) * rng.randint(0, 1)
            match rng.choice(["put", "put", "put", "take", "take", "remove", "put_back", "observed"]):
                case "put":
                    task = _task(number, rng, scheduler.wants_prefix)
                    scheduler.put(task)
                    inside[task.task_id] = task
                case "take":
                    models = set(rng.sample(MODELS, rng.randint(0, 3)))
                    asked: list[tuple[QueueKey, ...]] = []
                    got = scheduler.take(_ready(models, asked), now)
                    assert len(asked) == len(set(asked)), "ready was asked twice for the same keys"
                    if got is None:
                        assert not any(_can_run(task, models) for task in inside.values()), "a task was ready"
                    else:
                        assert _can_run(inside.pop(got.task_id), models), "a task was taken that is not ready"
                        taken.append(got)
                case "remove" if inside:
                    victim = rng.choice(sorted(inside))
                    assert scheduler.remove(victim)
                    assert not scheduler.remove(victim)
                    del inside[victim]
                case "put_back" if taken:
                    task = taken.pop(rng.randrange(len(taken)))
                    task = msgspec.structs.replace(task, attempt=task.attempt + 1)
                    scheduler.put_back(task)
                    inside[task.task_id] = task
                case "observed" if taken:
                    scheduler.observed(_outcome(rng.choice(taken).task_id, "a", rng))
            assert len(scheduler) == len(inside)
        assert set(_drained(scheduler, now)) == set(inside)
        assert len(scheduler) == 0

    @pytest.mark.parametrize("seed", range(5))
    def test_what_is_put_back_has_its_old_place_among_equals(self, seed: int) -> None:
        rng = random.Random(seed)
        scheduler: Scheduler = self.make(max_queue_size=1000)
        for number in range(30):
            scheduler.put(_equal(number))
        taken = [scheduler.take(lambda keys: True, 30) for _ in range(12)]
        rng.shuffle(taken)
        for task in taken:
            assert task is not None
            scheduler.put_back(task)
        assert _drained(scheduler, 30) == [f"t{number}" for number in range(30)]

    def test_nothing_starves(self) -> None:
        """With a steady supply of newer equals, a task still comes out in the end."""
        scheduler: Scheduler = self.make(max_queue_size=1000)
        scheduler.put(_equal(0))
        for number in range(1, 500):
            scheduler.put(_equal(number))
            got = scheduler.take(lambda keys: True, number)
            assert got is not None
            if got.task_id == "t0":
                return
        pytest.fail("the oldest of equal tasks never came out")

    @pytest.mark.parametrize("seed", range(10))
    def test_only_a_waiting_task_of_lower_rank_is_displaced(self, seed: int) -> None:
        rng = random.Random(seed)
        scheduler: Scheduler = self.make(max_queue_size=20)
        inside: dict[str, QueuedTask] = {}
        for number in range(200):
            task = _task(number, rng, scheduler.wants_prefix)
            if len(inside) == 20:
                named = scheduler.displace(task)
                assert len(scheduler) == 20, "displace names a task and removes none"
                if named is None:
                    continue
                assert named in inside, "the task named is not waiting"
                assert self.outranks(task, inside[named]), "the task named is not of lower rank"
                assert scheduler.remove(named)
                del inside[named]
            scheduler.put(task)
            inside[task.task_id] = task
        assert set(_drained(scheduler, 200)) == set(inside)

    @pytest.mark.parametrize("seed", range(3))
    def test_the_order_follows_from_nothing_that_it_says_it_does_not_use(self, seed: int) -> None:
        """Clients are told when their priority is ignored, and prefixes are computed where they are wanted only."""

        def order(priorities: bool, prefixes: bool) -> list[str]:
            rng = random.Random(seed)
            scheduler: Scheduler = self.make(max_queue_size=1000)
            for number in range(100):
                task = _task(number, rng, True)
                scheduler.put(
                    msgspec.structs.replace(
                        task, priority=task.priority if priorities else 0, prefix=task.prefix if prefixes else ()
                    )
                )
            return _drained(scheduler, 100)

        made: Scheduler = self.make()
        assert made.uses_priority or order(False, False) == order(True, False), "uses_priority is not set"
        assert made.wants_prefix or order(True, False) == order(True, True), "wants_prefix is not set"


def _can_run(task: QueuedTask, models: Iterable[str]) -> bool:
    return any(key.model in models for key in task.keys)


def _ready(models: set[str], asked: list[tuple[QueueKey, ...]]) -> Callable[[tuple[QueueKey, ...]], bool]:
    def ready(keys: tuple[QueueKey, ...]) -> bool:
        asked.append(keys)
        return any(key.model in models for key in keys)

    return ready


def _drained(scheduler: Scheduler, now_ns: int) -> list[str]:
    """All that are left, in order."""
    out = []
    while (task := scheduler.take(lambda keys: True, now_ns)) is not None:
        out.append(task.task_id)
    return out


class _Fleet:
    """Agents as the registry shows them, with what is sent to them and ends there."""

    def __init__(self, count: int, rng: random.Random, slots: int = 0) -> None:
        self.views = [self._view(ordinal, slots or rng.randint(1, 8)) for ordinal in range(count)]
        self.running: list[tuple[QueuedTask, AgentView]] = []
        self._sent = 0

    @staticmethod
    def _view(ordinal: int, slots: int) -> AgentView:
        offered = offers(*MODELS)
        info = AgentInfo(f"a{ordinal}", 1, capabilities=("chat",))
        status = AgentStatus(info.agent_id, 1, "ready", offers_text(offered), slots)
        return AgentView(info, status, ordinal, "memory", offers={offer.model: offer for offer in offered})

    def free(self) -> list[AgentView]:
        return [view for view in self.views if view.free_slots > 0]

    def send(self, task: QueuedTask, agent: AgentView) -> None:
        self._sent += 1
        agent.in_flight += 1
        agent.last_sent = self._sent
        self.running.append((task, agent))

    def end_one(self, rng: random.Random) -> tuple[QueuedTask, AgentView]:
        task, agent = self.running.pop(rng.randrange(len(self.running)))
        agent.in_flight -= 1
        agent.completed += 1
        agent.latency_ema_ms = rng.uniform(1, 100)
        return task, agent


class SelectorConformance(_Strategies):
    """Subclass it and name the selector. ``options`` are its settings, ``plugins`` files or modules to load first."""

    kind = "selectors"
    selector: str
    fair: bool = True
    """Whether equal agents get equal shares."""

    def make(self) -> Any:
        return self._make(self.selector, {})

    def choice(self, selector: Selector, task: QueuedTask, agents: list[AgentView]) -> AgentView | None:
        """What it chooses of ``agents``, checked: one of them, left as it was, with scores and a reason in bounds."""
        before = msgspec.json.encode(agents)
        chosen = selector.select(task, CandidateList(agents))
        assert msgspec.json.encode(agents) == before, "the selector changed an agent's view"
        if isinstance(chosen, Choice):
            assert not choice_fault(chosen, len(agents)), "the selector " + choice_fault(chosen, len(agents))
            chosen = chosen.agent
        assert chosen is None or any(chosen is agent for agent in agents), "the choice is none of the candidates"
        return chosen

    def _choices(self, seed: int, prefix: bool) -> list[str]:
        """The choices of a new selector in a history that follows from ``seed`` alone."""
        rng = random.Random(seed)
        selector: Selector = self.make()
        fleet = _Fleet(rng.randint(1, 8), rng)
        chosen = []
        for number in range(200):
            task = _task(number, rng, True)
            if not prefix:
                task = msgspec.structs.replace(task, prefix=())
            free = fleet.free()
            free = sorted(rng.sample(free, rng.randint(1, len(free))), key=lambda view: view.ordinal)
            agent = self.choice(selector, task, free)
            chosen.append(agent.agent_id if agent is not None else "")
            if agent is not None:
                fleet.send(task, agent)
            while fleet.running and (not fleet.free() or rng.random() < 0.4):
                ended, agent = fleet.end_one(rng)
                selector.observed(_outcome(ended.task_id, agent.agent_id, rng))
        return chosen

    @pytest.mark.parametrize("seed", range(20))
    def test_chooses_a_candidate_and_the_same_one_again(self, seed: int) -> None:
        assert self._choices(seed, self.make().wants_prefix) == self._choices(seed, self.make().wants_prefix)

    @pytest.mark.parametrize("seed", range(3))
    def test_prefixes_change_nothing_unless_it_wants_them(self, seed: int) -> None:
        assert self.make().wants_prefix or self._choices(seed, True) == self._choices(seed, False)

    def test_one_candidate_is_chosen(self) -> None:
        rng = random.Random(0)
        (only,) = _Fleet(1, rng).views
        assert self.choice(self.make(), _task(0, rng), [only]) is only

    def test_equal_agents_get_equal_shares(self) -> None:
        if not self.fair:
            pytest.skip("this strategy does not mean to be fair")
        rng = random.Random(0)
        selector: Selector = self.make()
        fleet = _Fleet(4, rng, slots=8)
        counts = dict.fromkeys((view.agent_id for view in fleet.views), 0)
        for number in range(400):
            if len(fleet.running) == 16:
                ended, agent = fleet.end_one(rng)
                agent.latency_ema_ms = 10.0
                selector.observed(Outcome(ended.task_id, agent.agent_id, "", 10.0, 20.0, 3))
            task = _equal(number)
            chosen = self.choice(selector, task, fleet.free())
            assert chosen is not None
            counts[chosen.agent_id] += 1
            fleet.send(task, chosen)
        assert all(60 <= count <= 140 for count in counts.values()), counts
