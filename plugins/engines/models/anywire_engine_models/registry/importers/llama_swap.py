"""The models of llama-swap's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from msgspec.structs import replace

from anywire.errors import InvalidRequest
from anywire.printable import printable
from anywire_engine_models.registry.entry import MAX_NAME, Entry, EntrySettings
from anywire_engine_models.registry.importers.imported import Imported, Report
from anywire_engine_models.registry.importers.llama_swap_command import Command, read_command, without_comments
from anywire_engine_models.registry.importers.llama_swap_groups import GroupOf, groups_of
from anywire_engine_models.registry.importers.llama_swap_macros import filled_in
from anywire_engine_models.registry.replaced_file import read_file

MAX_BYTES = 1024 * 1024
_START_TIMEOUT, _LEAST_START_TIMEOUT = 120.0, 15.0
_STOP_GRACE = 10.0
_NOT_CARRIED_OVER = {
    "aliases": "clients ask for it by its identifier alone, not by its aliases",
    "filters": "its filters of parameters are not carried over",
    "cmdStop": "its cmdStop is not carried over: its process group is ended by SIGTERM, then by SIGKILL",
    "unlisted": "it is listed",
}


def import_llama_swap(path: Path) -> Imported:
    """The models of a llama-swap file, each under its own name. Their commands become command templates, and what its
    groups allow to be loaded together stays so. Raises `InvalidRequest` when it cannot be read or is no such file."""
    config = _read(path)
    report = Report()
    models = config["models"]
    groups = groups_of(config, [name for name in models if isinstance(name, str)], report)
    preloaded = _mapping(_mapping(config.get("hooks")).get("on_startup")).get("preload")
    for name, model in models.items():
        try:
            if not isinstance(name, str) or not isinstance(model, dict):
                raise ValueError("it is no object with a name")
            entry = _entry(name, model, config, groups[name], path.parent)
        except ValueError as error:
            report.skip(str(name), str(error))
            continue
        if isinstance(preloaded, list) and name in preloaded:
            entry = replace(entry, settings=replace(entry.settings, autostart=True))
        if report.add(entry, name):
            for member, text in _NOT_CARRIED_OVER.items():
                if model.get(member):
                    report.note(name, text)
            if _text(model, "checkEndpoint", "") == "none":
                report.note(name, "it is ready once it answers GET /v1/models: set `settings.health_path` otherwise")
    for name in _mapping(config.get("peers")):
        report.skip(f"peers.{name}", "another server is an agent with the engine openai")
    return report.imported()


def _entry(name: str, model: Mapping[str, Any], config: Mapping[str, Any], group: GroupOf, folder: Path) -> Entry:
    """Raises `ValueError` with a sentence for what cannot be run."""
    if not name or name != name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise ValueError("its name is no identifier")
    macros = {**_mapping(config.get("macros")), **_mapping(model.get("macros")), "MODEL_ID": name}
    command = read_command(
        filled_in(without_comments(_text(model, "cmd")), macros),
        filled_in(_text(model, "proxy", "http://localhost:${PORT}"), macros),
        folder,
    )
    check = filled_in(_text(model, "checkEndpoint", "/health"), macros)
    ttl = _number(model, "ttl", -1)
    settings = EntrySettings(
        on_demand=True,
        idle_ttl=ttl if ttl >= 0 else max(0.0, _number(config, "globalTTL", 0)),
        pinned=True if group.pinned else None,
        group=group.name,
        context=command.context,
        slots=min(max(int(_number(model, "concurrencyLimit", 0)), 0), 256) or command.slots,
        start_timeout=max(_number(config, "healthCheckTimeout", _START_TIMEOUT), _LEAST_START_TIMEOUT),
        stop_grace=_number(model, "unloadTimeout", 0) or _number(config, "unloadTimeout", 0) or _STOP_GRACE,
        command=command.arguments,
        environment=_environment(model, macros) or None,
        health_path="/v1/models" if check == "none" else "/" + check.lstrip("/"),
        port=command.port or None,
        served_name=filled_in(_text(model, "useModelName", ""), macros) or None,
    )
    return Entry(name, "local", "llama-swap", name, "latest", model_file_path=command.model_file, settings=settings)


def _environment(model: Mapping[str, Any], macros: Mapping[str, Any]) -> dict[str, str]:
    given = model.get("env") or []
    if not isinstance(given, list):
        raise ValueError("its env is no list")
    found = {}
    for each in given:
        if not isinstance(each, str):
            raise ValueError("its env has what is no text")
        name, equals, value = filled_in(each, macros).partition("=")
        if not equals:
            raise ValueError(f"its env has no NAME=value: {printable(name, 100)}")
        found[name.strip()] = Command.template(value)
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        data = read_file(path, MAX_BYTES)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}", param="path") from error
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"{path} is longer than {MAX_BYTES // 2**20} MiB", param="path")
    try:
        config = yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeError, RecursionError, ValueError) as error:
        raise InvalidRequest(f"{path} is no YAML: {printable(str(error), 300)}", param="path") from error
    if not isinstance(config, dict) or not isinstance(config.get("models"), dict):
        raise InvalidRequest(f"{path} is no file of llama-swap: it has no `models`", param="path")
    return config


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _text(members: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = members.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise ValueError(f"its {name} is no text")
    return value


def _number(members: Mapping[str, Any], name: str, default: float) -> float:
    value = members.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value <= 1e9:
        raise ValueError(f"{name} is no number of seconds or requests")
    return float(value)
