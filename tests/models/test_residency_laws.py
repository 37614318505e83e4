"""The laws of the host's rules, whatever callers ask and processes do, in any order: a model has at most one process,
states change only along the allowed transitions, the budget holds, nobody makes room who serves, loads, is pinned or
has not had its turn, models of two groups are never together, and every call is answered."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.long_form import examples

from anywire.errors import AnywireError
from anywire_engine_models.host.effects import Answer, Effect, End, Fail, Forget, Grant, Launch, Tell
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.residency import Residency
from anywire_engine_models.host.server import Device, Exit
from anywire_engine_models.host.settings import HostSettings
from anywire_engine_models.host.status import TRANSITIONS, ModelChanged, ModelState

BUDGET, TURN = 10, 2.0
NAMES = ("a", "b", "c", "d", "e")
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
KILLED = Exit("killed by SIGKILL", signal="SIGKILL")

Step = tuple[Any, ...]
names = st.sampled_from(NAMES)
numbers = st.integers(0, 1000)
models = st.builds(
    HostedModel,
    name=st.just(""),
    memory_bytes=st.sampled_from([5, 3, 4, 6, 8, 10, 11, 0]),
    slots=st.sampled_from([1, 1, 2]),
    autostart=st.sampled_from([False, False, True]),
    on_demand=st.sampled_from([True, True, True, False]),
    idle_ttl=st.sampled_from([0.0, 0.0, 3.0]),
    pinned=st.sampled_from([False] * 7 + [True]),
    group=st.sampled_from(["", "", "", "x", "y"]),
    restart=st.sampled_from(["on-failure", "on-failure", "never"]),
    max_restarts=st.sampled_from([2, 2, 0]),
)
fleets = st.tuples(*[models] * len(NAMES))
KINDS = {
    "use": 30, "finish": 14, "ready": 14, "gone": 10, "pass": 10, "start": 5, "stop": 4, "leave": 4, "crash": 3,
    "fail": 2, "hang": 1, "placed": 1, "pin": 1, "unload": 2, "replace": 1,
}  # fmt: skip
"""How often each step is taken, of about a hundred."""
ARGUMENTS: dict[str, st.SearchStrategy[Step]] = {
    **dict.fromkeys(("use", "start", "stop", "unload"), st.tuples(names)),
    "pin": st.tuples(names, st.sampled_from([False, False, True])),
    "replace": st.tuples(st.sets(names, min_size=3), models),
    "pass": st.tuples(st.sampled_from([0.05, 0.3, 1.0, 2.0, 4.0, 20.0])),
}
steps = st.sampled_from([kind for kind, weight in KINDS.items() for _ in range(weight)]).flatmap(
    lambda kind: st.tuples(st.just(kind), ARGUMENTS.get(kind, st.tuples(numbers))).map(lambda step: (step[0], *step[1]))
)


class World:
    """Processes that do what the steps say, callers, and books of its own of both."""

    def __init__(self, fleet: tuple[HostedModel, ...], turn: float = TURN) -> None:
        self.now, self.turn = 1000.0, turn
        self.rules = Residency(HostSettings(BUDGET, turn, max_waiting=12), wall=lambda: self.now)
        self.tickets = 0
        self.waiting: dict[int, tuple[str, str]] = {}
        """What each caller asked, and of which model."""
        self.serving: dict[int, str] = {}
        self.processes: dict[str, str] = {}
        """Starting, running, ending, or hanging."""
        self.live: dict[str, HostedModel] = {}
        self.states: dict[str, ModelState] = dict.fromkeys(NAMES, "stopped")
        self.protected: dict[str, float] = {}
        """Until when models stay that were loaded in another one's place."""
        self.unserved: set[str] = set()
        """Models that were loaded for requests, and have served none yet."""
        self.made_room: Counter[str] = Counter()
        self.fleet = {name: _named(model, name) for name, model in zip(NAMES, fleet, strict=True)}
        self.pinned = {name: model.pinned for name, model in self.fleet.items()}
        self.rules.begin(list(self.fleet.values()), self.now)
        self.follow()

    # Steps

    def act(self, step: Step) -> None:
        kind, *rest = step
        getattr(self, f"step_{kind}")(*rest)

    def ask(self, kind: str, name: str, call: Callable[..., None], *rest: Any) -> None:
        self.tickets += 1
        self.waiting[self.tickets] = (kind, name)
        try:
            call(self.tickets, name, *rest, self.now)
        except AnywireError:
            del self.waiting[self.tickets]
        self.follow()

    def step_use(self, name: str) -> None:
        self.ask("use", name, self.rules.use)

    def step_start(self, name: str) -> None:
        self.ask("start", name, self.rules.start)

    def step_stop(self, name: str) -> None:
        self.made_room.pop(name, None)
        self.ask("stop", name, self.rules.stop, "asked to")

    def step_unload(self, name: str) -> None:
        served = [each for each in self.serving.values() if each == name]
        running = self.processes.get(name) == "running"
        self.made_room.pop(name, None)
        self.ask("unload", name, self.rules.unload)
        assert not (served and running) or self.processes.get(name) == "running", "unload took it from a request"

    def step_pin(self, name: str, pinned: bool) -> None:
        self.made_room.clear()
        if name in self.fleet:
            self.pinned[name] = pinned
        self.ask("pin", name, self.rules.pin, pinned)

    def step_leave(self, number: int) -> None:
        """A caller who waits is cancelled."""
        if self.waiting:
            ticket = sorted(self.waiting)[number % len(self.waiting)]
            del self.waiting[ticket]
            self.rules.leave(ticket, self.now)
            self.follow()

    def step_finish(self, number: int) -> None:
        """A request is over."""
        if self.serving:
            ticket = sorted(self.serving)[number % len(self.serving)]
            del self.serving[ticket]
            self.rules.leave(ticket, self.now)
            self.follow()

    def step_replace(self, kept: set[str], model: HostedModel) -> None:
        fleet = {name: self.fleet.get(name, _named(model, name)) for name in sorted(kept)}
        changed = sorted(kept)[0]
        fleet[changed] = _named(model, changed)
        self.fleet = fleet
        self.made_room.clear()
        self.rules.replace(list(fleet.values()), self.now)
        for name in fleet:
            self.pinned[name] = self.rules.find(name).pinned
        self.follow()

    def step_pass(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.rules.next_time(self.now)) is not None and due <= end:
            assert due > self.now, "time is asked for that is over"
            self.now = due
            self.follow()
        self.now = end
        self.follow()

    def chosen(self, number: int, *conditions: str) -> str:
        """A process in one of these conditions."""
        found = sorted(name for name, condition in self.processes.items() if condition in conditions)
        return found[number % len(found)] if found else ""

    def step_ready(self, number: int) -> None:
        if name := self.chosen(number, "starting"):
            self.processes[name] = "running"
            if any(asked == ("use", name) for asked in self.waiting.values()):
                self.unserved.add(name)
            if name in self.protected:
                self.protected[name] = self.now + self.turn
            self.rules.course.ready(name, 4711, "http://127.0.0.1:4711", self.now)
            self.follow()

    def step_placed(self, number: int) -> None:
        if name := self.chosen(number, "starting"):
            self.rules.course.placed(name, Device("gpu:0", "free"), self.now)
            self.rules.course.spawned(name, 4711, self.now)
            self.rules.course.progressed(name, 0.5, self.now)
            self.follow()

    def step_fail(self, number: int) -> None:
        if name := self.chosen(number, "starting"):
            self.processes[name] = "ending"
            self.rules.course.failed(name, KILLED, self.now)
            self.follow()
            self.end_of(name)

    def step_crash(self, number: int) -> None:
        """It ends by itself; its group is cleaned up a little later."""
        if name := self.chosen(number, "running"):
            self.processes[name] = "ending"
            self.rules.course.ended(name, KILLED, self.now)
            self.forget_served(name)
            self.follow()

    def step_gone(self, number: int) -> None:
        if name := self.chosen(number, "ending", "hanging"):
            self.end_of(name)

    def step_hang(self, number: int) -> None:
        if name := self.chosen(number, "ending"):
            self.processes[name] = "hanging"
            self.made_room.clear()
            self.rules.course.hangs(name, "it does not end", self.now)
            self.follow()

    def end_of(self, name: str) -> None:
        del self.processes[name], self.live[name]
        self.protected.pop(name, None)
        self.unserved.discard(name)
        self.forget_served(name)
        self.rules.course.gone(name, self.now)
        self.follow()

    def forget_served(self, name: str) -> None:
        for ticket in [ticket for ticket, served in self.serving.items() if served == name]:
            del self.serving[ticket]

    # Laws

    def follow(self) -> None:
        for effect in self.rules.settle(self.now):
            self.do(effect)
        due = self.rules.next_time(self.now)
        assert due is None or due > self.now, "it would be asked again without end"
        self.check()

    def do(self, effect: Effect) -> None:
        match effect:
            case Launch(model):
                name = model.name
                assert name not in self.processes, "a second process"
                self.processes[name], self.live[name] = "starting", model
                if self.made_room.pop(name, 0):
                    self.protected[name] = self.now + self.turn
            case End(name):
                assert self.processes[name] in ("starting", "running")
                self.processes[name] = "ending"
            case Grant(ticket, name):
                assert self.waiting.pop(ticket) == ("use", name)
                assert self.processes[name] == "running"
                self.serving[ticket] = name
                self.unserved.discard(name)
                assert list(self.serving.values()).count(name) <= self.live[name].slots
            case Answer(ticket, status):
                kind, name = self.waiting.pop(ticket)
                assert status.model == name
                assert kind != "start" or status.state == "running"
                assert kind not in ("stop", "unload") or name not in self.processes
            case Fail(ticket, error):
                assert error.message
                del self.waiting[ticket]
            case Tell(ticket, detail):
                assert detail
                assert self.waiting[ticket][0] == "use"
            case Forget(name):
                assert name not in self.processes
                self.states[name] = "stopped"
            case ModelChanged(status, previous):
                self.changed(status.model, status.state, previous, status.reason)

    def changed(self, name: str, state: ModelState, previous: ModelState, reason: str) -> None:
        assert previous == self.states[name]
        if state == previous:
            if "cannot be started" in reason:  # what others did for it is lost
                self.made_room.pop(name, None)
            return
        assert (previous, state) in TRANSITIONS
        self.states[name] = state
        if state == "stopping" and reason.startswith("makes room for "):
            self.made_room_for(name, reason.removeprefix("makes room for "))

    def made_room_for(self, name: str, other: str) -> None:
        assert self.processes[name] == "running", "it made room while it was loading"
        assert name not in self.serving.values(), "it made room while it served"
        waits = ("use", name) in self.waiting.values()
        assert not (waits and name in self.unserved), "it made room before its first request was served"
        assert not self.pinned[name], "it made room though it is pinned"
        assert self.now >= self.protected.get(name, 0.0), "it made room before its turn was over"
        self.made_room[other] += 1

    def check(self) -> None:
        used = sum(model.memory_bytes for model in self.live.values())
        assert used <= BUDGET
        memory = self.rules.memory()
        assert (memory.used_bytes, memory.budget_bytes) == (used, BUDGET)
        groups = {model.group for model in self.live.values()} - {""}
        assert len(groups) <= 1, "two groups are together"
        for status in self.rules.statuses():
            name = status.model
            assert status.state == self.states[name]
            condition = self.processes.get(name)
            assert (condition in ("starting", "running")) == (status.state == condition)
            asked = [kind for kind, of in self.waiting.values() if of == name]
            assert status.waiting == asked.count("use") + asked.count("start")
            assert status.serving == list(self.serving.values()).count(name)
        for ticket, (kind, name) in self.waiting.items():
            assert kind in ("use", "start", "stop", "unload"), (ticket, kind, name)

    # The end

    def answer_all(self) -> None:
        """Once processes do what they should and requests end, everybody is answered, in bounded time."""
        for _ in range(200):
            if not self.waiting and not self.serving:
                return
            self.end_in_a_while()
        raise AssertionError(f"never answered: {self.waiting}, served: {self.serving}, {self.rules.statuses()}")

    def end_in_a_while(self) -> None:
        self.step_finish(0)
        self.step_ready(0)
        self.step_gone(0)
        self.step_pass(0.5)

    def close(self) -> None:
        self.rules.close(self.now)
        self.follow()
        assert {kind for kind, _ in self.waiting.values()} <= {"stop", "unload"}
        for _ in range(len(NAMES)):
            self.step_gone(0)
        assert not self.waiting
        assert not self.processes
        assert self.rules.is_finished
        assert self.rules.next_time(self.now) is None
        assert not self.rules.memory().used_bytes


