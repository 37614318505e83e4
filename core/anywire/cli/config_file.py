"""The text of a configuration file that explains itself: every setting with its description.

A setting that is chosen stands as it is; one that has its default stands behind ``#``, which is taken away to change
it. Explanations stand behind ``# ``. With every such ``#`` taken away the file says the same, and a section of which
nothing is set counts as left out.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

import pydantic
import yaml

from anywire.config import MASK, Config
from anywire.core_settings import FromCore, core_options
from anywire.errors import ConfigError

if TYPE_CHECKING:
    from anywire.plugins import PluginKind, Plugins

WIDTH = 100
_INDENT = "  "


class Writer:
    """Writes ``config``, whose plugins are those of ``plugins``. Raises `ConfigError` where an option is missing that a
    chosen plugin needs."""

    def __init__(self, config: Config, plugins: Plugins) -> None:
        self._config, self._plugins = config, plugins
        self._core = config.model_dump(mode="json")
        # Of agents that are listed only what is set: the rest follows from other sections.
        self._core["agents"] = [each.model_dump(mode="json", exclude_unset=True) for each in config.agents]

    def text(self, head: Sequence[str]) -> str:
        """The file, below the comment lines ``head``."""
        from anywire.roles.assembly import LISTS, SECTIONS

        lines = [*head]
        for name, field in Config.model_fields.items():
            lines += ["", *_explained(field.description or _SECTIONS.get(name, ""), 0)]
            if name in LISTS:
                lines += self._list(name, LISTS[name])
            elif name in SECTIONS:
                lines += self._section(name, SECTIONS[name])
            else:
                lines += self._setting(name, field, self._core[name], 0)
        return "\n".join(lines) + "\n"

    def _list(self, key: str, kind: PluginKind) -> Iterator[str]:
        chosen = getattr(self._config, key)
        default = Config.model_fields[key].get_default(call_default_factory=True)
        if not chosen:
            yield f"#{key}: {_yaml(None if default is None else {})}"
            return
        yield f"{key}:"
        for each in chosen:
            yield f"{_INDENT}{each.name}:"
            yield from self._options(kind, each.name, each.options, f"{key}.{each.name}", 2)

    def _section(self, key: str, kind: PluginKind) -> Iterator[str]:
        section = getattr(self._config, key)
        yield f"{key}:"
        for name, field in type(section).model_fields.items():
            yield from _explained(field.description or "", 1)
            value = getattr(section, name)
            off = "" if name == "name" or value != field.default else "#"
            yield f"{_INDENT}{off}{name}: {_yaml(value)}"
        shared = set(type(section).model_fields)
        yield from self._options(kind, section.name, self._own(section), key, 1, shared)

    def _own(self, section: Any) -> dict[str, Any]:
        shared = type(section).model_fields
        return {key: value for key, value in section.options.items() if key not in shared}

    def _options(
        self,
        kind: PluginKind,
        name: str,
        options: Mapping[str, Any],
        where: str,
        depth: int,
        shared: Collection[str] = (),
    ) -> Iterator[str]:
        """The options of a plugin, but those that are ``shared`` by all plugins of the section."""
        model = self._plugins.load(kind, name).Config
        follow = core_options(model, self._config)
        for key, field in model.model_fields.items():
            if key in shared:
                continue
            yield from _explained(_with_default(field), depth)
            if key in options:
                yield from _written(key, options[key], depth)
            elif field.is_required():
                raise ConfigError(
                    f"{kind.removesuffix('s')} {name} needs {key} ({field.description}): give it with "
                    f"--set {where}.{key}=VALUE"
                )
            else:
                yield f"{_INDENT * depth}#{key}: {_yaml(follow.get(key, _default(field)))}"
        for key in options.keys() - model.model_fields:
            yield from _written(key, options[key], depth)  # refused with its name when the file is read

    def _setting(self, name: str, field: pydantic.fields.FieldInfo, value: Any, depth: int) -> Iterator[str]:
        default = _default(field)
        model = _model(field.annotation)
        if model is None or not isinstance(value, dict) or not isinstance(default, dict):
            yield from (
                [f"{_INDENT * depth}#{name}: {_yaml(default)}"] if value == default else _written(name, value, depth)
            )
            return
        yield f"{_INDENT * depth}{name}:"
        for key, inner in model.model_fields.items():
            yield from _explained(inner.description or "", depth + 1)
            yield from self._setting(key, inner, value[key], depth + 1)


_SECTIONS = {
    "server": "Where gateways listen.",
    "access": "Who may come in as a client.",
    "identity": "By which key agents and orchestrators know this process, and whom it lets in.",
    "lease": "How soon an agent counts as lost.",
    "standby": "One of several orchestrators, of which one is active.",
    "scheduler": "The order in which waiting tasks are sent.",
    "selector": "Which agent gets a task.",
    "engine": "What produces the answers of an agent.",
    "agent": "The agent of `anywire agent`, and those of `anywire up`.",
    "on_demand": "Agents that `anywire up` starts while tasks wait.",
    "launcher": "What starts the agents of `anywire up`.",
    "pipeline": "How a task goes its way.",
}
"""What the sections of a configuration are about, as their settings say the rest."""


def _explained(text: str, depth: int) -> Iterator[str]:
    indent = _INDENT * depth
    for line in textwrap.wrap(text, WIDTH - len(indent) - 2, break_long_words=False, break_on_hyphens=False):
        yield f"{indent}# {line}"


def _with_default(field: pydantic.fields.FieldInfo) -> str:
    follows = next((mark.key for mark in field.metadata if isinstance(mark, FromCore)), None)
    told = field.description or ""
    return f"{told} Default: that of `{follows}`." if follows is not None else told


def _written(name: str, value: Any, depth: int) -> Iterator[str]:
    """A setting in block style."""
    text = yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True, width=1000)
    yield from textwrap.indent(text.rstrip("\n"), _INDENT * depth).splitlines()


def _default(field: pydantic.fields.FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    return pydantic.TypeAdapter(Any).dump_python(value, mode="json")


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1_000_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _model(annotation: object) -> type[pydantic.BaseModel] | None:
    """The model of a section that is always there."""
    found = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    models = [each for each in found if isinstance(each, type) and issubclass(each, pydantic.BaseModel)]
    return models[0] if len(models) == 1 and len(found) == 1 else None


def fits(text: str, plugins: Plugins) -> bool:
    """Raise `ConfigError` unless a file with this text can be read, with the options of its plugins. Tells whether a
    secret is in it."""
    import tempfile

    from anywire.config_layers import load
    from anywire.roles.assembly import effective

    with tempfile.TemporaryDirectory(prefix="anywire-init-") as folder:
        path = Path(folder) / "anywire.yaml"
        path.write_text(text, encoding="utf-8")
        shown, faults = effective(load(path, environment={}), plugins)
    if faults:
        raise ConfigError("; ".join(faults))
    return MASK in str(shown)
