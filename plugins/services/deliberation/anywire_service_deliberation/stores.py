"""Finding the store of deliberations by its name: SQLite, or one that a package brings."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pydantic

from anywire.errors import ConfigError, PluginError
from anywire.near import nearest
from anywire.plugins import describe_validation
from anywire.secrecy import keep_secrets, shown
from anywire_service_deliberation.database import Database
from anywire_service_deliberation.store import Place, Store

GROUP = "anywire.deliberation_stores"
BUILT_IN: dict[str, type[Store]] = {"sqlite": Database}
PACKAGES = {"nats": "anywire-service-nats"}
"""The distributions of this project that bring a store."""


def make_store(name: str, options: Mapping[str, Any], place: Place, section: str) -> Store:
    """The store of that name with these options, which stand in ``section`` of the configuration. Raises
    `ConfigError` for options that do not fit, and `PluginError` for everything else."""
    cls = store_class(name)
    try:
        config = cls.Config(**options)
    except pydantic.ValidationError as error:
        # Without its cause: pydantic's words repeat what was given.
        raise ConfigError(describe_validation(error, cls.Config, section)) from None
    keep_secrets(config)
    try:
        return cls.make(config, place)
    except (ConfigError, PluginError):
        raise
    except Exception as error:
        raise PluginError(f"the store {name!r} cannot be made: {type(error).__name__}: {error}") from error


def store_class(name: str) -> type[Store]:
    """Raises `PluginError`, which names the package that brings it."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        if name in PACKAGES:
            raise PluginError(f"no store of deliberations named {name!r} is installed: pip install {PACKAGES[name]}")
        known = sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})
        near = nearest(name, known)
        hint = f"did you mean {near!r}? " if near else ""
        raise PluginError(f"no store of deliberations named {shown(name)}: {hint}known: {', '.join(known)}")
    if len(packages := {_distribution(point) for point in found}) > 1:
        raise PluginError(f"the store {name!r} comes from {' and from '.join(sorted(packages))}: uninstall one of them")
    (point, *_) = found
    try:
        cls = point.load()
    except Exception as error:
        raise PluginError(f"the store {name!r} ({_distribution(point)}) does not load: {error}") from error
    if not isinstance(cls, type) or not issubclass(cls, Store):
        raise PluginError(
            f"the store {name!r} ({_distribution(point)}) is no Store, which its contract asks for: {cls!r}"
        )
    return cls


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
