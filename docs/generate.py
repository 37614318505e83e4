"""Writes docs/reference: every setting from the ``Config`` models, every command from the command line itself, errors,
the HTTP API from the gateway as a page and in OpenAPI, and the schema of configuration files.

python docs/generate.py           write the pages
python docs/generate.py --check   say which are out of date, and exit with status 1
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin

import pydantic
import pydantic_core
import typer
import yaml

from anywire.cli import app
from anywire.config import Config, PluginChoice
from anywire.core_settings import FromCore
from anywire.plugins import KINDS, PluginKind, Plugins
from anywire.roles.config_schema import config_schema
from anywire_service_deliberation.stores import BUILT_IN, PACKAGES, store_class
from errors_page import errors_page
from http_page import http_page, openapi_text
from record_tables_page import record_tables_page
from tables import row, table

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
NOTE = "<!-- Written by docs/generate.py: change the code it describes, and run that. -->"

CONFIG = """\
# Configuration

{note}

Every setting, with its default. [How to configure](../how-to/configure.md) says where settings are read from.
Anywhere but in a list, a key can be set in the environment too: `server.port` as `ANYWIRE_SERVER__PORT`,
`transports.dds.domain` as `ANYWIRE_TRANSPORTS__DDS__DOMAIN`. An unknown key is an error that names the nearest one.

## The framework
"""

PLUGINS = """
## Plugins

Options of a transport, gateway or service stand under its name, those of the one scheduler, selector, engine or
launcher beside its name:

```yaml
transports:
  dds: {domain: 3}
selector:
  name: least_loaded
  seed: 7
```
"""

STORES = """
## Stores of deliberations

Options of a store stand beside its name:

```yaml
services:
  deliberation:
    store:
      name: nats
      servers: nats://127.0.0.1:4222
```
"""

CLI = """\
# Command line

{note}

`anywire COMMAND --help` says the same. Exit status: 0 for success, 1 for an error (one line on standard error that says
what to do), 2 for wrong usage, 130 for a command that was stopped before it had an answer. Ctrl-C or SIGTERM ends a
command in good order, a second one at once.
"""


# Settings


def alternatives(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for each in schema.get("anyOf", ()):
        yield each
        yield from alternatives(each)


def type_text(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        return type_text(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "allOf" in schema:
        return type_text(schema["allOf"][0], definitions)
    if {"string", "array", "object"} <= {each.get("type") for each in alternatives(schema)}:
        return "a name, a list of names, or names with their options"
    if "anyOf" in schema:
        kinds = [type_text(each, definitions) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return "one of " + ", ".join(f"`{each}`" if each != "" else "(empty)" for each in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    match schema.get("type"):
        case "array":
            return f"list of {type_text(schema.get('items', {}), definitions)}"
        case "object" if "properties" in schema:
            return "mapping of " + ", ".join(f"`{key}`" for key in schema["properties"])
        case "object":
            return "mapping"
        case "boolean":
            return "true or false"
        case "integer" | "number":
            return f"{schema['type']}{bounds(schema)}"
        case "string":
            return "text"
    return "any"


def bounds(schema: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [
        f"{sign} {schema[key]:g}" if isinstance(schema[key], float) else f"{sign} {schema[key]}"
        for key, sign in signs.items()
        if key in schema
    ]
    return f" {', '.join(told)}" if told else ""


def default_text(field: pydantic.fields.FieldInfo, model: type[pydantic.BaseModel], name: str) -> str:
    if field.is_required():
        return "(required)"
    follows = next((mark.key for mark in field.metadata if isinstance(mark, FromCore)), None)
    if follows is not None:
        return f"that of `{follows}`"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, list) and value and isinstance(value[0], PluginChoice):
        value = [choice.name for choice in value]
    if isinstance(value, pydantic.BaseModel):
        value = value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, dict):
        value = pydantic_core.to_jsonable_python(value)
    if value is None or value == "":
        return "(empty)"
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def settings(model: type[pydantic.BaseModel], prefix: str = "") -> Iterator[str]:
    """A row for each field, those of a section after its own, those of a list's entries after it. Exits where a field
    has no description."""
    schema = model.model_json_schema()
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, pydantic.BaseModel) and model is Config:
            yield from settings(inner, f"{name}.")
            continue
        if not field.description:
            sys.exit(f"{model.__module__}.{model.__qualname__}.{name} has no description")
        section = section_model(inner)
        if section is not None and not any(isinstance(mark, FromCore) for mark in field.metadata):
            default = "(empty)" if field.default is None else ""
            yield row(f"`{prefix}{name}`", "section", default, field.description)
            yield from settings(section, f"{prefix}{name}.")
            continue
        kind = type_text(schema["properties"][name], schema.get("$defs", {}))
        entries = entry_model(inner) if model is Config else None
        yield row(f"`{prefix}{name}`", "list" if entries else kind, default_text(field, model, name), field.description)
        if entries is not None:
            yield from settings(entries, f"{name}[].")


def section_model(annotation: object) -> type[pydantic.BaseModel] | None:
    """The model of a section with keys of its own, which may be left out where None is allowed. Not one with any keys,
    as a name with options, or whose keys say nothing."""
    found = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    models = [each for each in found if isinstance(each, type) and issubclass(each, pydantic.BaseModel)]
    if len(models) != 1 or models[0].model_config.get("extra") != "forbid":
        return None
    if not all(each.description for each in models[0].model_fields.values()):
        return None
    return models[0]


def entry_model(annotation: object) -> type[pydantic.BaseModel] | None:
    """The model of a list's entries, where these are written out key by key."""
    found = get_args(annotation)
    if get_origin(annotation) is list and issubclass(found[0], pydantic.BaseModel) and found[0] is not PluginChoice:
        model: type[pydantic.BaseModel] = found[0]
        return model
    return None


