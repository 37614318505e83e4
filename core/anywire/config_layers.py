"""Where the configuration comes from: flags over environment over YAML, and which of them was wrong.

Options belong to the plugin they were written for. So a source that names another engine than the one below it takes
none of that one's options along, while naming the same one again, or a transport that the file lists too, keeps them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from anywire.config import DEFAULT_GATEWAY, MASK, ORDER, Config, named
from anywire.errors import ConfigError
from anywire.near import nearest
from anywire.plugins import describe_validation
from anywire.secrecy import HIDDEN, is_plain

PREFIX = "ANYWIRE_"
NOT_SETTINGS = frozenset({"ANYWIRE_API_KEY", "ANYWIRE_CA", "ANYWIRE_CERT", "ANYWIRE_CONFIG", "ANYWIRE_INVITE"})
"""Variables of the command line itself."""

MAX_CHARS = 1024 * 1024
"""Of a file: reading so much takes seconds."""
MAX_PARTS = 100_000
"""Keys and values of a file, those of an alias as often as it is used."""
_LISTS = ("transports", "gateways", "join", "services")
_MAY_BE_EMPTY = ("gateways", "join", "services")
_SECTIONS = ("scheduler", "selector", "engine", "launcher")

_DDS = "dds"
"""A section of that name holds options of the transport ``dds``, as in files written for this project's predecessor."""
_DDS_NAMES = {"participant_name": "participant"}
"""Options that have another name there."""
_PRIORITY_LEVELS = "priority_levels"
"""An option of the scheduler ``priority``, which is meant where a file has it and names no scheduler."""

C = TypeVar("C", bound=Config)


class Layer:
    """One source of settings: a tree, and where each key of it was written."""

    def __init__(self, label: str, tree: Mapping[str, Any]) -> None:
        self.label = label
        self.tree = dict(tree)

    def origin(self, path: Sequence[int | str]) -> str:
        """Where ``path`` was set, empty when it was not set here."""
        return self.label if _reaches(self.tree, path) else ""

    def normalised(self) -> dict[str, Any]:
        """The tree in the shape that merges: names in order beside options, sections as mappings."""
        tree = dict(self.tree)
        alias = self._dds_section(tree.pop(_DDS, None))
        for key in _LISTS:
            if key in tree and not (key == "gateways" and tree[key] is None):
                try:
                    chosen = named(tree[key], empty=key in _MAY_BE_EMPTY)
                except ValueError as error:
                    raise ConfigError(f"{key}: {error} [{self.origin([key])}]") from error
                tree[key] = {ORDER: list(chosen), **chosen}
        for key in _SECTIONS:
            if isinstance(tree.get(key), str):
                tree[key] = {"name": tree[key]}
        if alias:
            transports = tree.setdefault("transports", {})
            transports[_DDS] = alias | transports.get(_DDS, {})
        return tree

    def _dds_section(self, section: object) -> dict[str, Any]:
        if section is None:
            return {}
        if not isinstance(section, Mapping):
            raise ConfigError(f"{_DDS}: expected the options of that transport [{self.origin([_DDS])}]")
        return {_DDS_NAMES.get(str(key), str(key)): value for key, value in section.items()}


