"""The graphics cards of this machine: chosen for models, listed, measured."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from anywire.clock import Clock, SystemClock
from anywire_engine_models.devices.amd import AmdCards
from anywire_engine_models.devices.cards import Card, CardSource
from anywire_engine_models.devices.choice import CPU, choose
from anywire_engine_models.devices.nvidia import NvidiaCards
from anywire_engine_models.devices.reading import CardReader, Cards
from anywire_engine_models.devices.settings import Config, DeviceSettings, settings_of
from anywire_engine_models.devices.simulated import SimulatedCards
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.server import Device
from anywire_engine_models.host.status import Listener, ModelChanged

log = logging.getLogger(__name__)

EVERY, EVERY_WITHOUT = 1.0, 60.0
"""Seconds after which cards are read again for gauges and lists; where none was found, the second."""


class _Host(Protocol):
    def listen(self, listener: Listener) -> Callable[[], None]: ...


class _Promise(msgspec.Struct, frozen=True):
    device: str
    memory_bytes: int
    until: float


class MachineDevices:
    """Implements `anywire_engine_models.host.server.Devices` by the cards that ``sources`` read.

    Use it on one event loop: `begin`, then the rest, then `close`. With `follow` it knows which models are on their way
    to a card, so that two that start at the same time are not both promised the same memory.
    """

    def __init__(
        self, sources: Sequence[CardSource], settings: DeviceSettings | None = None, *, clock: Clock | None = None
    ) -> None:
        self._settings = settings or DeviceSettings()
        self._reader = CardReader(sources, self._settings.timeout)
        self._clock: Clock = clock or SystemClock()
        self._last = Cards()
        self._due = 0.0
        self._refreshing: asyncio.Task[None] | None = None
        self._following: list[Callable[[], None]] = []
        self._promises: dict[str, _Promise] = {}

    @property
    def fault(self) -> str:
        """Why cards are missing, by the newest reading; empty where nothing is to be said."""
        return self._last.fault

    async def begin(self) -> None:
        """Read the cards once. Raises nothing."""
        await self._read()
        if self._last.cards:
            log.info("graphics cards: %s", ", ".join(f"{card.device} ({card.name})" for card in self._last.cards))

    async def close(self) -> None:
        """Idempotent."""
        while self._following:
            self._following.pop()()
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        await self._reader.close()

    def follow(self, host: _Host) -> None:
        """Learn from ``host`` when a model that was sent to a card has taken its memory there, or has not."""
        self._following.append(host.listen(self._model_changed))

    async def choose(self, model: HostedModel, without: Sequence[str] = ()) -> Device:
        """See `anywire_engine_models.host.server.Devices`. It reads the cards, unless the model may not go there."""
        self._promises.pop(model.name, None)
        cards = Cards() if model.device == CPU else await self._read()
        device = choose(
            cards.cards,
            model.memory_bytes,
            wish=model.device,
            reserve=self._settings.reserve,
            promised=self._promised(),
            without=without,
            fault=cards.fault,
        )
        if device.name != CPU and self._following:
            until = self._clock.now() + model.start_timeout
            self._promises[model.name] = _Promise(device.name, model.memory_bytes, until)
        return device

    def list(self) -> tuple[Card, ...]:
        """The cards as they were read last, which is a second ago at the most while this or `gauges` is called."""
        self._refresh()
        promised = self._promised()
        return tuple(
            msgspec.structs.replace(card, vram_free_bytes=max(0, card.vram_free_bytes - promised.get(card.device, 0)))
            if card.simulated
            else card
            for card in self._last.cards
        )

    def gauges(self) -> dict[str, float]:
        """Gauges of `anywire.messages.GAUGES` of the card with most free memory; empty without one. A simulated card
        says so by ``gpu_simulated`` 1."""
        cards = self.list()
        if not cards:
            return {}
        card = max(cards, key=lambda each: each.vram_free_bytes)
        total, free = card.vram_total_bytes, card.vram_free_bytes
        gauges = {
            "vram_free_bytes": float(free),
            "vram_total_bytes": float(total),
            "vram_used_percent": round(100 * (1 - free / total), 1) if total else 0.0,
        }
        if card.gpu_percent is not None:
            gauges["gpu_percent"] = card.gpu_percent
        if card.temperature_celsius is not None:
            gauges["temperature_celsius"] = card.temperature_celsius
        if card.simulated:
            gauges["gpu_simulated"] = 1.0
        return gauges

    def _model_changed(self, change: ModelChanged) -> None:
        """A promise ends when the driver counts the memory itself, or nothing is there. No driver counts that of a
        simulated card: it is promised until the model's end."""
        promise = self._promises.get(change.status.model)
        state = change.status.state
        if promise is None or state in ("starting", "stopping"):
            return
        if state != "running" or not self._is_simulated(promise.device):
            del self._promises[change.status.model]

    def _promised(self) -> dict[str, int]:
        """Bytes by card. A model that has not ended its start in time has no claim any more."""
        now = self._clock.now()
        promised: dict[str, int] = {}
        for promise in self._promises.values():
            if promise.until > now or self._is_simulated(promise.device):
                promised[promise.device] = promised.get(promise.device, 0) + promise.memory_bytes
        return promised

    def _is_simulated(self, device: str) -> bool:
        return any(card.simulated for card in self._last.cards if card.device == device)

    async def _read(self) -> Cards:
        self._last = await self._reader.read()
        soon = self._last.cards or self._last.late
        self._due = self._clock.now() + (EVERY if soon else EVERY_WITHOUT)
        return self._last

    def _refresh(self) -> None:
        if self._clock.now() >= self._due and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = asyncio.ensure_future(self._reread())

    async def _reread(self) -> None:
        await self._read()


def devices_of(config: Config) -> MachineDevices:
    """The cards of this machine, or those that ``config`` tells to simulate."""
    settings = settings_of(config)
    sources: list[CardSource] = [NvidiaCards(), AmdCards()]
    if settings.simulated:
        sources = [SimulatedCards(settings.simulated)]
    return MachineDevices(sources, settings)
