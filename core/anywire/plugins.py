"""Finding and loading plugins: by entry point or from a file, by name, and never one that was not asked for.

Entry point groups are ``anywire.transports``, ``anywire.schedulers``, ``anywire.selectors``, ``anywire.engines``,
``anywire.gateways`` (a class each) and ``anywire.hooks`` (a module or object with hook implementations, always loaded).
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pluggy
import pydantic

from anywire import hookspecs
from anywire.errors import ConfigError, PluginError
from anywire.hook_guard import guard_implementations
from anywire.pipeline.boundary import Boundary

PluginKind = Literal["transports", "schedulers", "selectors", "engines", "gateways"]
KINDS: tuple[PluginKind, ...] = ("transports", "schedulers", "selectors", "engines", "gateways")

log = logging.getLogger(__name__)


def describe_validation(error: pydantic.ValidationError, model: type[pydantic.BaseModel], where: str) -> str:
    """A validation error as one sentence per fault; an unknown key names the nearest valid one."""
    sentences = []
    for fault in error.errors():
        path = ".".join(str(part) for part in (*([where] if where else []), *fault["loc"]))
        if fault["type"] == "extra_forbidden":
            known = _fields_at(model, fault["loc"][:-1])
            near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0.0)
            hint = f"did you mean {near[0]!r}? " if near else ""
            sentences.append(f"unknown key {path!r}: {hint}known keys: {', '.join(sorted(known)) or 'none'}")
        else:
            sentences.append(f"{path}: {fault['msg'].removeprefix('Value error, ')} (got {fault['input']!r})")
    return "; ".join(sentences)


def _fields_at(model: type[pydantic.BaseModel], loc: Sequence[int | str]) -> list[str]:
    for part in loc:
        field = model.model_fields.get(str(part))
        if (
            field is None
            or not isinstance(field.annotation, type)
            or not issubclass(field.annotation, pydantic.BaseModel)
        ):
            break
        model = field.annotation
    return list(model.model_fields)


class Plugins:
    """The plugins of this process. Listing reads package metadata only; `load` imports the one named.

    ``boundary`` counts what plugins do wrong. ``broken`` names the ``anywire.hooks`` packages that do not load, with
    the reason; they are skipped.
    """

    def __init__(self) -> None:
        self.boundary = Boundary()
        self.broken: dict[str, str] = {}
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        installed = entry_points()
        self._entry_points: dict[PluginKind, dict[str, EntryPoint]] = {
            kind: {point.name: point for point in installed.select(group=f"anywire.{kind}")} for kind in KINDS
        }
        self._registered: dict[PluginKind, dict[str, type]] | None = None
        for point in installed.select(group="anywire.hooks"):
            self._add_hooks(point)

    def add(self, source: str) -> None:
        """Load hook implementations from a ``.py`` file or a module name. Raises `PluginError`."""
        try:
            module = _module_from_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
        except Exception as error:
            raise PluginError(f"plugin {source!r} does not load: {error}") from error
        if not self.manager.is_registered(module):
            try:
                self.manager.register(module)
            except pluggy.PluginValidationError as error:
                raise PluginError(f"plugin {source!r} does not load: {error}") from error
            self.guard()
            self._registered = None

    def names(self, kind: PluginKind) -> list[str]:
        """Every known name of a kind, sorted, without importing any."""
        return sorted({*self._entry_points[kind], *self._from_hooks()[kind]})

    def distribution(self, kind: PluginKind, name: str) -> str:
        """``name version`` of the package a plugin comes from; empty for one registered by a hook."""
        point = self._entry_points[kind].get(name)
        return f"{point.dist.name} {point.dist.version}" if point is not None and point.dist is not None else ""

    def load(self, kind: PluginKind, name: str) -> Any:
        """The plugin class of that name. Raises `PluginError` listing the known names when there is none."""
        registered = self._from_hooks()[kind].get(name)
        if registered is not None:
            return registered
        point = self._entry_points[kind].get(name)
        if point is None:
            known = ", ".join(self.names(kind)) or "none installed"
            raise PluginError(f"no {kind[:-1]} named {name!r}; known: {known}")
        try:
            return point.load()
        except Exception as error:
            raise PluginError(
                f"{kind[:-1]} {name!r} ({self.distribution(kind, name)}) does not load: {error}"
            ) from error

    def create(self, kind: PluginKind, name: str, options: Mapping[str, Any], section: str = "") -> Any:
        """An instance of the named plugin, its options validated by its ``Config``. Raises `PluginError` or
        `ConfigError`. ``section`` is where in a config file they stand, when it is not the kind's own."""
        cls = self.load(kind, name)
        if not isinstance(cls, type) or not isinstance(getattr(cls, "Config", None), type):
            raise PluginError(f"{kind[:-1]} {name!r} is no class with a Config, which its contract asks for: {cls!r}")
        model: type[pydantic.BaseModel] = cls.Config  # type: ignore[attr-defined]
        try:
            config = model(**options)
        except pydantic.ValidationError as error:
            # The path as a config file has it: one engine, but several transports by name.
            where = f"{section or kind}.{name}" if kind in ("transports", "gateways") else kind[:-1]
            raise ConfigError(describe_validation(error, model, where)) from error
        try:
            return cls(config)
        except (ConfigError, PluginError):
            raise
        except Exception as error:
            raise PluginError(
                f"{kind[:-1]} {name!r} {self.distribution(kind, name)} cannot be made: {type(error).__name__}: {error}"
            ) from error

    def call(self, hook: str) -> Callable[..., Any] | None:
        """The hook as a function, called by pluggy's rules, or None when nobody implements it. An implementation that
        raises is logged, counted and left out."""
        caller: pluggy.HookCaller = getattr(self.manager.hook, hook)
        if not caller.get_hookimpls():
            return None

        def guarded(**arguments: Any) -> Any:
            try:
                return caller(**arguments)
            except Exception as error:
                self.boundary.failed("hook", hook, error)
                return None

        return guarded

    def guard(self) -> None:
        """Make the failures of every hook implementation its own. Call it after registering one at `manager`."""
        guard_implementations(self.manager, self.boundary)

    def _add_hooks(self, point: EntryPoint) -> None:
        """Load the hooks of an installed package; one that is broken is named and skipped."""
        if self.manager.is_blocked(point.name) or self.manager.get_plugin(point.name) is not None:
            return
        try:
            self.manager.register(point.load(), name=point.name)
            self.guard()
        except Exception as error:
            where = f" of {point.dist.name} {point.dist.version}" if point.dist is not None else ""
            name = f"{point.name} ({point.value}{where})"
            self.broken[name] = f"{type(error).__name__}: {error}"
            log.error("the hooks %s do not load and are skipped: %s: %s", name, type(error).__name__, error)

    def _from_hooks(self) -> dict[PluginKind, dict[str, type]]:
        if self._registered is None:
            self._registered = {kind: {} for kind in KINDS}
            for kind in KINDS:
                for found in self.manager.hook.anywire_register(kind=kind):
                    try:
                        self._registered[kind].update(found or {})
                    except (TypeError, ValueError) as error:
                        self.boundary.failed("hook anywire_register", "result", error)
        return self._registered


def _module_from_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"anywire_plugin_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
