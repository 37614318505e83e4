"""The configuration of an arm, as a file would hold it: what the plan says of all arms, and what levels change."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from anywire.config import Config, named
from anywire.errors import ConfigError

SHORT = {
    "transport": "transports",
    "selector": "selector",
    "scheduler": "scheduler",
    "engine": "engine",
    "launcher": "launcher",
}
SECTIONS = ("scheduler", "selector", "engine", "launcher")
SETTLED = ("server", "gateways", "join", "standby")
"""Keys that each cell settles for itself."""


def normalised(system: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A copy in which transports and sections have names and options. Raises `ConfigError`."""
    tree = deepcopy(dict(system))
    for key in SETTLED:
        if key in tree:
            raise ConfigError(f"{where}.{key}: the experiment settles this for each cell; leave it out")
    if isinstance(tree.get("agents"), list):
        raise ConfigError(f"{where}.agents: the agents of a plan are alike; say how many beside `system`: agents: 2")
    default = Config.model_fields["transports"].get_default(call_default_factory=True)
    tree["transports"] = _named(tree.get("transports", default), f"{where}.transports")
    for key in SECTIONS:
        if isinstance(tree.get(key), str):
            tree[key] = {"name": tree[key]}
        elif not isinstance(tree.get(key, {}), dict):
            raise ConfigError(f"{where}.{key}: expected a name, or a mapping with `name` and options")
    return tree


def choose(tree: dict[str, Any], key: str, value: Any, where: str) -> None:
    """A plugin by name; options the system has for one of that name are kept."""
    if key == "transports":
        known = tree[key]
        tree[key] = {name: {**known.get(name, {}), **given} for name, given in _named(value, where).items()}
        return
    section = {"name": value} if isinstance(value, str) else value
    if not isinstance(section, dict):
        raise ConfigError(f"{where}: a level is a name, or a mapping with `name` and options, found {value!r}")
    present = {"name": Config.model_fields[key].default.name, **tree.get(key, {})}
    if section.get("name", present["name"]) != present["name"]:
        shared = type(Config.model_fields[key].default).model_fields
        present = {name: option for name, option in present.items() if name in shared}
    tree[key] = present | section


def _named(value: Any, where: str) -> dict[str, dict[str, Any]]:
    try:
        return named(value)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def set_option(tree: dict[str, Any], factor: str, value: Any) -> None:
    """A level of a factor that is a key with dots. Raises `ConfigError`."""
    first, *rest = factor.split(".")
    if first not in Config.model_fields or first in SETTLED:
        usable = sorted({*SHORT, "system", "network", "fault", "request", *Config.model_fields} - {*SETTLED})
        raise ConfigError(
            f"factors.{factor}: no such key of the config; a factor begins with one of: {', '.join(usable)}"
        )
    if first == "transports" and (not rest or rest[0] not in tree["transports"]):
        raise ConfigError(
            f"factors.{factor}: an option of a transport that this arm does not use (it uses "
            f"{', '.join(tree['transports'])}); to choose transports, name the factor `transport`"
        )
    inside = tree
    for part in (first, *rest)[:-1]:
        inside = inside.setdefault(part, {})
        if not isinstance(inside, dict):
            raise ConfigError(f"factors.{factor}: {part!r} is a value in `system`, with no keys inside")
    inside[(first, *rest)[-1]] = value


def configure(tree: dict[str, Any], config: Mapping[str, Any], where: str) -> None:
    """Set what a level of ``system`` says over what all have."""
    for key, value in config.items():
        if key in SETTLED or key == "agents":
            raise ConfigError(f"{where}.{key}: the experiment settles this for each cell; leave it out")
        if key in SHORT.values():
            choose(tree, key, value, f"{where}.{key}")
        else:
            merge(tree, {key: deepcopy(value)})


def merge(tree: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Put ``more`` into ``tree``, mapping by mapping."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            merge(tree[key], value)
        else:
            tree[key] = value
