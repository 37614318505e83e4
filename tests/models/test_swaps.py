"""Several models in memory for fewer: each request is answered, in turns, and swaps stay within their bound."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from tests.long_form import SOAK
from tests.models.simulated_hosts import HostRig, hosted
from tests.models.simulated_servers import Behaviour, pass_time

from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.settings import HostSettings

LOAD, STOP = 0.5, 0.1
MINUTE = 60.0


def model(name: str, size: int = 6, slots: int = 1, group: str = "") -> HostedModel:
    return HostedModel(name, memory_bytes=size, slots=slots, on_demand=True, group=group)


class Requests:
    """Requests to models, each of which takes ``takes`` seconds at its server."""

    def __init__(self, rig: HostRig, takes: float) -> None:
        self.rig, self.takes = rig, takes
        self.tasks: list[asyncio.Task[None]] = []
        self.answered: list[str] = []
        self.longest = 0.0

    def ask(self, name: str) -> None:
        self.tasks.append(asyncio.ensure_future(self._ask(name)))

    async def _ask(self, name: str) -> None:
        began = self.rig.clock.now()
        async with self.rig.host.use(name) as server:
            assert not server.exited.done()
            await pass_time(self.rig.clock, self.takes)
            assert not server.exited.done(), "its server was stopped while it was served"
        self.answered.append(name)
        self.longest = max(self.longest, self.rig.clock.now() - began)

    async def all_answered(self, most: float) -> None:
        end = self.rig.clock.now() + most
        while not all(task.done() for task in self.tasks) and self.rig.clock.now() < end:
            await self.rig.spend(0.1)
        assert all(task.done() for task in self.tasks), "not every request was answered"
        for task in self.tasks:
            task.result()


async def alternate(rig: HostRig, names: Sequence[str], seed: int, takes: float) -> Requests:
    """Requests to one name after the other for a minute, 30 to 100 ms apart; all are answered."""
    rng, requests = random.Random(seed), Requests(rig, takes)
    end, number = rig.clock.now() + MINUTE, 0
    while rig.clock.now() < end:
        requests.ask(names[number % len(names)])
        number += 1
        await rig.spend(rng.uniform(0.03, 0.1))
    await requests.all_answered(60.0)
    assert len(requests.answered) == number
    return requests


@pytest.mark.parametrize("seed", range(8 if SOAK else 1))
@pytest.mark.parametrize(("turn", "takes"), [(2.0, 0.01), (0.5, 0.02)])
async def test_two_models_in_memory_for_one(seed: int, turn: float, takes: float) -> None:
    """The bound: one swap in each ``turn`` and time of a load; and one at the beginning, when nobody has a turn yet."""
    settings = HostSettings(memory_budget=10, turn=turn)
    async with hosted([model("a"), model("b")], Behaviour(LOAD, stops_after=STOP), settings=settings) as rig:
        began = rig.clock.now()
        requests = await alternate(rig, "ab", seed, takes)
        memory, spent = rig.host.memory(), rig.clock.now() - began
        bound = 1 + spent / (turn + LOAD)
        assert 2 <= memory.swaps <= bound
        assert memory.loads == memory.swaps + 1
        assert memory.swap_seconds == pytest.approx(memory.swaps * (LOAD + STOP), rel=0.4)
        evictions = sum(status.evictions for status in rig.host.statuses())
        assert evictions == memory.swaps
        # Nobody waits longer than for the other's turn and two swaps, with what was asked meanwhile.
        assert requests.longest < 4 * (turn + LOAD + STOP)


async def test_three_models_in_memory_for_two_and_two_of_one_group() -> None:
    settings = HostSettings(memory_budget=12, turn=1.0)
    models = [model("a"), model("b", group="x"), model("c", group="x"), model("d", 2, group="y")]
    async with hosted(models, Behaviour(LOAD, stops_after=STOP), settings=settings) as rig:
        began = rig.clock.now()
        await alternate(rig, "abcd", 3, 0.02)
        # Each of the two places changes hands at most so often; a swap may take both.
        assert rig.host.memory().swaps <= 2 * (1 + (rig.clock.now() - began) / (1.0 + LOAD))


async def test_a_model_that_is_used_without_pause_makes_room_after_its_turn() -> None:
    settings = HostSettings(memory_budget=10, turn=1.0)
    async with hosted([model("a", slots=2), model("b")], Behaviour(0.2), settings=settings) as rig:
        requests = Requests(rig, takes=0.3)
        for number in range(100):
            requests.ask("a")
            if number == 30:
                requests.ask("b")
            await rig.spend(0.1)
            if "b" in requests.answered:
                break
        assert "b" in requests.answered, "a starves b"
        assert number < 30 + 20
        await requests.all_answered(60.0)


async def test_requests_of_one_model_are_collated_and_served_in_order() -> None:
    settings = HostSettings(memory_budget=10, turn=5.0)
    async with hosted([model("a"), model("b")], Behaviour(LOAD), settings=settings) as rig:
        requests = Requests(rig, takes=0.05)
        for name in "ababababab":
            requests.ask(name)
        await requests.all_answered(10.0)
        assert "".join(requests.answered) == "aaaaabbbbb"
        assert rig.host.memory().swaps == 1


async def test_a_model_that_loads_slowly_has_as_long_for_its_requests() -> None:
    settings = HostSettings(memory_budget=10, turn=0.5)
    async with hosted([model("a"), model("b")], Behaviour(5.0), settings=settings) as rig:
        requests = Requests(rig, takes=1.0)
        for name in "abababab":
            requests.ask(name)
            await rig.spend(0.1)
        await requests.all_answered(60.0)
        assert "".join(requests.answered) == "aaaabbbb"
        assert rig.host.memory().swaps == 1


async def test_who_began_to_wait_first_comes_first() -> None:
    settings = HostSettings(memory_budget=10, turn=1.0)
    async with hosted([model(name) for name in "abcd"], Behaviour(0.2), settings=settings) as rig:
        requests = Requests(rig, takes=0.1)
        for name in "adbcdbc":
            requests.ask(name)
            await rig.spend(0.01)
        await requests.all_answered(20.0)
        assert "".join(requests.answered) == "addbbcc"


async def test_the_least_recently_used_makes_room_and_no_more_of_them_than_needed() -> None:
    settings = HostSettings(memory_budget=10, turn=1.0)
    sizes = {"a": 2, "b": 4, "c": 4, "d": 4}
    async with hosted([model(*each) for each in sizes.items()], settings=settings) as rig:
        requests = Requests(rig, takes=0.0)
        for name in "abcad":
            requests.ask(name)
            await rig.spend(2.0)
        assert [each.state for each in rig.host.statuses()] == ["running", "stopped", "running", "running"]
        assert rig.host.status("b").reason == "makes room for d"
        assert rig.host.memory().swaps == 1


async def test_what_loads_or_serves_or_is_pinned_stays() -> None:
    settings = HostSettings(memory_budget=10, turn=0.0)
    async with hosted([model("a"), model("b")], Behaviour(1.0), settings=settings) as rig:
        requests = Requests(rig, takes=3.0)
        requests.ask("a")
        await rig.spend(0.5)
        requests.ask("b")
        await rig.spend(0.4)
        assert rig.state("a") == "starting"
        await rig.spend(3.0)
        assert (rig.state("a"), rig.state("b")) == ("running", "stopped")
        await rig.spend(0.2)
        assert rig.state("b") == "starting"
        await requests.all_answered(10.0)
        assert rig.launcher.starts == {"a": 1, "b": 1}


async def test_a_large_model_is_not_starved_by_small_ones() -> None:
    settings = HostSettings(memory_budget=10, turn=0.5)
    models = [model("large", 10), *(model(name, 4) for name in "abc")]
    async with hosted(models, Behaviour(0.1), settings=settings) as rig:
        requests = Requests(rig, takes=0.4)
        for number in range(100):
            requests.ask("abc"[number % 3])
            if number == 20:
                requests.ask("large")
            await rig.spend(0.1)
            if "large" in requests.answered:
                break
        assert "large" in requests.answered
        await requests.all_answered(60.0)


async def test_a_swap_that_has_begun_goes_on_though_its_caller_left() -> None:
    """Otherwise callers who come and go would stop models for nothing, and more often than the bound allows."""
    settings = HostSettings(memory_budget=10, turn=2.0)
    async with hosted([model("a"), model("b")], Behaviour(LOAD, stops_after=STOP), settings=settings) as rig:
        await rig.outcome(asyncio.ensure_future(rig.host.start("a")))
        requests = Requests(rig, takes=0.0)
        requests.ask("b")
        await rig.settle()
        assert rig.state("a") == "stopping"
        requests.tasks[0].cancel()
        await rig.spend(1.0)
        assert (rig.state("a"), rig.state("b")) == ("stopped", "running")
        assert rig.host.status("b").waiting == rig.host.status("b").serving == 0
