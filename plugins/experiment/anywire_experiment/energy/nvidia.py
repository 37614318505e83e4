"""NVIDIA's cards, by the library of their driver (nvidia-ml-py)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from anywire.printable import printable
from anywire_experiment.energy.source import Endless, Sampled, Source

_MOST_CARDS = 1000


def load_nvml() -> Any:
    """The module ``pynvml``, begun. Raises `ImportError`, or what the driver raises."""
    nvml = importlib.import_module("pynvml")
    nvml.nvmlInit()
    return nvml


def nvidia(load: Callable[[], Any] = load_nvml) -> tuple[list[Source], str]:
    """Every card, and why there is none. A card from Volta on counts its energy itself; of an older one the power is
    sampled."""
    try:
        nvml = load()
    except ImportError:
        return [], "NVML: nvidia-ml-py is not installed (`pip install anywire-experiment[gpu]`)"
    except Exception as error:
        return [], f"NVML: no NVIDIA driver ({printable(str(error), 200)})"
    found: list[Source] = []
    fault = ""
    try:
        count = min(int(nvml.nvmlDeviceGetCount()), _MOST_CARDS)
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    except Exception as error:
        return [], f"NVML: the driver fails ({printable(str(error), 200)})"
    for index, handle in enumerate(handles):
        try:
            found.append(_card(nvml, index, handle))
        except Exception as error:
            fault = f"NVML: card {index} tells neither energy nor power ({printable(str(error), 200)})"
    return found, "" if found else fault or "NVML: there is no card"


def _card(nvml: Any, index: int, handle: Any) -> Source:
    def energy() -> int:
        return int(_read(nvml.nvmlDeviceGetTotalEnergyConsumption, handle))

    def power() -> float:
        return float(_read(nvml.nvmlDeviceGetPowerUsage, handle)) / 1e3

    name = f"gpu {index}"
    try:
        energy()
    except OSError:
        power()
        return Sampled(name, power)
    return Endless(name, energy)


def _read(ask: Callable[[Any], Any], handle: Any) -> Any:
    """What the driver says; its own errors as OSError."""
    try:
        return ask(handle)
    except Exception as error:
        raise OSError(printable(str(error), 200)) from error
