"""Types as JSON Schema: one component for each that has a name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pydantic

Schema = dict[str, Any]
_REF = "#/components/schemas/{name}"


class Schemas:
    """The schemas of some types, and the ``components`` that they refer to. Raises TypeError for a type that is none of
    those that `anywire_gateway_openai.openapi.form` allows."""

    def __init__(self, types: Iterable[Any]) -> None:
        known = dict.fromkeys(types)
        models = [each for each in known if _is_model(each)]
        others = [each for each in known if not _is_model(each)]
        found, self.components = msgspec.json.schema_components(others, ref_template=_REF)
        self._of: dict[Any, Schema] = dict(zip(others, found, strict=True))
        for model in models:
            schema = model.model_json_schema(ref_template=_REF.replace("{name}", "{model}"))
            self.components |= schema.pop("$defs", {})
            self.components[model.__name__] = schema
            self._of[model] = {"$ref": _REF.format(name=model.__name__)}
        for schema in (*found, *self.components.values()):
            _say_plainly(schema)

    def of(self, kind: Any) -> Schema:
        """The schema of one of the types."""
        return self._of[kind]

    def without(self, kind: Any, refused: Mapping[str, str]) -> Schema:
        """The same for a type of an object in which these members may be null at most, each for a reason."""
        told = {name: {"type": "null", "description": f"Refused: {why}."} for name, why in refused.items()}
        return {"allOf": [self.of(kind)], "properties": told} if told else self.of(kind)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def _say_plainly(schema: Any) -> None:
    """Write descriptions as CommonMark has code, and on one line each paragraph."""
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
