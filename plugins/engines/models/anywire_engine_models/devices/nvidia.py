"""Cards of NVIDIA, through the library of its driver (nvidia-ml-py)."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from anywire.printable import printable
from anywire_engine_models.devices.cards import Card

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_TEMPERATURE_GPU = 0
_MAX_CARDS = 1000


class NvidiaCards:
    """Where CUDA_VISIBLE_DEVICES is set, only the cards that it names: a server sees no others. ``load`` returns the
    module ``pynvml``, or raises `ImportError`."""

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        load: Callable[[], Any] = lambda: importlib.import_module("pynvml"),
    ) -> None:
        self._environment = os.environ if environment is None else environment
        self._load = load
        self._begun: Any = None

    def read(self, first: int) -> tuple[list[Card], str]:
        """See `CardSource`. The numbers are those of nvidia-smi, whatever ``first`` is."""
        try:
            nvml = self._library()
        except ImportError:
            return [], "NVIDIA's cards are not looked for: nvidia-ml-py is not installed"
        except Exception as error:
            return [], f"no NVIDIA driver ({printable(str(error), 200)})"
        try:
            count = min(int(nvml.nvmlDeviceGetCount()), _MAX_CARDS)
        except Exception as error:
            self.close()  # the driver may have been loaded anew: the next reading begins again
            return [], f"the NVIDIA driver fails ({printable(str(error), 200)})"
        cards: list[Card] = []
        faults = []
        for index in range(count):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                if self._visible(index, _text(nvml.nvmlDeviceGetUUID(handle)), count):
                    cards.append(_card(nvml, index, handle))
            except Exception as error:
                faults.append(f"gpu:{index} is left out ({printable(str(error), 200)})")
        if count and not cards and not faults:
            faults.append(f"{_VISIBLE} names none of {count} NVIDIA cards")
        return cards, "; ".join(faults)

    def close(self) -> None:
        nvml, self._begun = self._begun, None
        if nvml is not None:
            with contextlib.suppress(Exception):
                nvml.nvmlShutdown()

    def _library(self) -> Any:
        if self._begun is None:
            nvml = self._load()
            nvml.nvmlInit()
            self._begun = nvml
        return self._begun

    def _visible(self, index: int, uuid: str, count: int) -> bool:
        """As CUDA understands it: what follows a name that is none counts no more."""
        said = self._environment.get(_VISIBLE)
        if said is None:
            return True
        for name in map(str.strip, said.split(",")):
            if name.isascii() and name.isdigit() and int(name) < count:
                if int(name) == index:
                    return True
            elif name.startswith("GPU-"):
                if uuid.startswith(name):
                    return True
            else:
                return False
        return False


def _card(nvml: Any, index: int, handle: Any) -> Card:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    total = int(memory.total)
    busy, heat = None, None  # not every card tells
    with contextlib.suppress(Exception):
        busy = float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    with contextlib.suppress(Exception):
        heat = float(nvml.nvmlDeviceGetTemperature(handle, _TEMPERATURE_GPU))
    return Card(
        device=f"gpu:{index}",
        name=printable(_text(nvml.nvmlDeviceGetName(handle)), 100),
        vram_total_bytes=total,
        vram_free_bytes=max(0, min(int(memory.free), total)),
        gpu_percent=busy,
        temperature_celsius=heat,
    )


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
