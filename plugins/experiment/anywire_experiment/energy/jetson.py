"""Jetson boards, by the power monitors on their supply rails (INA3221)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from anywire_experiment.energy.source import Sampled, Source

_DRIVERS = "sys/bus/i2c/drivers"
WHOLE = ("VDD_IN", "POM_5V_IN", "VDD_5V_IN")
"""Rails that feed the whole board: beside one of them the others would be counted twice."""


def jetson(root: Path) -> tuple[list[Source], str]:
    """The rails whose sum is what the board takes, and why there are none. ``root``: where ``sys`` is."""
    rails: dict[str, Callable[[], float]] = {}
    unreadable = ""
    for name, read in _rails(root):
        try:
            read()
        except (OSError, ValueError) as error:
            unreadable = f"Jetson: the rail {name} cannot be read: {error}"
        else:
            rails.setdefault(name, read)
    whole = [name for name in WHOLE if name in rails]
    kept = whole[:1] or sorted(rails)
    found: list[Source] = [Sampled(f"rail {name}", rails[name]) for name in kept]
    return found, "" if found else unreadable or "Jetson: there is no monitor of supply rails (ina3221)"


def _rails(root: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    for label in sorted(root.glob(f"{_DRIVERS}/ina3221*/*/hwmon/hwmon*/in*_label")):
        number = label.name.removeprefix("in").removesuffix("_label")
        name = _name(label)
        current = label.parent / f"curr{number}_input"
        if name and not name.lower().startswith("sum") and current.exists():
            yield name, partial(_watts, label.parent / f"in{number}_input", current)
    for label in sorted(root.glob(f"{_DRIVERS}/ina3221*/*/iio:device*/rail_name_*")):
        number = label.name.removeprefix("rail_name_")
        if name := _name(label):
            yield name, partial(_milliwatts, label.parent / f"in_power{number}_input")


def _watts(millivolts: Path, milliamperes: Path) -> float:
    return int(millivolts.read_text()) * int(milliamperes.read_text()) / 1e6


def _milliwatts(power: Path) -> float:
    return int(power.read_text()) / 1e3


def _name(label: Path) -> str:
    try:
        return label.read_text().strip()
    except OSError:
        return ""
