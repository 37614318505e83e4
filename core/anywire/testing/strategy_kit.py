"""The conformance kit for schedulers: laws that hold whatever the strategy. That for selectors is
`anywire.testing.selector_kit`."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable
from typing import Any, ClassVar

import msgspec
import pytest

from anywire.caller import Caller
from anywire.fairness import jain_index
from anywire.plugins import PluginKind, Plugins
from anywire.scheduler import Outcome, QueuedTask, QueueKey, Scheduler

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
    error = rng.choice(["", "", "engine_failed"])
    return Outcome(task_id, agent_id, error, 1.0, 2.0, 3, 10, 20, agent_failed=bool(error))


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
    longest_wait: ClassVar[float | None] = None
    """Seconds after which a waiting task goes before whatever is received later, where the scheduler promises that."""

    def make(self, **options: Any) -> Any:
        return self._make(self.scheduler, options)

    def outranks(self, new: QueuedTask, waiting: QueuedTask) -> bool:
        """Whether ``new`` may take the place of ``waiting`` when everything is full."""
        return new.priority > waiting.priority

    def may_displace(self, new: QueuedTask, waiting: QueuedTask, inside: Collection[QueuedTask]) -> bool:
        """Like `outranks`, for a scheduler with which it depends on all that wait: ``inside``."""
        return self.outranks(new, waiting)

    def rank(self, task: QueuedTask) -> Any:
        """What the order follows, the smallest first, where it follows from the tasks alone; None where it does not."""
        return None

    def unfairness(self, largest: float, running: int) -> float | None:
        """The most tokens by which what two tenants were served may differ that both had tasks waiting all the time,
        where the scheduler is fair to tenants: ``largest`` is what the largest task costs, ``running`` how many run at
        once. None where it is not fair."""
        return None

    def tokens(self, outcome: Outcome) -> float:
        """What an attempt costs its tenant."""
        return outcome.prompt_tokens + outcome.tokens

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

    @pytest.mark.parametrize("seed", range(5))
    def test_a_task_that_passes_leaves_nothing_behind(self, seed: int) -> None:
        """Where `Scheduler.lets_pass` says that a task may pass while none waits, it makes no difference whether it was
        put and taken."""
        if vars(type(self.make())).get("lets_pass") is not True:
            pytest.skip("this scheduler lets no task pass")

        def order(shown: bool) -> list[str]:
            rng, out = random.Random(seed), []
            scheduler: Scheduler = self.make(max_queue_size=1000)
            for number in range(400):
                task = _task(number, rng, scheduler.wants_prefix)
                if not len(scheduler) and rng.random() < 0.7:
                    if shown:
                        scheduler.put(task)
                        assert scheduler.take(lambda keys: True, number) is task
                    if rng.random() < 0.3:
                        scheduler.put_back(task)
                elif rng.random() < 0.4:
                    scheduler.put(task)
                elif (got := scheduler.take(_ready(set(rng.sample(MODELS, 2)), []), number)) is not None:
                    out.append(got.task_id)
            return out + _drained(scheduler, 400)

        assert order(True) == order(False), "it remembers tasks that were taken at once"

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
            most = scheduler.limit(task)
            assert 0 < most <= 20, "limit is beyond max_queue_size, or lets nothing in"
            if len(inside) >= most:
                before = len(scheduler)
                named = scheduler.displace(task)
                assert len(scheduler) == before, "displace names a task and removes none"
                if named is None:
                    continue
                assert named in inside, "the task named is not waiting"
                assert self.may_displace(task, inside[named], inside.values()), "the task named is not of lower rank"
                assert scheduler.remove(named)
                del inside[named]
            scheduler.put(task)
            inside[task.task_id] = task
        assert set(_drained(scheduler, 200)) == set(inside)

    @pytest.mark.parametrize("seed", range(5))
    def test_the_order_is_the_promised_one(self, seed: int) -> None:
        """Of the tasks that are ready none goes before one of smaller rank; `rank` says what was promised."""
        rng = random.Random(seed)
        scheduler: Scheduler = self.make(max_queue_size=1000)
        inside: dict[str, QueuedTask] = {}
        for number in range(300):
            if rng.random() < 0.6:
                task = _task(number, rng, scheduler.wants_prefix)
                scheduler.put(task)
                inside[task.task_id] = task
                continue
            models = set(rng.sample(MODELS, rng.randint(1, 3)))
            got = scheduler.take(_ready(models, []), number)
            if got is not None:
                del inside[got.task_id]
                ranks = [self.rank(each) for each in inside.values() if _can_run(each, models)]
                assert None in ranks or all(self.rank(got) <= rank for rank in ranks), "not in the promised order"

    @pytest.mark.parametrize("seed", range(5))
    def test_a_task_waits_no_longer_than_promised(self, seed: int) -> None:
        """One task is sent in each second, and newer ones of every rank come, of tenants that have tasks waiting all
        the time. Its own tenant has used much."""
        if self.longest_wait is None:
            pytest.skip("this scheduler promises no bound")
        rng = random.Random(seed)
        scheduler: Scheduler = self.make(max_queue_size=1000)
        others = [Caller(f"other{number}", f"other{number}") for number in range(2)]
        for number, other in enumerate(others):
            scheduler.put(msgspec.structs.replace(_task(number, rng), caller=other))
        victim = msgspec.structs.replace(
            _task(len(others), rng), priority=-1000, prompt_chars=10**6, max_tokens=0, deadline_ns=0
        )
        scheduler.put(victim)
        owner = victim.caller.tenant, victim.session
        scheduler.observed(Outcome("earlier", "a", "", 1.0, 1.0, 1, 10**6, 10**6, *owner))
        for second in range(1, int(self.longest_wait) + len(others) + 4):
            task = _task(second + len(others), rng, scheduler.wants_prefix)
            now = second * SECOND
            urgent = {"priority": 1000, "received_ns": now, "deadline_ns": now + rng.choice([0, 1, SECOND])}
            other = others[second % len(others)]
            scheduler.put(msgspec.structs.replace(task, prompt_chars=1, max_tokens=1, caller=other, **urgent))
            got = scheduler.take(lambda keys: True, now)
            assert got is not None
            if got is victim:
                return
            scheduler.observed(Outcome(got.task_id, "a", "", 1.0, 1.0, 1, 1, 1, got.caller.tenant, got.session))
        pytest.fail(f"a task was not sent within {self.longest_wait:g} s, {len(others)} older and three more tasks")

    @pytest.mark.parametrize("seed", range(5))
    def test_tenants_that_wait_are_served_alike(self, seed: int) -> None:
        """One sends nine times as much as the others, the answers of one are long and name no limit, and tasks are
        larger or smaller than expected."""
        rng = random.Random(seed)
        scheduler: Scheduler = self.make(max_queue_size=10_000)
        running: list[QueuedTask] = []
        tenants = ("greedy", "b", "c", "d")
        served, waiting = dict.fromkeys(tenants, 0.0), dict.fromkeys(tenants, 0)
        largest, number = 0.0, 0
        if self.unfairness(1.0, 1) is None:
            pytest.skip("this scheduler is not fair to tenants")
        for _ in range(600):
            for tenant, ahead in (("greedy", 45), ("b", 5), ("c", 5), ("d", 5)):
                while waiting[tenant] < ahead:
                    number += 1
                    task = msgspec.structs.replace(_task(number, rng), caller=Caller(tenant, tenant))
                    if tenant == "d":
                        task = msgspec.structs.replace(task, max_tokens=0)
                    scheduler.put(task)
                    waiting[tenant] += 1
            got = scheduler.take(lambda keys: True, number)
            assert got is not None
            waiting[got.caller.tenant] -= 1
            running.append(got)
            if len(running) == 4:
                ended = running.pop(rng.randrange(4))
                tenant, tokens = ended.caller.tenant, rng.randint(1, ended.max_tokens or 600)
                if tenant == "d":
                    tokens += 2000
                outcome = Outcome(
                    ended.task_id, "a", "", 1.0, 2.0, 3, ended.prompt_chars // 4, tokens, tenant, ended.session
                )
                scheduler.observed(outcome)
                served[tenant] += self.tokens(outcome)
                largest = max(largest, self.tokens(outcome))
                most = self.unfairness(largest, len(running) + 1)
                assert most is not None
                apart = max(served.values()) - min(served.values())
                assert apart <= most, f"tenants are {apart:.0f} tokens apart: {served}"
        assert jain_index(served.values()) >= 0.95, f"Jain's index is {jain_index(served.values()):.3f}: {served}"

    @pytest.mark.parametrize("seed", range(5))
    def test_a_tenant_that_begins_to_wait_is_not_held_up_by_those_with_much(self, seed: int) -> None:
        """While its first task waits, no other tenant is served more than by what they may be apart."""
        rng = random.Random(seed)
        scheduler: Scheduler = self.make(max_queue_size=10_000)
        if self.unfairness(1.0, 1) is None:
            pytest.skip("this scheduler is not fair to tenants")
        names, number, largest = [f"much{each}" for each in range(rng.randint(1, 6))], 0, 0.0
        served = dict.fromkeys(names, 0.0)
        for name in names * 60:
            number += 1
            scheduler.put(msgspec.structs.replace(_task(number, rng), caller=Caller(name, name)))
        for turn in range(20 * len(names)):
            if turn == 8 * len(names):
                served = dict.fromkeys(names, 0.0)
                scheduler.put(msgspec.structs.replace(_task(number + 1, rng), caller=Caller("little", "little")))
            got = scheduler.take(lambda keys: True, number)
            assert got is not None
            if got.caller.tenant == "little":
                return
            owner, tokens = (got.caller.tenant, got.session), rng.randint(1, got.max_tokens or 600)
            outcome = Outcome(got.task_id, "a", "", 1.0, 2.0, 3, got.prompt_chars // 4, tokens, *owner)
            scheduler.observed(outcome)
            served[got.caller.tenant] += self.tokens(outcome)
            largest = max(largest, self.tokens(outcome))
            most = self.unfairness(largest, 1)
            assert most is not None
            waits = turn >= 8 * len(names)
            assert not waits or max(served.values()) <= most, f"a tenant with one task waits while others got {served}"
        pytest.fail("the only task of a tenant was not sent while others had many")

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
