"""Types as JSON Schema: one component for each that has a name."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import pydantic

log = logging.getLogger(__name__)

Schema = dict[str, Any]
_REF = "#/components/schemas/{name}"


class Schemas:
    """The schemas of some types, and the ``components`` that they refer to. ``left_out`` are those that are none of
    what `anywire_gateway_openai.openapi.form` allows, and may be anything: a service may name what it wants."""

    def __init__(self, types: Iterable[Any]) -> None:
        known = {id(each): each for kind in types for each in _alternatives(kind)}
        others = [each for each in known.values() if not _is_model(each)]
        try:
            found, self.components = msgspec.json.schema_components(others, ref_template=_REF)
        except Exception:  # whatever comes of a type that is none
            others = [each for each in others if _has_schema(each)]
            found, self.components = msgspec.json.schema_components(others, ref_template=_REF)
        self._of: dict[int, Schema] = {id(each): schema for each, schema in zip(others, found, strict=True)}
        self._kept = known  # no other type gets one of these ids
        for model in filter(_is_model, known.values()):
            if not _has_schema(model):
                continue
            schema = _schema_of_model(model)
            self.components = schema.pop("$defs", {}) | self.components
            taken = model.__name__ in self.components
            name = f"{model.__module__}.{model.__qualname__}" if taken else model.__name__
            self.components[name] = schema
            self._of[id(model)] = {"$ref": _REF.format(name=name)}
        self.left_out = [each for each in known.values() if id(each) not in self._of]
        self._name_shortly()
        for schema in (*self._of.values(), *self.components.values()):
            _say_plainly(schema)

    def _name_shortly(self) -> None:
        """Name components of one name by the package that they are of, and not by all of their modules."""
        names: dict[str, str] = {}
        for name in [each for each in self.components if "." in each]:
            *packages, _, cls = name.split(".")
            short = f"{packages[-1].capitalize()}{cls}" if len(packages) > 1 else cls
            if short not in self.components:
                self.components[short] = self.components.pop(name)
                names[_REF.format(name=name)] = _REF.format(name=short)
        for schema in (*self._of.values(), *self.components.values()):
            _rename(schema, names)

    def of(self, kind: Any) -> Schema:
        """The schema of one of the types."""
        return self.any_of(kind)

    def any_of(self, *kinds: Any) -> Schema:
        """The schema of what is of one of these types."""
        found = [self._of.get(id(each), {}) for kind in kinds for each in _alternatives(kind)]
        return found[0] if len(found) == 1 else {"anyOf": found}

    def without(self, kind: Any, refused: Mapping[str, str]) -> Schema:
        """The same for a type of an object in which these members may be null at most, each for a reason."""
        told = {name: {"type": "null", "description": f"Refused: {why}."} for name, why in refused.items()}
        return {"allOf": [self.of(kind)], "properties": told} if told else self.of(kind)


def _alternatives(kind: Any) -> Iterator[Any]:
    yield from kind if isinstance(kind, tuple) else (kind,)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def _schema_of_model(model: type[pydantic.BaseModel]) -> Schema:
    return model.model_json_schema(ref_template=_REF.replace("{name}", "{model}"))


def _has_schema(kind: Any) -> bool:
    try:
        _schema_of_model(kind) if _is_model(kind) else msgspec.json.schema(kind)
    except Exception as error:
        log.warning("the API's description leaves %r out: it has no JSON schema (%s)", kind, error)
        return False
    return True


def _rename(schema: Any, names: Mapping[str, str]) -> None:
    """Put new names in the place of references."""
    members = schema.items() if isinstance(schema, dict) else enumerate(schema) if isinstance(schema, list) else ()
    for at, value in members:
        if isinstance(value, str) and value in names:
            schema[at] = names[value]
        else:
            _rename(value, names)


def _say_plainly(schema: Any) -> None:
    """Write descriptions as CommonMark has code, and each of their paragraphs on one line."""
    if isinstance(schema, list):
        for each in schema:
            _say_plainly(each)
    if isinstance(schema, dict):
        for name, value in schema.items():
            if name == "description" and isinstance(value, str):
                schema[name] = plain(value)
            else:
                _say_plainly(value)


def plain(text: str) -> str:
    """A docstring as CommonMark, each of its paragraphs on one line."""
    paragraphs = text.replace("``", "`").split("\n\n")
    return "\n\n".join(" ".join(each.split()) for each in paragraphs).strip()
