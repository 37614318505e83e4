"""What devices are told of the engine's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

FLOOR = 500_000_000


class SimulatedCard(msgspec.Struct, frozen=True):
    """A card that is not there, to see what a machine with one would do. ``vram_free`` are the bytes that are free
    while no model is there."""

    vram_total: int
    vram_free: int


class DeviceSettings(msgspec.Struct, frozen=True):
    """``reserve`` are bytes of a card that stay free when a model is put there. Reading the cards may take ``timeout``
    seconds; models start on the CPU then. ``simulated`` cards take the place of the real ones."""

    reserve: int = FLOOR
    timeout: float = 5.0
    simulated: tuple[SimulatedCard, ...] = ()


class _Simulated(Protocol):
    @property
    def vram_total(self) -> int: ...

    @property
    def vram_free(self) -> int: ...


class _Devices(Protocol):
    @property
    def reserve(self) -> int: ...

    @property
    def simulated(self) -> Sequence[_Simulated]: ...


class Config(Protocol):
    """A configuration with the section ``devices``."""

    @property
    def devices(self) -> _Devices: ...


def settings_of(config: Config) -> DeviceSettings:
    section = config.devices
    cards = tuple(SimulatedCard(each.vram_total, min(each.vram_free, each.vram_total)) for each in section.simulated)
    return DeviceSettings(reserve=section.reserve, simulated=cards)
