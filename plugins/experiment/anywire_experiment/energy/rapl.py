"""Processors and their memory, by RAPL as the kernel's powercap tells it (Intel, and AMD from Zen on)."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from anywire_experiment.energy.source import Source, Wrapping

_ZONE = re.compile(r"intel-rapl:\d+(:\d+)?")
"""The zones of the memory-mapped interface (``intel-rapl-mmio``) are the same once more."""


def rapl(root: Path) -> tuple[list[Source], str]:
    """The packages and the memory beside them, and why there are none. ``root``: where ``sys`` is.

    A package has its cores and its own graphics in it, so these are not counted again. ``psys`` is left out: it would
    be all of it once more, and many machines leave it at 0.
    """
    folder = root / "sys/class/powercap"
    zones = sorted(path for path in folder.glob("intel-rapl:*") if _ZONE.fullmatch(path.name))
    if not zones:
        return [], "RAPL: the kernel shows no counters of energy (/sys/class/powercap)"
    names = {zone.name: _text(zone / "name") for zone in zones}
    found: list[Source] = []
    unreadable = ""
    for zone in zones:
        name = names[zone.name]
        if not (name.startswith("package") or name == "dram"):
            continue
        counter, most = zone / "energy_uj", int(_text(zone / "max_energy_range_uj") or 0)
        try:
            _count(counter)
        except PermissionError:
            unreadable = "RAPL: only root may read the counters of energy (/sys/class/powercap/*/energy_uj)"
            continue
        except (OSError, ValueError) as error:
            unreadable = f"RAPL: a counter of energy cannot be read: {error}"
            continue
        if most <= 0:
            unreadable = "RAPL: a counter does not tell when it wraps"
            continue
        of = names.get(zone.name.rpartition(":")[0], "") if name == "dram" else ""
        label = " ".join(filter(None, ("cpu", of, name)))
        found.append(Wrapping(label, partial(_count, counter), most))
    return found, "" if found else unreadable or "RAPL: the kernel shows no package"


def _count(counter: Path) -> int:
    return int(counter.read_text())


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
