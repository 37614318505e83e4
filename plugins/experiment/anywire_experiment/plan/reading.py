"""A plan read from its file, with what the command line changes in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml

from anywire.config_layers import File
from anywire.errors import ConfigError
from anywire_experiment.plan.errors import describe
from anywire_experiment.plan.files import with_files, with_plugins
from anywire_experiment.plan.plan import Plan


def load_plan(path: str | Path, changes: Sequence[str] = ()) -> Plan:
    """Read a plan. ``changes`` are each ``key.with.dots=VALUE``, the value as YAML, in the place of what the file says.
    Raises `anywire.errors.ConfigError` naming the file, the key, and what would do."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"there is no plan {path}: give the YAML file of an experiment")
    source = File(path)
    for each in changes:
        set_key(source.tree, each)
    try:
        plan = Plan.model_validate(source.tree)
    except pydantic.ValidationError as error:
        raise ConfigError(describe(error, Plan, source)) from error
    placed = {name: with_files(name, each, plan.blocks, source, path.parent) for name, each in plan.workloads.items()}
    return plan.model_copy(update={"workloads": placed, "system": with_plugins(plan.system, source, path.parent)})


def set_key(tree: dict[str, Any], change: str) -> None:
    """Give a key in ``tree`` another value: ``key.with.dots=VALUE``, the value as YAML. Raises `ConfigError`."""
    key, equals, text = change.partition("=")
    *above, last = key.split(".")
    if not equals or not last:
        raise ConfigError(f"--set {change}: expected KEY=VALUE, such as blocks=20 or system.agent.slots=4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {change}: the value is not valid YAML: {error}") from error
    inside: Any = tree
    for part in above:
        inside = inside.setdefault(part, {})
        if not isinstance(inside, dict):
            raise ConfigError(f"--set {change}: the plan has no keys inside of {part!r}")
    inside[last] = value
