"""The conformance kit for selectors: laws that hold whatever the strategy."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import msgspec
import pytest

from anywire.messages import GAUGES, AgentInfo, AgentStatus
from anywire.offers import Offer, offers, offers_text
from anywire.pipeline.queue.choosing import choice_fault
from anywire.scheduler import Outcome, QueuedTask
from anywire.selector import AgentView, CandidateList, Choice, Selector
from anywire.testing.strategy_kit import MODELS, _equal, _outcome, _Strategies, _task


class Fleet:
    """Agents as the registry shows them, with what is sent to them and ends there."""

    def __init__(self, count: int, rng: random.Random, slots: int = 0, first: int = 0) -> None:
        self.views = [self._view(first + number, slots or rng.randint(1, 8)) for number in range(count)]
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

    def replace(self, rng: random.Random) -> None:
        """One of them leaves; its successor has the same id or another one, and reports what it likes."""
        old = self.views.pop(rng.randrange(len(self.views)))
        ordinal = rng.choice([old.ordinal, self._sent + 100])
        offered = rng.choice([(), tuple(Offer(m, state="stopped", on_demand=True) for m in MODELS), offers(*MODELS)])
        gauges = {name: rng.choice([-1.0, 0.0, 50.0, 100.0, 1e18]) for name in GAUGES if rng.random() < 0.5}
        info = AgentInfo(
            f"a{ordinal}", rng.randint(1, 5), engine=rng.choice(["llama", ""]), device=rng.choice(["", "cuda:0"])
        )
        status = AgentStatus(
            info.agent_id, info.incarnation, "ready", offers_text(offered), rng.randint(1, 8), 0, 0, gauges
        )
        self.views.append(AgentView(info, status, ordinal, "memory", offers={offer.model: offer for offer in offered}))
        self.views.sort(key=lambda view: view.ordinal)

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
    affinity: Literal["", "session", "prefix"] = ""
    """By what it keeps tasks at one agent, as long as that has room."""
    few: ClassVar[dict[str, Any] | None] = None
    """Settings with which it remembers at most 100 things. None: that it is bounded is not tested."""

    def make(self) -> Any:
        return self._make(self.selector, {})

    def most(self, agent: AgentView, agents: list[AgentView]) -> int:
        """How many attempts ``agent`` may have after it was chosen of ``agents``: its bound, its slots by default."""
        return agent.status.slots

    def choice(self, selector: Selector, task: QueuedTask, agents: list[AgentView]) -> AgentView | None:
        """What it chooses of ``agents``, checked: one of them, with room, left as it was, with scores and a reason in
        bounds."""
        before = msgspec.json.encode(agents)
        chosen = selector.select(task, CandidateList(agents))
        assert msgspec.json.encode(agents) == before, "the selector changed an agent's view"
        if isinstance(chosen, Choice):
            assert not choice_fault(chosen, len(agents)), "the selector " + choice_fault(chosen, len(agents))
            chosen = chosen.agent
        if chosen is None:
            return None
        assert any(chosen is agent for agent in agents), "the choice is none of the candidates"
        most = self.most(chosen, agents)
        assert chosen.in_flight < most, f"the agent chosen may have {most} attempts and has {chosen.in_flight}"
        return chosen

    def _choices(self, seed: int, prefix: bool) -> list[str]:
        """The choices of a new selector in a history that follows from ``seed`` alone."""
        rng = random.Random(seed)
        selector: Selector = self.make()
        fleet = Fleet(rng.randint(1, 8), rng)
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
        wants_prefix = self.make().wants_prefix
        assert self._choices(seed, wants_prefix) == self._choices(seed, wants_prefix)

    @pytest.mark.parametrize("seed", range(3))
    def test_prefixes_change_nothing_unless_it_wants_them(self, seed: int) -> None:
        assert self.make().wants_prefix or self._choices(seed, True) == self._choices(seed, False)

    def test_one_candidate_is_chosen(self) -> None:
        rng = random.Random(0)
        (only,) = Fleet(1, rng).views
        assert self.choice(self.make(), _task(0, rng), [only]) is only

    def test_equal_agents_get_equal_shares(self) -> None:
        if not self.fair:
            pytest.skip("this strategy does not mean to be fair")
        rng = random.Random(0)
        selector: Selector = self.make()
        fleet = Fleet(4, rng, slots=8)
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

    @pytest.mark.parametrize("seed", range(5))
    def test_affinity_is_kept_while_its_agent_has_room(self, seed: int) -> None:
        if not self.affinity:
            pytest.skip("this strategy keeps no task at an agent")
        rng = random.Random(seed)
        selector: Selector = self.make()
        fleet = Fleet(5, rng, slots=32)
        homes: dict[int, AgentView] = {}
        for number in range(200):
            each = rng.randrange(8)
            task = msgspec.structs.replace(_equal(number), **{self.affinity: self._name(each)[self.affinity]})
            free = sorted(rng.sample(fleet.free(), rng.randint(1, len(fleet.free()))), key=lambda view: view.ordinal)
            chosen = self.choice(selector, task, free)
            home = homes.get(each)
            if home is not None and home in free and home.in_flight < self.most(home, free):
                assert chosen is home, "the agent that had its like before has room, and another one was chosen"
            if chosen is not None:
                homes[each] = chosen
                fleet.send(task, chosen)
            while fleet.running and (len(fleet.free()) < 3 or rng.random() < 0.45):
                ended, agent = fleet.end_one(rng)
                selector.observed(Outcome(ended.task_id, agent.agent_id, "", 1.0, 2.0, 3))

    @pytest.mark.parametrize("seed", range(5))
    def test_failures_and_odd_reports_raise_nothing(self, seed: int) -> None:
        """Agents fail, restart, leave, and report what they like within the bounds of a report; outcomes come twice,
        late, or of agents that have gone; hints are any."""
        rng = random.Random(seed)
        selector: Selector = self.make()
        fleet = Fleet(4, rng)
        for number in range(150):
            if rng.random() < 0.2:
                fleet.replace(rng)
            task = msgspec.structs.replace(
                _task(number, rng, selector.wants_prefix), hints=_hints(rng), policy=rng.choice(["", "nobody's"])
            )
            if free := fleet.free():
                chosen = self.choice(selector, task, free)
                if chosen is not None:
                    fleet.send(task, chosen)
            while fleet.running and (not fleet.free() or rng.random() < 0.5):
                ended, agent = fleet.end_one(rng)
                for _ in range(rng.randint(0, 2)):
                    error = rng.choice(["", "agent_lost", "engine_failed", "cancelled", "refused", "a_new_code"])
                    failed = error in ("agent_lost", "engine_failed")
                    first = rng.choice([0.0, 1.0, 1e9])
                    selector.observed(
                        Outcome(ended.task_id, agent.agent_id, error, first, first, 0, agent_failed=failed)
                    )
            selector.observed(Outcome("t-unknown", "nobody", rng.choice(["", "agent_lost"]), 0.0, 0.0, 0))

    def test_what_it_remembers_is_bounded(self) -> None:
        """Tasks, sessions, prompts and agents that are all new add nothing in the end."""
        if self.few is None:
            pytest.skip("no settings are named with which it remembers little")
        rng = random.Random(0)
        selector: Selector = self._make(self.selector, self.few)
        sizes = []
        for number in range(3000):
            views = Fleet(2, rng, slots=4, first=2 * number).views
            task = msgspec.structs.replace(_equal(number), session=f"s{number}", prefix=self._name(number)["prefix"])
            chosen = selector.select(task, CandidateList(views))
            chosen = chosen.agent if isinstance(chosen, Choice) else chosen
            if chosen is not None and number % 2:
                selector.observed(_outcome(task.task_id, chosen.agent_id, rng))
            if number % 1000 == 999:
                sizes.append(sum(_entries(selector, set())))
        assert sizes[2] <= 1.1 * sizes[1] + 20, f"it keeps {sizes} entries after 1000, 2000, 3000 tasks"

    @staticmethod
    def _name(number: int) -> dict[str, Any]:
        return {"session": f"s{number}", "prefix": tuple(hash((number, block)) % 2**64 for block in range(4))}


def _hints(rng: random.Random) -> dict[str, str | float]:
    values: list[str | float] = ["", "high", "no word of ours", "0.3", "nan", "inf", -1e299, 1e299, 0, 7.5]
    names = ("urgency", "complexity", "task_type", "device", "x")
    return {name: rng.choice(values) for name in rng.sample(names, rng.randint(0, 5))}


def _entries(value: object, seen: set[int]) -> Iterator[int]:
    """How many members each container has that ``value`` keeps, but for the agents' views."""
    if id(value) in seen or isinstance(value, str | bytes | int | float | type | AgentView):
        return
    seen.add(id(value))
    if isinstance(value, dict | list | tuple | set | frozenset | deque):
        yield len(value)
        members = [*value, *value.values()] if isinstance(value, dict) else value
    else:
        members = [*getattr(value, "__dict__", {}).values()]
        members += [getattr(value, name, None) for name in getattr(type(value), "__slots__", ())]
    for member in members:
        yield from _entries(member, seen)
