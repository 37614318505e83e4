"""Which cores the load generator and the system of a cell run on."""

from __future__ import annotations

import os
import sys

from anywire.errors import ConfigError
from anywire_experiment.plan.plan import Plan


def placement(plan: Plan) -> dict[str, list[int]]:
    """The cores of the load generator and of the system, none for any. Raises `ConfigError`."""
    usable = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    cut = len(usable) - max(1, len(usable) // 4)
    automatic = {"load": usable[cut:], "system": usable[:cut]} if len(usable) > 1 else {"load": [], "system": []}
    placed = {}
    for name, wanted in (("load", plan.cpus.load), ("system", plan.cpus.system)):
        if isinstance(wanted, list) and not set(wanted).issubset(usable):
            raise ConfigError(f"cpus.{name}: {wanted} are not all cores that may be used here; those are {usable}")
        placed[name] = wanted if isinstance(wanted, list) else automatic[name] if wanted == "auto" else []
    return placed
