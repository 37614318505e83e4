"""A `ModelHost` over simulated servers, in time that passes only when a test says so; broken laws fail the test."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

from tests.models.simulated_servers import Behave, Behaviour, SimulatedDevices, SimulatedLauncher

from anywire.testing.clock import SimulatedClock
from anywire_engine_models.host.actor import ModelHost
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.server import Devices, Launcher
from anywire_engine_models.host.settings import HostSettings
from anywire_engine_models.host.status import TRANSITIONS, ModelChanged, ModelState, ModelStatus

TURNS = 60
"""Of the event loop, for everything that follows from one event."""


class HostRig:
    """``changes`` are all that the host has told. ``states`` are the states that each model was in, in order."""

    def __init__(
        self,
        behave: Behave | Behaviour | None = None,
        *,
        settings: HostSettings | None = None,
        launcher: Launcher | None = None,
        devices: Devices | None = None,
    ) -> None:
        settings = settings or HostSettings()
        self.clock = SimulatedClock()
        self.launcher = SimulatedLauncher(behave, budget=settings.memory_budget, clock=self.clock)
        self.host = ModelHost(launcher or self.launcher, devices or SimulatedDevices(), settings, clock=self.clock)
        self.changes: list[ModelChanged] = []
        self.states: defaultdict[str, list[ModelState]] = defaultdict(lambda: ["stopped"])
        self.faults: list[str] = []
        self.host.listen(self._changed)

    def _changed(self, change: ModelChanged) -> None:
        self.changes.append(change)
        states, state = self.states[change.status.model], change.status.state
        if change.previous != states[-1]:
            self.faults.append(f"{change.status.model} was {states[-1]} and not {change.previous}")
        if change.previous != state:
            if (change.previous, state) not in TRANSITIONS:
                self.faults.append(f"{change.status.model} went from {change.previous} to {state}")
            states.append(state)

    async def settle(self) -> None:
        """Let everything happen that needs no time."""
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def spend(self, seconds: float) -> None:
        """Let so much time pass; all that falls due meanwhile happens when it is due."""
        end = self.clock.now() + seconds
        await self.settle()
        while (due := self._due()) <= end:
            self.clock.advance(max(0.0, due - self.clock.now()))
            await self.settle()
        self.clock.advance(max(0.0, end - self.clock.now()))
        await self.settle()

    async def outcome(self, task: asyncio.Task[ModelStatus], most: float = 60.0) -> ModelStatus:
        """The result of a call to the host, for which up to ``most`` seconds pass."""
        end = self.clock.now() + most
        await self.settle()
        while not task.done() and (due := self._due()) <= end:
            self.clock.advance(max(0.0, due - self.clock.now()))
            await self.settle()
        assert task.done(), f"no answer after {most:g} s"
        return task.result()

    def _due(self) -> float:
        """When something happens next."""
        return min((due for due, _, timer, *_ in self.clock._due if not timer.cancelled), default=math.inf)

    def state(self, name: str) -> ModelState:
        return self.host.status(name).state


@contextlib.asynccontextmanager
async def hosted(
    models: Sequence[HostedModel],
    behave: Behave | Behaviour | None = None,
    *,
    settings: HostSettings | None = None,
    launcher: Launcher | None = None,
    devices: Devices | None = None,
) -> AsyncIterator[HostRig]:
    """A host with these models. At the end it is closed, and must not have broken a law."""
    rig = HostRig(behave, settings=settings, launcher=launcher, devices=devices)
    await rig.host.begin(models)
    await rig.settle()
    try:
        yield rig
    finally:
        closing = asyncio.ensure_future(rig.host.close())
        await rig.settle()
        if not closing.done():
            await rig.spend(60.0)
        assert closing.done(), "it does not close"
        closing.result()
    assert not rig.faults, rig.faults
    assert not rig.launcher.faults, rig.launcher.faults
