"""Finding and loading plugins: by entry point or from a file, by name, and never one that was not asked for.

Entry point groups are ``anywire.transports``, ``anywire.schedulers``, ``anywire.selectors``, ``anywire.engines``,
``anywire.gateways``, ``anywire.services``, ``anywire.launchers`` (a class each) and ``anywire.hooks`` (a module or
object with hook implementations, always loaded).
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import pluggy
import pydantic

from anywire import hookspecs
from anywire.boundary import Boundary
from anywire.engine import Engine
from anywire.errors import ConfigError, PluginError
from anywire.hook_guard import guard_implementations
from anywire.near import nearest
from anywire.secrecy import HIDDEN, is_secret, keep_secrets, shown, without_secrets, without_texts
from anywire.selector import Selector

PluginKind = Literal["transports", "schedulers", "selectors", "engines", "gateways", "services", "launchers"]
KINDS: tuple[PluginKind, ...] = (
    "transports",
    "schedulers",
    "selectors",
    "engines",
    "gateways",
    "services",
    "launchers",
)

PACKAGES: dict[tuple[PluginKind, str], str] = {
    ("transports", "dds"): "anywire-dds",
    ("transports", "http"): "anywire-http",
    ("transports", "zeromq"): "anywire-zeromq",
    ("transports", "grpc"): "anywire-grpc",
    ("transports", "nats"): "anywire-nats",
    ("schedulers", "attained_service"): "anywire-schedulers",
    ("schedulers", "edf"): "anywire-schedulers",
    ("schedulers", "fair"): "anywire-schedulers",
    ("schedulers", "priority"): "anywire-schedulers",
    ("schedulers", "wspt"): "anywire-schedulers",
    ("selectors", "random"): "anywire-selectors",
    ("selectors", "power_of_two"): "anywire-selectors",
    ("selectors", "latency"): "anywire-selectors",
    ("selectors", "success"): "anywire-selectors",
    ("selectors", "prefix_affinity"): "anywire-selectors",
    ("selectors", "session_affinity"): "anywire-selectors",
    ("selectors", "resource_aware"): "anywire-selectors",
    ("selectors", "warm_first"): "anywire-selectors",
    ("selectors", "weighted"): "anywire-selectors",
    ("selectors", "fuzzy"): "anywire-selectors",
    ("selectors", "by_policy"): "anywire-selectors",
    ("engines", "llama"): "anywire-engine-llama",
    ("engines", "llama_dds"): "anywire-engine-llama-dds",
    ("engines", "openai"): "anywire-engine-openai",
    ("engines", "mcp"): "anywire-engine-mcp",
    ("engines", "models"): "anywire-engine-models",
    ("gateways", "openai"): "anywire-gateway-openai",
    ("gateways", "grpc"): "anywire-gateway-grpc",
    ("gateways", "llama_dds"): "anywire-gateway-llama-dds",
    ("gateways", "predecessor"): "anywire-gateway-predecessor",
    ("transports", "predecessor"): "anywire-gateway-predecessor",
    ("launchers", "ray"): "anywire-launcher-ray",
    ("services", "alerts"): "anywire-service-alerts",
    ("services", "audit"): "anywire-service-audit",
    ("services", "background"): "anywire-service-background",
    ("services", "cache"): "anywire-service-cache",
    ("services", "conversations"): "anywire-service-conversations",
    ("services", "deliberation"): "anywire-service-deliberation",
    ("services", "mcp"): "anywire-engine-mcp",
    ("services", "nats"): "anywire-service-nats",
    ("services", "opentelemetry"): "anywire-service-opentelemetry",
    ("services", "placement"): "anywire-service-placement",
    ("services", "retrieval"): "anywire-service-cache",
    ("services", "ui"): "anywire-service-ui",
}
"""The distributions of this project that have a plugin which the core has not."""

NAMELESS: tuple[PluginKind, ...] = ("schedulers", "selectors")
"""Kinds whose classes may do without a ``name``."""

log = logging.getLogger(__name__)


def package_of(kind: PluginKind, name: str) -> str:
    """The distribution of this project that has this plugin; empty for one that none has."""
    return PACKAGES.get((kind, name), "")


def describe_validation(error: pydantic.ValidationError, model: type[pydantic.BaseModel], where: str) -> str:
    """A validation error as one sentence per fault; an unknown key names the nearest valid one."""
    sentences = []
    for fault in error.errors():
        path = ".".join(str(part) for part in (*([where] if where else []), *fault["loc"]))
        if fault["type"] == "extra_forbidden":
            known = _fields_at(model, fault["loc"][:-1])
            near = nearest(str(fault["loc"][-1]), known)
            hint = f"did you mean {near!r}? " if near else ""
            sentences.append(f"unknown key {path!r}: {hint}known keys: {', '.join(sorted(known)) or 'none'}")
        elif fault["type"] == "model_type":
            told = f"expected a mapping with the keys {', '.join(_fields_at(model, fault['loc']))}"
            sentences.append(f"{path}: {told_fault({**fault, 'msg': told})}")
        else:
            sentences.append(f"{path}: {told_fault(fault)}")
    return "; ".join(sentences)


def told_fault(fault: Mapping[str, Any]) -> str:
    """What is wrong with a value, and the value where it is a word or a number. A secret may stand in any field by
    mistake, so no other text of the value is repeated."""
    secret = next((str(part) for part in fault["loc"] if is_secret(str(part))), "")
    given = fault["input"]
    told = without_texts(fault["msg"].removeprefix("Value error, "), given, secret)
    return told if secret or shown(given) == HIDDEN else f"{told} (got {given!r})"


def _fields_at(model: type[pydantic.BaseModel], loc: Sequence[int | str]) -> list[str]:
    for part in loc:
        if isinstance(part, int):
            continue  # an entry of a list, whose model is known already
        field = model.model_fields.get(part)
        inner = _model_in(field.annotation) if field is not None else None
        if inner is None:
            break
        model = inner
    return list(model.model_fields)


def _model_in(annotation: object) -> type[pydantic.BaseModel] | None:
    """The model that an annotation is, or is a list or union of."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_in(each)) is not None), None)


