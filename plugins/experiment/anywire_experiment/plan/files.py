"""The files that a plan names: found where the plan lies, before anything starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anywire.config_layers import File
from anywire.errors import ConfigError
from anywire_experiment.exercises.files import read_exercises
from anywire_experiment.plan.traces import check_traces, read_trace
from anywire_experiment.plan.workload import Trace, Workload


def plugin_files(system: Mapping[str, Any]) -> list[str]:
    """The files among the plugins that ``system`` loads."""
    named = system.get("plugins") or []
    return [each for each in named if isinstance(each, str) and each.endswith(".py")] if isinstance(named, list) else []


def with_plugins(system: dict[str, Any], source: File, folder: Path) -> dict[str, Any]:
    """With files of plugins as the working directory sees them; the plan's folder is where relative ones start."""
    files = plugin_files(system)
    if not files:
        return system
    for each in files:
        if not (folder / each).is_file():
            raise ConfigError(
                f"{source.origin(['system', 'plugins'])}: system.plugins: there is no file {each} (a relative path "
                "starts at the plan's folder)"
            )
    seen = [os.path.relpath(folder / each) if each in files else each for each in system["plugins"]]
    return system | {"plugins": seen}


def with_files(name: str, workload: Workload, blocks: int, source: File, folder: Path) -> Workload:
    """With the files that it names where they are found; they are read to see that they can be, a trace for each of its
    ``blocks``."""
    arrivals, exercises = workload.arrivals, workload.exercises
    if isinstance(arrivals, Trace):
        keys: list[int | str] = ["workloads", name, "arrivals"]
        found = _file(arrivals.file, [*keys, "file"], source, folder)
        further = [_file(each, [*keys, "further", at], source, folder) for at, each in enumerate(arrivals.further)]
        placed = arrivals.model_copy(update={"file": found, "further": tuple(further)})
        check_traces(placed, blocks)
        return workload.model_copy(update={"arrivals": placed})
    if workload.sizes is not None and workload.sizes.file is not None:
        found = _file(workload.sizes.file, ["workloads", name, "sizes", "file"], source, folder)
        read_trace(found)
        return workload.model_copy(update={"sizes": workload.sizes.model_copy(update={"file": found})})
    if exercises is not None and exercises.file is not None:
        found = _file(exercises.file, ["workloads", name, "exercises", "file"], source, folder)
        read_exercises(found)
        return workload.model_copy(update={"exercises": exercises.model_copy(update={"file": found})})
    return workload


def _file(file: Path, keys: list[int | str], source: File, folder: Path) -> Path:
    found = (folder / file).resolve()
    if not found.is_file():
        raise ConfigError(
            f"{source.origin(keys)}: {'.'.join(map(str, keys))}: there is no file {file} (a relative path starts at "
            "the plan's folder)"
        )
    return found
