"""Servers of models that are only simulated, for tests of whatever starts, uses and stops them.

`SimulatedLauncher` is a `Launcher` whose servers start slowly, fail, crash, never become ready or hang in their stop,
as a `Behaviour` says. It writes down what there is, and each fault of whoever uses it (``faults``): a second process of
a model, more memory than the budget. Give it a `SimulatedClock` and no time passes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count

import msgspec

from anywire.clock import Clock, SystemClock
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.server import Device, Exit, StartFailed, Watcher


class Behaviour(msgspec.Struct, frozen=True):
    """How one start of a model goes, and what becomes of it; times are in seconds.

    It is ready after ``ready_after`` (None: never), or ``fails`` then for that reason (``elsewhere``: it may start on
    another device). It crashes ``crashes_after`` it was ready. ``stops_after`` is how long its stop takes (None: for
    ever), ``cancels_after`` how long it takes to end a start that is cancelled. It writes ``lines``.
    """

    ready_after: float | None = 0.0
    fails: str = ""
    elsewhere: bool = False
    crashes_after: float | None = None
    stops_after: float | None = 0.0
    cancels_after: float = 0.0
    lines: tuple[str, ...] = ()


Behave = Callable[[HostedModel, str, int], Behaviour]
"""How a model's start on a device goes; the number counts that model's starts from 1."""


async def pass_time(clock: Clock, seconds: float) -> None:
    """Sleep by ``clock``; may be cancelled."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end() -> None:
        if not done.done():
            done.set_result(None)

    timer = clock.call_later(seconds, end)
    try:
        await done
    finally:
        timer.cancel()


class SimulatedServer:
    """A `Server`. `crash` ends it as if somebody had killed it."""

    def __init__(self, launcher: SimulatedLauncher, model: HostedModel, behaviour: Behaviour, pid: int, device: str):
        self._launcher, self.model, self._behaviour = launcher, model, behaviour
        self.pid, self.device = pid, device
        self.address, self.key = f"http://127.0.0.1:{pid}", f"key-{pid}"
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.stops = 0
        """How often `stop` was called."""

    def crash(self, how: Exit | None = None) -> None:
        self.end(how or Exit("killed by SIGKILL", signal="SIGKILL", lines=self._behaviour.lines))

    def end(self, how: Exit) -> None:
        if not self.exited.done():
            self._launcher.gone(self.model)
            self.exited.set_result(how)

    async def stop(self) -> None:
        self.stops += 1
        if self.exited.done():
            return
        takes = self._behaviour.stops_after
        if takes is None:
            await asyncio.wait({self.exited})
        elif takes:
            await pass_time(self._launcher.clock, takes)
        self.end(Exit("ended by SIGTERM", signal="SIGTERM"))


class SimulatedLauncher:
    """A `Launcher` whose starts go as ``behave`` says, or all as one `Behaviour`. ``budget`` is in bytes (0: none)."""

    def __init__(
        self, behave: Behave | Behaviour | None = None, *, budget: int = 0, clock: Clock | None = None
    ) -> None:
        behaviour = behave if isinstance(behave, Behaviour) else Behaviour()
        self.behave: Behave = behave if callable(behave) else lambda model, device, number: behaviour
        self.budget, self.clock = budget, clock or SystemClock()
        self.faults: list[str] = []
        self.processes: dict[str, HostedModel] = {}
        """The models that have a process now."""
        self.servers: dict[str, SimulatedServer] = {}
        """The newest that became ready of each model."""
        self.starts: Counter[str] = Counter()
        self.launches: list[tuple[str, str]] = []
        """Models and devices, in order."""
        self._pids = count(40_000)

    @property
    def used(self) -> int:
        """Bytes of the models that have a process."""
        return sum(model.memory_bytes for model in self.processes.values())

    async def launch(self, model: HostedModel, device: str, watcher: Watcher) -> SimulatedServer:
        self.starts[model.name] += 1
        self.launches.append((model.name, device))
        behaviour, pid = self.behave(model, device, self.starts[model.name]), next(self._pids)
        self._spawn(model)
        watcher.spawned(pid)
        for line in behaviour.lines:
            watcher.line(line)
        try:
            if behaviour.ready_after is None:
                await asyncio.get_running_loop().create_future()
            elif behaviour.ready_after:
                await pass_time(self.clock, behaviour.ready_after / 2)
                watcher.progress(0.5)
                await pass_time(self.clock, behaviour.ready_after / 2)
        except asyncio.CancelledError:
            try:
                if behaviour.cancels_after:
                    await pass_time(self.clock, behaviour.cancels_after)
            finally:
                self.gone(model)
            raise
        if behaviour.fails:
            self.gone(model)
            raise StartFailed(Exit(behaviour.fails, code=1, lines=behaviour.lines), elsewhere=behaviour.elsewhere)
        server = self.servers[model.name] = SimulatedServer(self, model, behaviour, pid, device)
        if behaviour.crashes_after is not None:
            self.clock.call_later(behaviour.crashes_after, server.crash)
        return server

    def gone(self, model: HostedModel) -> None:
        """A process of that model has ended."""
        del self.processes[model.name]

    def _spawn(self, model: HostedModel) -> None:
        if model.name in self.processes:
            self.faults.append(f"a second process of {model.name}")
        self.processes[model.name] = model
        if self.budget and self.used > self.budget:
            self.faults.append(f"{self.used} of {self.budget} bytes are in use: {sorted(self.processes)}")


class SimulatedDevices:
    """`Devices` that are tried in this order: each model goes to the first one that is not left out."""

    def __init__(self, names: Sequence[str] = ("cpu",)) -> None:
        self.names = tuple(names)

    async def choose(self, model: HostedModel, without: Sequence[str] = ()) -> Device:
        name = next((name for name in self.names if name not in without), "cpu")
        return Device(name, f"simulated: {len(self.names)} devices")
