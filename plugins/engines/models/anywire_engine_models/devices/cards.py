"""A graphics card as it was read, and what reads cards."""

from __future__ import annotations

from typing import Protocol

import msgspec

SIMULATED = "-simulated"


class Card(msgspec.Struct, frozen=True, omit_defaults=True):
    """``device`` is its name here, ``gpu:0``, with the number that nvidia-smi shows; AMD's come after NVIDIA's.
    ``name`` is what its maker calls it. ``gpu_percent`` is how busy its processor is, 0 to 100; None where the driver
    does not say, as for ``temperature_celsius``. ``simulated``: it is not there, and its
    device says so too, ``gpu:0-simulated``."""

    device: str
    name: str
    vram_total_bytes: int
    vram_free_bytes: int
    gpu_percent: float | None = None
    temperature_celsius: float | None = None
    simulated: bool = False


class CardSource(Protocol):
    """Reads cards of one maker. It is called on a thread, once at a time."""

    def read(self, first: int) -> tuple[list[Card], str]:
        """The cards, whose numbers begin with ``first``, and why there are none or some are left out (empty where
        nothing is to be said). May block; raises nothing that is expected."""
        ...

    def close(self) -> None: ...


def number_of(device: str) -> int:
    """The number of a ``gpu:N``, simulated or not."""
    return int(device.removeprefix("gpu:").removesuffix(SIMULATED))