class Keyed(Layer):
    """A source of single keys, each a path with a name of its own in the source, beside or in place of a tree."""

    def __init__(self, label: str, tree: Mapping[str, Any]) -> None:
        super().__init__(label, tree)
        self._parts: dict[str, Any] = {}
        self._names: dict[tuple[str, ...], str] = {}

    def set(self, path: tuple[str, ...], value: object, name: str) -> None:
        """Set a key. Raises `ConfigError` when a part of ``path`` was set as a whole before."""
        self._names[path] = name
        if len(path) == 1:
            self.tree[path[0]] = value
            return
        inside = self._parts
        for part in path[:-1]:
            found = inside.setdefault(part, {})
            if not isinstance(found, dict):
                raise ConfigError(f"{name} sets a key inside of {part!r}, which is set as a whole before")
            inside = found
        inside[path[-1]] = value

    def origin(self, path: Sequence[int | str]) -> str:
        words = tuple(str(part) for part in path)
        named = (name for at, name in self._names.items() if at == words[: len(at)] or words == at[: len(words)])
        return next(named, "") or super().origin(path)

    def normalised(self) -> dict[str, Any]:
        tree = super().normalised()
        for key, part in self._parts.items():
            for name, options in part.items() if key in _LISTS else ():
                if not isinstance(options, dict):
                    given = self._names[key, name]
                    raise ConfigError(f"{given}: expected {self.with_option(given)}, found a value")
            whole = tree.get(key)
            tree[key] = _merged(whole, part) if isinstance(whole, dict) else part
        return tree

    def with_option(self, given: str) -> str:
        """How ``given``, a plugin in a list, is continued to set an option of it."""
        return f"{given}.OPTION=value"


class Flags(Keyed):
    """What the command line gave: a tree, and the keys of ``--set``."""

    def __init__(self, tree: Mapping[str, Any], settings: Mapping[str, Any], keys: Sequence[str]) -> None:
        super().__init__("command line", tree)
        for name, value in settings.items():
            path = _aliased(tuple(name.split(".")))
            if path[0] not in keys or not all(path):
                near = nearest(path[0], keys)
                hint = f"did you mean {'.'.join((near, *path[1:]))}?" if near else f"known keys: {', '.join(keys)}"
                raise ConfigError(f"--set {name}: there is no such key; {hint}")
            self.set(path, value, f"--set {name}")


class Environment(Keyed):
    """The variables that begin with ``ANYWIRE_``."""

    def __init__(self, variables: Mapping[str, str], keys: Sequence[str]) -> None:
        super().__init__("", {})
        for variable in sorted(variables):
            if not variable.startswith(PREFIX) or variable in NOT_SETTINGS:
                continue
            path = _aliased(tuple(variable.removeprefix(PREFIX).lower().split("__")))
            if path[0] not in keys:
                if len(path) == 1:
                    near = _meant(path[0], keys)
                    if not near:
                        continue  # a plugin's own variable, perhaps
                else:
                    near = nearest(path[0], keys)
                name = PREFIX + "__".join((near, *path[1:])).upper()
                hint = f"did you mean {name}?" if near else f"known keys: {', '.join(keys)}"
                raise ConfigError(f"unknown environment variable {variable}: {hint}")
            self.set(path, _value(variable, variables[variable]), variable)

    def with_option(self, given: str) -> str:
        return f"{given}__OPTION=value"


def _meant(word: str, keys: Sequence[str]) -> str:
    """The setting that a variable's one word most likely means: a key, or a key of a section (``PORT``); empty when it
    is like none."""
    inner = {
        name: f"{key}__{name}"
        for key, field in Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, pydantic.BaseModel)
        for name in field.annotation.model_fields
        if name not in ("name", "id")
    }
    return inner.get(word) or nearest(word, keys)