class Plugins:
    """The plugins of this process. Listing reads package metadata only; `load` imports the one named.

    ``boundary`` counts what plugins do wrong. ``broken`` names the ``anywire.hooks`` packages that do not load, with
    the reason; they are skipped. ``sources`` are the files and modules that `add` has loaded, in order.
    """

    def __init__(self) -> None:
        self.boundary = Boundary()
        self.broken: dict[str, str] = {}
        self.sources: list[str] = []
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        installed = entry_points()
        self._entry_points: dict[PluginKind, dict[str, EntryPoint]] = {kind: {} for kind in KINDS}
        self._doubles: dict[tuple[PluginKind, str], list[str]] = {}
        for kind in KINDS:
            for point in installed.select(group=f"anywire.{kind}"):
                first = self._entry_points[kind].setdefault(point.name, point)
                # The comparison reads the packages' metadata, so it is left out for a name that is there once.
                if first is not point and _distribution(first) != _distribution(point):
                    self._doubles.setdefault((kind, point.name), [_distribution(first)]).append(_distribution(point))
        self._registered: dict[PluginKind, dict[str, type]] | None = None
        for point in installed.select(group="anywire.hooks"):
            self._add_hooks(point)

    def add(self, source: str) -> None:
        """Load hook implementations from a ``.py`` file or a module name. Raises `PluginError`."""
        named = repr(source) if source.endswith(".py") else shown(source)
        try:
            module = _module_from_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
        except Exception as error:
            raise PluginError(f"plugin {named} does not load: {error}") from error
        if not self.manager.is_registered(module):
            try:
                self.manager.register(module)
            except pluggy.PluginValidationError as error:
                raise PluginError(f"plugin {named} does not load: {error}") from error
            self.guard()
            self._registered = None
        self.sources.append(source)

    def names(self, kind: PluginKind) -> list[str]:
        """Every known name of a kind, sorted, without importing any."""
        return sorted({*self._entry_points[kind], *self._from_hooks()[kind]})

    def distribution(self, kind: PluginKind, name: str) -> str:
        """``name version`` of the package a plugin comes from; empty for one registered by a hook."""
        point = self._entry_points[kind].get(name)
        return _distribution(point) if point is not None else ""

    def module(self, kind: PluginKind, name: str) -> str:
        """The module in which an installed plugin is, without importing it; empty for one that is not installed, or
        that a hook has registered."""
        point = self._entry_points[kind].get(name)
        return point.module if point is not None and name not in self._from_hooks()[kind] else ""

    def load(self, kind: PluginKind, name: str) -> Any:
        """The plugin class of that name. Raises `PluginError`: for an unknown name listing the known ones, or the
        package that has it; for a name that two distributions have naming both."""
        registered = self._from_hooks()[kind].get(name)
        if registered is not None:
            return registered
        point = self._entry_points[kind].get(name)
        if point is None:
            package = package_of(kind, name)
            if package:
                raise PluginError(f"no {kind[:-1]} named {name!r} is installed: pip install {package}")
            known = ", ".join(self.names(kind)) or "none installed"
            raise PluginError(
                f"no {kind[:-1]} named {shown(name)}; known: {known}. One in a .py file is loaded with --plugin FILE, "
                'in a test kit with plugins = ("FILE",)'
            )
        if both := self._doubles.get((kind, name)):
            raise PluginError(f"{kind[:-1]} {name!r} comes from {' and from '.join(both)}: uninstall one of them")
        try:
            return point.load()
        except Exception as error:
            raise PluginError(
                f"{kind[:-1]} {name!r} ({self.distribution(kind, name)}) does not load: {error}"
            ) from error

    def create(
        self,
        kind: PluginKind,
        name: str,
        options: Mapping[str, Any],
        section: str = "",
        parts: Callable[[str, Mapping[str, Any], str], Any] | None = None,
    ) -> Any:
        """An instance of the named plugin, its options validated by its ``Config``. Its ``name`` is the one by which it
        was asked for, whatever its class says. ``section`` is where in a config file the options stand, when it is not
        the kind's own. ``parts`` makes the plugins of that kind of which a selector or an engine consists; default:
        this. Raises `ConfigError` for options that do not fit, and `PluginError` for everything else."""
        cls, config = self.check(kind, name, options, section)
        keep_secrets(config)
        try:
            made: Any = cls(config)
            if getattr(cls, "name", None) != name:
                made.name = name
            if isinstance(made, Selector | Engine):
                made.assemble(parts or partial(self.create, kind))
            return made
        except (ConfigError, PluginError):
            raise
        except Exception as error:
            raise PluginError(
                f"{kind[:-1]} {name!r} {self.distribution(kind, name)} cannot be made: {type(error).__name__}: {error}"
            ) from error

    def check(
        self, kind: PluginKind, name: str, options: Mapping[str, Any], section: str = ""
    ) -> tuple[type, pydantic.BaseModel]:
        """The class and the validated options of a plugin that could be made; the arguments, and what is raised, are
        those of `create`."""
        cls = self.load(kind, name)
        if not isinstance(cls, type) or not isinstance(getattr(cls, "Config", None), type):
            raise PluginError(f"{kind[:-1]} {name!r} is no class with a Config, which its contract asks for: {cls!r}")
        model: type[pydantic.BaseModel] = cls.Config  # type: ignore[attr-defined]
        declared = getattr(cls, "name", None)
        if kind not in NAMELESS and (not isinstance(declared, str) or not declared):
            raise PluginError(
                f"{kind[:-1]} {name!r}: the class {_described(cls, self.distribution(kind, name))} has no name, which "
                f"its contract asks for: add name = {name!r} to it"
            )
        try:
            return cls, model(**options)
        except pydantic.ValidationError as error:
            # The path as a config file has it: one engine, but several transports by name.
            one = kind not in ("transports", "gateways", "services")
            where = (section or kind[:-1]) if one else f"{section or kind}.{name}"
            # Without its cause: pydantic's words repeat what was given.
            raise ConfigError(describe_validation(error, model, where) + _inherited(cls, error)) from None

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
            self.broken[name] = without_secrets(f"{type(error).__name__}: {error}")
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


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else ""


def _described(cls: type, distribution: str) -> str:
    """A class by its full name, and the package that it comes from."""
    return f"{cls.__module__}.{cls.__qualname__}" + (f" ({distribution})" if distribution else "")


def _inherited(cls: type, error: pydantic.ValidationError) -> str:
    """For an unknown key: that the class has no ``Config`` of its own, if it has none."""
    owner = next(each for each in cls.__mro__ if "Config" in vars(each))
    if owner is cls or not any(fault["type"] == "extra_forbidden" for fault in error.errors()):
        return ""
    return f" (the class {cls.__qualname__} has no Config of its own: these are the keys of {owner.__qualname__})"


def _module_from_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"anywire_plugin_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
