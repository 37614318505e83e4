"""Lives that take turns in an election, whoever is killed, paused, stopped or cannot let clients in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.config import Config
from anywire.errors import ConfigError, TransportUnavailable
from anywire.identity import hub_info
from anywire.messages import HubInfo
from anywire.plugins import Plugins
from anywire.roles.assembly import make_elects
from anywire.roles.standby import LONGEST_PAUSE, Standby
from anywire.testing.clock import SimulatedClock
from anywire.transport import Candidacy, CandidateSink

GRACE = 7.0


class _Candidacy(Candidacy):
    def __init__(self, office: Office, hub: HubInfo, strength: int, sink: CandidateSink) -> None:
        self.office, self.hub, self.strength, self.sink = office, hub, strength, sink

    async def close(self) -> None:
        self.office.leave(self)


class Office:
    """An election of one process: who stands is elected at once when nobody is active."""

    def __init__(self) -> None:
        self.standing: list[_Candidacy] = []
        self.active: _Candidacy | None = None
        self.refuses: TransportUnavailable | None = None

    async def stand(self, hub: HubInfo, strength: int, sink: CandidateSink) -> Candidacy:
        if self.refuses is not None:
            raise self.refuses
        candidacy = _Candidacy(self, hub, strength, sink)
        self.standing.append(candidacy)
        if self.active is not None:
            sink.active_seen(self.active.hub)
        self.elect()
        return candidacy

    def elect(self) -> None:
        if self.active is None and self.standing:
            self.active = max(self.standing, key=lambda each: each.strength)
            self.active.sink.elected()

    def leave(self, candidacy: _Candidacy) -> None:
        if candidacy in self.standing:
            self.standing.remove(candidacy)
        if self.active is candidacy:
            self.active = None
            self.elect()

    def replace(self) -> None:
        """The active one was away for too long: another one is active, if there is one, and it is told so."""
        old = self.active
        if old is not None and len(self.standing) > 1:
            self.standing.remove(old)
            self.active = None
            self.elect()
            old.sink.deposed("another one is active in its place")


class Life:
    """Notes what is done with it; ``gates`` is whoever lets clients in now, of all lives."""

    def __init__(self, gates: list[Life], fault: ConfigError | None = None) -> None:
        self.info = hub_info()
        self.gates, self.fault = gates, fault
        self.started = self.closed = False
        self.grace = -1.0

    async def start(self) -> None:
        self.started = True

    async def admit(self) -> None:
        assert self.started
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        self.gates.append(self)

    async def close(self, grace: float, candidacy: Candidacy | None) -> None:
        assert not self.closed
        self.closed, self.grace = True, grace
        if self in self.gates:
            self.gates.remove(self)
        if candidacy is not None:
            await candidacy.close()


class Process:
    """One `Standby`, running; ``faults`` are what its next lives meet when they let clients in."""

    def __init__(self, office: Office, gates: list[Life], clock: SimulatedClock, strength: int = 0) -> None:
        self.lives: list[Life] = []
        self.faults: list[ConfigError] = []
        self.gates = gates
        self.standby = Standby(office, self.make, strength=strength, grace=GRACE, lease=1.0, clock=clock)
        self.running = asyncio.create_task(self.standby.run())

    def make(self) -> Life:
        self.lives.append(Life(self.gates, self.faults.pop(0) if self.faults else None))
        return self.lives[-1]

    async def stop(self) -> None:
        self.running.cancel()
        await asyncio.wait([self.running])


class Fleet:
    def __init__(self) -> None:
        self.office, self.gates, self.clock = Office(), list[Life](), SimulatedClock()
        self.processes: list[Process] = []

    async def add(self, strength: int = 0) -> Process:
        self.processes.append(Process(self.office, self.gates, self.clock, strength))
        await settle()
        return self.processes[-1]

    def admitting(self) -> Process:
        """Whose life lets clients in; just one must."""
        (life,) = self.gates
        (process,) = (each for each in self.processes if life in each.lives)
        return process


@asynccontextmanager
async def fleet() -> AsyncIterator[Fleet]:
    made = Fleet()
    try:
        yield made
    finally:
        for process in made.processes:
            await process.stop()


async def settle() -> None:
    """Until nothing moves by itself any more: everything here is done in a few turns of the loop."""
    for _ in range(30):
        await asyncio.sleep(0)


async def test_only_the_elected_lets_clients_in_and_the_strongest_follows() -> None:
    async with fleet() as group:
        first, weak, strong = [await group.add(strength) for strength in (0, 1, 2)]
        assert group.admitting() is first
        assert all(each.lives[0].started for each in (weak, strong))
        await first.stop()
        assert first.lives[0].grace == GRACE
        await settle()
        assert group.admitting() is strong
        await weak.stop()
        assert weak.lives[0].grace == 0
        assert group.admitting() is strong


async def test_the_deposed_ends_its_tasks_at_once_and_stands_by_anew() -> None:
    async with fleet() as group:
        first, second = await group.add(), await group.add()
        group.office.replace()
        await settle()
        assert group.admitting() is second
        old, new = first.lives
        assert (old.closed, old.grace) == (True, 0)
        assert new.started
        assert new.info.hub_id != old.info.hub_id
        await second.stop()
        await settle()
        assert group.gates == [new]


async def test_one_that_cannot_let_clients_in_leaves_it_to_the_next(caplog: pytest.LogCaptureFixture) -> None:
    async with fleet() as group:
        group.processes.append(broken := Process(group.office, group.gates, group.clock, strength=5))
        broken.faults = [ConfigError("port 8080 is in use")] * 2
        healthy = await group.add()
        assert group.admitting() is healthy
        assert "port 8080 is in use" in caplog.text
        assert broken.lives[0].closed
        assert broken.lives[0].grace == 0
        assert len(broken.lives) == 1
        group.clock.advance(1)
        await settle()
        # It stands by again, and when it is its turn and it still cannot, waits for longer.
        assert len(broken.lives) == 2
        await healthy.stop()
        await settle()
        assert group.gates == []
        group.clock.advance(1.9)
        await settle()
        assert len(broken.lives) == 2
        group.clock.advance(0.1)
        await settle()
        assert group.admitting() is broken


async def test_what_cannot_stand_ends_with_its_reason() -> None:
    async with fleet() as group:
        group.office.refuses = TransportUnavailable("no network")
        process = await group.add()
        with pytest.raises(TransportUnavailable, match="no network"):
            await process.running
        assert process.lives[0].closed


@settings(max_examples=examples(60))
@given(st.lists(st.tuples(st.sampled_from(["add", "stop", "replace", "fail", "wait"]), st.integers(0, 4)), max_size=25))
def test_one_lets_clients_in_whatever_happens(steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        async with fleet() as group:
            actions: dict[str, Callable[[int], Awaitable[object]]] = {
                "add": group.add,
                "stop": lambda number: stop(group, number),
                "replace": lambda _: replace(group),
                "fail": lambda number: fail(group, number),
                "wait": lambda seconds: wait(group, seconds),
            }
            for action, number in steps:
                await actions[action](number)
                await settle()
                alive = [each for each in group.processes if not each.running.done()]
                assert len(group.gates) <= 1
                assert all(sum(not life.closed for life in each.lives) <= 1 for each in alive)
            # Nobody is away for longer than the longest pause, so someone is there after it.
            for process in group.processes:
                process.faults.clear()
            await wait(group, LONGEST_PAUSE)
            assert len(group.gates) == bool([each for each in group.processes if not each.running.done()])
        assert all(life.closed for each in group.processes for life in each.lives)

    asyncio.run(run())


async def stop(group: Fleet, number: int) -> None:
    if number < len(group.processes):
        await group.processes[number].stop()


async def replace(group: Fleet) -> None:
    group.office.replace()


async def fail(group: Fleet, number: int) -> None:
    if number < len(group.processes):
        group.processes[number].faults.append(ConfigError("port in use"))


async def wait(group: Fleet, seconds: float) -> None:
    group.clock.advance(seconds)
    await settle()


def test_a_transport_that_elects_is_needed() -> None:
    config = Config(transports="memory", standby={"enabled": True})
    with pytest.raises(ConfigError, match="memory cannot"):
        make_elects(config, Plugins())