@settings(max_examples=examples(40), deadline=None, suppress_health_check=SLOW)
@given(fleets, st.lists(steps, min_size=60, max_size=150))
def test_laws(fleet: tuple[HostedModel, ...], day: list[Step]) -> None:
    world = World(fleet)
    for step in day:
        world.act(step)
    world.answer_all()
    world.close()


@settings(max_examples=examples(20), deadline=None, suppress_health_check=SLOW)
@given(fleets, st.lists(steps, min_size=20, max_size=60))
def test_it_may_close_at_any_moment(fleet: tuple[HostedModel, ...], day: list[Step]) -> None:
    world = World(fleet)
    for step in day:
        world.act(step)
    world.close()


def some_model(rng: random.Random, name: str) -> HostedModel:
    return HostedModel(
        name,
        memory_bytes=rng.choice([3, 5, 5, 6, 8, 10, 0]),
        slots=rng.choice([1, 1, 2]),
        autostart=rng.random() < 0.2,
        on_demand=rng.random() < 0.8,
        idle_ttl=rng.choice([0.0, 0.0, 3.0]),
        pinned=rng.random() < 0.05,
        group=rng.choice(["", "", "", "x", "y"]),
        restart=rng.choice(["on-failure", "on-failure", "never"]),
        max_restarts=rng.choice([2, 0]),
    )


def some_step(rng: random.Random) -> Step:
    kind, name = rng.choices([*KINDS], [*KINDS.values()])[0], rng.choice(NAMES)
    match kind:
        case "use" | "start" | "stop" | "unload":
            return kind, name
        case "pin":
            return kind, name, rng.random() < 0.3
        case "replace":
            return kind, {*rng.sample(NAMES, rng.randint(3, len(NAMES)))}, some_model(rng, "")
        case "pass":
            return kind, rng.choice([0.05, 0.3, 1.0, 2.0, 4.0, 20.0])
        case _:
            return kind, rng.randrange(1000)


@pytest.mark.parametrize("first", range(0, examples(200), 50))
def test_laws_on_long_days(first: int) -> None:
    """Far more happens on them than hypothesis tries."""
    for seed in range(first, first + 50):
        rng = random.Random(seed)
        world = World(tuple(some_model(rng, name) for name in NAMES), rng.choice([0.0, TURN]))
        try:
            for _ in range(300):
                world.act(some_step(rng))
            world.answer_all()
            world.close()
        except AssertionError as fault:
            raise AssertionError(f"seed {seed}: {fault}") from fault


def _named(model: HostedModel, name: str) -> HostedModel:
    return replace(model, name=name)