def own_plugins() -> list[tuple[PluginKind, str]]:
    """What the distributions of this repository offer, be it installed or not."""
    found: set[tuple[PluginKind, str]] = set()
    for path in (ROOT / "pyproject.toml", *(ROOT / "plugins").rglob("pyproject.toml")):
        points = tomllib.loads(path.read_text())["project"].get("entry-points", {})
        for kind in KINDS:
            found |= {(kind, name) for name in points.get(f"anywire.{kind}", {})}
    return sorted(found, key=lambda each: (KINDS.index(each[0]), each[1]))


def config_page() -> str:
    head = ("key", "value", "default", "meaning")
    lines = [CONFIG.format(note=NOTE), *table(head, settings(Config)), PLUGINS]
    plugins = Plugins()
    for kind, name in own_plugins():
        model = plugins.load(kind, name).Config
        lines.append(f"### {kind.removesuffix('s').capitalize()} `{name}`\n")
        lines += table(head, settings(model)) if model.model_fields else ["No options."]
        lines.append("")
    lines.append(STORES)
    for name in sorted({*BUILT_IN, *PACKAGES}):
        model = store_class(name).Config
        lines.append(f"### Store `{name}`\n")
        lines += table(head, settings(model)) if model.model_fields else ["No options."]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


# Commands


def parameters(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        if parameter.param_type_name == "argument":
            name = f"`{(parameter.metavar or parameter.name).upper()}`"
        else:
            name = ", ".join(f"`{option}`" for option in sorted(parameter.opts, key=len, reverse=True))
            if not parameter.is_flag:
                name += f" {parameter.metavar or parameter.name.upper()}"
        meaning = parameter.help or ""
        if (
            parameter.default not in (None, False, (), "")
            and not callable(parameter.default)
            and not parameter.required
        ):
            meaning += f" [default: {parameter.default}]"
        if parameter.envvar:
            meaning += f" [environment: {parameter.envvar}]"
        yield row(name, meaning)


def commands(command: Any, name: str) -> Iterator[str]:
    """A section for each command, those of a group after its own."""
    for word, inner in command.commands.items():
        own = f"{name} {word}"
        yield from (f"\n## `{own}`\n", inspect.cleandoc(inner.help or ""))
        if rows := list(parameters(inner)):
            yield from ("", *table(("option", "meaning"), iter(rows)))
        if hasattr(inner, "commands"):
            yield from commands(inner, own)


def cli_page() -> str:
    root = cast("Any", typer.main.get_command(app))
    lines = [CLI.format(note=NOTE), *table(("option", "meaning"), parameters(root)), *commands(root, "anywire")]
    return "\n".join(lines).rstrip() + "\n"


def schema_text() -> str:
    own = set(own_plugins())
    schema = config_schema(Plugins(), lambda kind, name: (kind, name) in own)
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def pages() -> dict[Path, str]:
    return {
        REFERENCE / "config.md": config_page(),
        REFERENCE / "config.schema.json": schema_text(),
        REFERENCE / "cli.md": cli_page(),
        REFERENCE / "http.md": http_page(NOTE),
        REFERENCE / "openapi.json": openapi_text(),
        REFERENCE / "errors.md": errors_page(NOTE),
        REFERENCE / "record-tables.md": record_tables_page(NOTE),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    stale = [path for path, text in pages().items() if not path.is_file() or path.read_text() != text]
    if check and stale:
        sys.exit(f"out of date, run `python docs/generate.py`: {', '.join(str(path) for path in stale)}")
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(pages()[path])


if __name__ == "__main__":
    main()
