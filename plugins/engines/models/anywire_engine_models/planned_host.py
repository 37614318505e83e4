"""A host whose models are started as their `LaunchPlan` says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from anywire.clock import Clock
from anywire.errors import AnywireError
from anywire_engine_models.config import ModelsConfig, budget_bytes
from anywire_engine_models.devices.cards import SIMULATED
from anywire_engine_models.devices.choice import CPU
from anywire_engine_models.devices.memory_limit import usable_memory
from anywire_engine_models.host.actor import ModelHost
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.server import Device, Devices, Exit, Launcher, Server, StartFailed, Watcher
from anywire_engine_models.host.settings import HostSettings
from anywire_engine_models.hosted_models import LaunchPlan
from anywire_engine_models.llama_cpp.cards import LlamaCards
from anywire_engine_models.named_start import start_named
from anywire_engine_models.processes.launcher import ProcessLauncher
from anywire_engine_models.running_models import RunningModels

NO_CARDS = "the llama.cpp that is installed can use no graphics card"


def planned_host(
    config: ModelsConfig,
    devices: Devices,
    cards: LlamaCards,
    running: RunningModels,
    launcher: Launcher | None,
    clock: Clock | None = None,
) -> ModelHost:
    """The host that ``config`` describes. ``running`` is told what each server was started with. ``launcher`` is that
    of processes unless a test gives another."""
    settings = HostSettings(
        memory_budget=budget_bytes(config.memory_budget, usable_memory()),
        turn=config.turn,
        max_waiting=config.max_waiting,
        log_lines=config.log_lines,
    )
    planned = PlannedLauncher(launcher or ProcessLauncher(), running)
    return ModelHost(planned, PlannedDevices(devices, cards), settings, clock=clock)


class PlannedDevices:
    """`Devices` that send no model to a card that its llama.cpp cannot use. ``inner`` knows the cards; simulated ones
    are taken for usable."""

    def __init__(self, inner: Devices, cards: LlamaCards) -> None:
        self._inner, self._cards = inner, cards

    async def choose(self, model: HostedModel, without: Sequence[str] = ()) -> Device:
        device = await self._inner.choose(model, without)
        plan: LaunchPlan = model.launch
        if device.name == CPU or device.name.endswith(SIMULATED) or plan.settings.command is not None:
            return device
        if await self._cards.are_usable(plan.server) is not False:
            return device
        await self._inner.choose(msgspec.structs.replace(model, device=CPU), without)  # the card is not taken
        return Device(CPU, f"{NO_CARDS} ({device.name} {device.reason})")


class PlannedLauncher:
    """A `Launcher` for models whose ``launch`` is a `LaunchPlan`; ``inner`` gets their commands, and ``running``
    is told of each that is ready."""

    def __init__(self, inner: Launcher, running: RunningModels) -> None:
        self._inner, self._running = inner, running

    async def launch(self, model: HostedModel, device: str, watcher: Watcher) -> Server:
        plan: LaunchPlan = model.launch
        try:
            command = await asyncio.to_thread(plan.command)
        except AnywireError as error:
            raise StartFailed(Exit(str(error))) from error
        named = msgspec.structs.replace(model, launch=command)
        server, weights = await start_named(self._inner, self._running.names, named, device, watcher)
        self._running.started(model, command.model_file, weights)
        return server
