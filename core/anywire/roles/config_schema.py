"""The JSON schema of a configuration file, with the options of plugins: for editors, and for whoever checks files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pydantic
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from anywire.config import Config
from anywire.errors import PluginError
from anywire.plugins import PluginKind, Plugins
from anywire.roles.assembly import LISTS, SECTIONS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ANY_OPTIONS: Mapping[str, Any] = {"anyOf": [{"type": "object"}, {"type": "null"}]}
Wanted = Callable[[PluginKind, str], bool]


def config_schema(plugins: Plugins, wanted: Wanted = lambda kind, name: True) -> dict[str, Any]:
    """What a file may hold, as JSON schema (draft 2020-12), with the options of those plugins that are ``wanted``.

    Plugins that are not known here may be named too, with any options, as another machine may have them. A plugin that
    does not load is left out. The schema says less than the configuration checks: values that depend on each other are
    the configuration's business.
    """
    return _Schema(plugins, wanted).whole()


class _AsRead(GenerateJsonSchema):
    """What is made to fit before it is checked may have other forms than its type, such as ``8 GB`` for bytes. Its type
    is what editors suggest then."""

    def function_before_schema(self, schema: Any) -> JsonSchemaValue:
        return _freely(super().function_before_schema(schema), schema)

    def function_wrap_schema(self, schema: Any) -> JsonSchemaValue:
        return _freely(super().function_wrap_schema(schema), schema)

    def function_plain_schema(self, schema: Any) -> JsonSchemaValue:
        return {}


def _freely(found: JsonSchemaValue, schema: Any) -> JsonSchemaValue:
    if schema["schema"]["type"] == "model-fields":
        return found  # the keys of a model, of which some are set by others
    # Of a section the keys are checked all the same.
    others = {"type": ["string", "number", "boolean", "array", "null"]} if _is_model(schema["schema"]) else {}
    return {"anyOf": [found, others]}


def _is_model(schema: Any) -> bool:
    return schema["type"] in ("model", "definition-ref") or ("schema" in schema and _is_model(schema["schema"]))


class _Schema:
    def __init__(self, plugins: Plugins, wanted: Wanted) -> None:
        self._plugins, self._wanted = plugins, wanted
        self._root: dict[str, Any] = Config.model_json_schema(schema_generator=_AsRead)
        self._definitions: dict[str, Any] = self._root.pop("$defs")
        for each in (self._root, *self._definitions.values()):
            _let_be_empty(each.get("properties", {}))

    def whole(self) -> dict[str, Any]:
        properties = self._root["properties"]
        for key, kind in LISTS.items():
            properties[key] = _described(properties[key], self._list(kind, empty=key != "transports"))
        for key, kind in SECTIONS.items():
            self._definitions[f"section.{key}"] = self._section(key, kind)
            properties[key] = _described(properties[key], {"$ref": f"#/$defs/section.{key}"})
        self._definitions["AgentsEntry"]["properties"]["engine"] = {
            "anyOf": [{"$ref": "#/$defs/section.engine"}, {"type": "null"}]
        }
        # Its other forms are refused: it listed no agents once.
        properties["agents"] = _described(properties["agents"], properties["agents"]["anyOf"][0])
        told: dict[str, Any] = _without_titles(self._root | {"$defs": dict(sorted(self._definitions.items()))})
        head = {"$schema": DIALECT, "title": "Anywire", "description": "A configuration of Anywire (anywire.yaml)."}
        return head | {key: value for key, value in told.items() if key not in head}

    def _list(self, kind: PluginKind, *, empty: bool) -> dict[str, Any]:
        """Plugins in the shapes of `anywire.config.named`."""
        name = self._name(kind)
        with_options = {
            "type": "object",
            "properties": {
                each: {"anyOf": [self._options(kind, each), {"type": "null"}]} for each in self._names(kind)
            },
            "additionalProperties": _ANY_OPTIONS,
        }
        shapes: list[dict[str, Any]] = [
            name,
            {"type": "array", "items": {"anyOf": [name, with_options]}} | ({} if empty else {"minItems": 1}),
            with_options,
        ]
        return {"anyOf": [*shapes, {"type": "null"}] if empty else shapes}

    def _section(self, key: str, kind: PluginKind) -> dict[str, Any]:
        """A plugin by name, or a mapping in which its options stand beside the name."""
        default = Config.model_fields[key].default
        shared = self._definitions[type(default).__name__]["properties"]
        named = shared | {
            "name": {key: value for key, value in shared["name"].items() if key != "type"} | self._name(kind)
        }
        choices = [
            {
                # Without a name it is the default.
                "if": {"properties": {"name": {"const": each}}}
                | ({} if each == default.name else {"required": ["name"]}),
                "then": self._beside(self._options(kind, each), named),
            }
            for each in self._names(kind)
        ]
        return {"anyOf": [self._name(kind), {"type": "object", "properties": named, "allOf": choices}]}

    def _beside(self, options: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
        """The options of one plugin in a mapping that has ``shared`` keys too."""
        found = self._definitions[options["$ref"].rpartition("/")[2]]
        kept = {key: found[key] for key in ("required", "additionalProperties") if key in found}
        return {"properties": dict.fromkeys(shared, True) | found.get("properties", {})} | kept

    def _name(self, kind: PluginKind) -> dict[str, Any]:
        return {"anyOf": [{"enum": self._names(kind)}, {"type": "string"}]}

    def _names(self, kind: PluginKind) -> list[str]:
        return [
            each for each in self._plugins.names(kind) if self._wanted(kind, each) and self._options(kind, each) != {}
        ]

    def _options(self, kind: PluginKind, name: str) -> dict[str, Any]:
        """A reference to the options of a plugin; nothing where they are not known."""
        key = f"{kind}.{name}"
        if key not in self._definitions:
            try:
                model = self._plugins.load(kind, name).Config
                if not issubclass(model, pydantic.BaseModel):
                    return {}
                found = model.model_json_schema(schema_generator=_AsRead, ref_template=f"#/$defs/{key}.{{model}}")
            except (PluginError, PydanticInvalidForJsonSchema, AttributeError, TypeError):
                return {}
            for inner, schema in found.pop("$defs", {}).items():
                self._definitions[f"{key}.{inner}"] = schema
            self._definitions[key] = found
        return {"$ref": f"#/$defs/{key}"}


def _let_be_empty(properties: dict[str, Any]) -> None:
    """Sections of which a file has the name alone count as left out."""
    for name, schema in properties.items():
        if "$ref" in schema:
            others = {key: value for key, value in schema.items() if key != "$ref"}
            properties[name] = others | {"anyOf": [{"$ref": schema["$ref"]}, {"type": "null"}]}


def _without_titles(schema: Any) -> Any:
    """A schema without the titles that its models give it: they repeat the names."""
    if isinstance(schema, list):
        return [_without_titles(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {}
    for key, value in schema.items():
        if key in ("properties", "$defs") and isinstance(value, dict):
            found[key] = {name: _without_titles(each) for name, each in value.items()}
        elif key in ("default", "enum", "const", "examples"):
            found[key] = value
        elif key != "title":
            found[key] = _without_titles(value)
    return found


def _described(before: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """``schema`` with what the setting says of itself."""
    return {key: before[key] for key in ("description", "default") if key in before} | dict(schema)