class File(Layer):
    """A YAML file; a key's place in it is its line."""

    def __init__(self, path: Path | None) -> None:
        super().__init__(str(path), {})
        self._root: yaml.Node | None = None
        if path is not None:
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            with path.open(encoding="utf-8") as file:
                text = file.read(MAX_CHARS + 1)
        except FileNotFoundError as error:
            raise ConfigError(f"there is no config file {path}") from error
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"it is not UTF-8 text ({error})"
            raise ConfigError(f"config file {path} cannot be read: {reason}") from error
        if len(text) > MAX_CHARS:
            raise ConfigError(f"config file {path} has more than {MAX_CHARS} characters")
        try:
            loader = yaml.SafeLoader(text)
            self._root = loader.get_single_node()
            if any(number > MAX_PARTS for number, _ in enumerate(_parts(self._root))):
                raise ConfigError(f"config file {path} has more than {MAX_PARTS} keys and values")
            for line, key in _twice(self._root):
                raise ConfigError(f"{path}, line {line}: the key {key!r} is there twice")
            tree = loader.construct_document(self._root) if self._root is not None else {}
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f", line {mark.line + 1}" if mark else ""
            raise ConfigError(f"{path}{place}: this is not valid YAML: {problem_in(error)}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: this is not valid YAML: {problem_in(error)}") from None
        if tree is None:
            tree = {}
        if not isinstance(tree, dict):
            raise ConfigError(f"{path}, line 1: expected a mapping of keys to values")
        self.tree = _without_empty({str(key): value for key, value in tree.items()}, Config)

    def origin(self, path: Sequence[int | str]) -> str:
        node, line = self._root, 0
        for part in path:
            if isinstance(node, yaml.MappingNode):
                entry = next((pair for pair in node.value if pair[0].value == str(part)), None)
                if entry is None:
                    break
                line, node = entry[0].start_mark.line + 1, entry[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
            else:
                break
        return f"{self.label}, line {line}" if line and _reaches(self.tree, path[:1]) else ""

    def normalised(self) -> dict[str, Any]:
        """With the default names, so that what stands above knows whose the options here are."""
        tree = super().normalised()
        for key in _LISTS:
            default = Config.model_fields[key].get_default(call_default_factory=True)
            if default is None:
                tree.setdefault(key, None)
            else:
                names = named(default, empty=key in _MAY_BE_EMPTY)
                found = tree.get(key, {})
                if ORDER not in found:
                    tree[key] = {ORDER: list(names), **names, **found}
        for key in _SECTIONS:
            if isinstance(tree.get(key), dict):
                name = Config.model_fields[key].default.name
                if key == "scheduler" and _PRIORITY_LEVELS in tree[key]:
                    name = "priority"
                tree[key] = {"name": name, **tree[key]}
        return tree


class _Source(PydanticBaseSettingsSource):
    """A layer as pydantic-settings reads it, knowing what the layers above have chosen."""

    def __init__(self, settings: type[BaseSettings], layer: Layer) -> None:
        super().__init__(settings)
        self._layer = layer

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._layer.tree.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        tree = self._layer.normalised()
        for key in _SECTIONS:
            mine, above = tree.get(key), self.current_state.get(key)
            if isinstance(mine, dict) and isinstance(above, dict) and "name" in mine and "name" in above:
                shared = type(Config.model_fields[key].default).model_fields
                if mine["name"] != above["name"]:
                    tree[key] = {option: value for option, value in mine.items() if option in shared}
        return tree


def load(
    path: str | Path | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Config:
    """The effective configuration of a process.

    ``flags`` is a tree like the file's; ``settings`` are single keys with dots (``transports.dds.domain``) that win
    over everything; ``environment`` is the process's own when None. Raises `ConfigError` saying which key of which
    source is wrong, and what would do.
    """
    return read(Config, path, flags or {}, environment, settings or {})


def read(
    model: type[C],
    path: str | Path | None,
    flags: Mapping[str, Any],
    environment: Mapping[str, str] | None,
    settings: Mapping[str, Any],
) -> C:
    """See `anywire.config.load`."""
    layers = _layers(model, path, flags, environment, settings)

    class Settings(BaseSettings):
        model_config = pydantic.ConfigDict(extra="allow")  # type: ignore[assignment]

        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: Any, **__: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(_Source(settings_cls, layer) for layer in layers)

    try:
        tree = Settings().model_dump()
        if (masked := _masked(tree)) is not None:
            places = _origin(layers, masked)
            raise ConfigError(
                f"{'.'.join(map(str, masked))} is masked, as `anywire config` shows a secret: put the secret itself in "
                f"its place, or leave the key out and set it in the environment [{places}]"
            )
        gateways = tree["gateways"]
        if isinstance(gateways, dict) and ORDER not in gateways:
            # Options alone choose no gateway.
            gateways[ORDER] = [DEFAULT_GATEWAY]
        return model.model_validate(tree)
    except pydantic.ValidationError as error:
        origins = [_origin(layers, fault["loc"]) for fault in error.errors()]
        places = "; ".join(dict.fromkeys(place for place in origins if place))
        sentence = describe_validation(error, model, "")
        raise ConfigError(f"{sentence} [{places}]" if places else sentence) from None


def is_named(
    key: str,
    path: str | Path | None,
    *,
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> bool:
    """Whether a source sets this key, or one inside of it; the arguments are those of `load`."""
    return any(layer.origin([key]) for layer in _layers(Config, path, flags or {}, environment, settings or {}))


def _layers(
    model: type[Config],
    path: str | Path | None,
    flags: Mapping[str, Any],
    environment: Mapping[str, str] | None,
    settings: Mapping[str, Any],
) -> list[Layer]:
    keys = list(model.model_fields)
    return [
        Flags(flags, settings, keys),
        Environment(os.environ if environment is None else environment, keys),
        File(Path(path) if path is not None else None),
    ]


def _origin(layers: Sequence[Layer], path: Sequence[int | str]) -> str:
    return next((place for layer in layers if (place := layer.origin(path))), "")


def _masked(tree: object, path: tuple[int | str, ...] = ()) -> tuple[int | str, ...] | None:
    """Where a tree has a masked secret."""
    if isinstance(tree, str):
        return path if MASK in tree else None
    inner = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else ()
    found = (_masked(value, (*path, key)) for key, value in inner)
    return next(filter(None, found), None)


def _aliased(path: tuple[str, ...]) -> tuple[str, ...]:
    if path[0] != _DDS or len(path) < 2:
        return path
    return ("transports", _DDS, _DDS_NAMES.get(path[1], path[1]), *path[2:])


def _without_empty(tree: dict[str, Any], model: type[pydantic.BaseModel]) -> dict[str, Any]:
    """``tree`` without the sections of which a file has the name alone, as where all of it is in comments."""
    found = {}
    for key, value in tree.items():
        field = model.model_fields.get(key)
        inner = field.annotation if field is not None else None
        if isinstance(inner, type) and issubclass(inner, pydantic.BaseModel):
            if value is None:
                continue
            value = _without_empty(value, inner) if isinstance(value, dict) else value
        found[key] = value
    return found


def _merged(whole: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """``whole`` with the keys of ``part``, mappings in both merged likewise."""
    merged = dict(whole)
    for key, value in part.items():
        found = merged.get(key)
        merged[key] = _merged(found, value) if isinstance(found, dict) and isinstance(value, dict) else value
    return merged


def _reaches(tree: object, path: Sequence[int | str]) -> bool:
    for part in path:
        if not isinstance(tree, Mapping):
            return True  # a value where a mapping was due: this is the place at fault
        if part not in tree:
            return False
        tree = tree[part]
    return True


def _value(variable: str, text: str) -> object:
    if not text.lstrip().startswith(("[", "{")):
        return text
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{variable} begins like a YAML list or mapping but is none: {problem_in(error)}") from None


def problem_in(error: Exception) -> str:
    """What is wrong with a YAML document, in words that repeat none of its texts but words: one of them may be a
    secret that has a character which means something in YAML."""
    found = (
        getattr(error, "problem", None)
        or getattr(error, "context", None)
        or getattr(error, "reason", "")
        or "it cannot be read"
    )
    return re.sub(r"'[^']*'", lambda text: text[0] if is_plain(text[0].strip("'*&!")) else f"'{HIDDEN}'", found)


def _parts(node: yaml.Node | None) -> Iterator[yaml.Node]:
    """All keys and values."""
    if node is None:
        return
    yield node
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield from _parts(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _parts(value)


def _twice(node: yaml.Node | None) -> Iterator[tuple[int, str]]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.start_mark.line + 1, key.value
            seen.add(key.value)
            yield from _twice(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _twice(value)
