"""A value that a JSON schema describes, drawn by a random generator: the same schema and seed give the same value.

Every property that an object names is there, as structured output asks. Where a schema refers to itself, optional
properties and further items end below a depth. What cannot be met with certainty (``pattern``, ``not`` …) is refused by
name.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from anywire.errors import InvalidRequest

MAX_DEPTH = 64
"""Levels of a value; a schema that needs more has no end."""
SHALLOW = 6
"""Levels above which nothing optional is added."""
MAX_VALUES = 10_000
"""Values in all of a drawn value."""
MAX_CHARS = 100_000
"""Characters in all of a drawn value, which is also what one string may be demanded to have."""
MAX_UNIQUE = 1000
"""Items of a list that must differ: each is compared with all others."""
MAX_MEMBERS = 200_000
"""Members of schemas that are looked at while a value is drawn: a small schema can be asked for again and again."""
_REFUSED = (
    "pattern",
    "not",
    "if",
    "patternProperties",
    "propertyNames",
    "contains",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "$dynamicRef",
)
_FORMATS = {
    "date-time": "2024-05-06T07:08:09Z",
    "date": "2024-05-06",
    "time": "07:08:09Z",
    "duration": "P1D",
    "email": "word@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/word",
    "uuid": "12345678-1234-5678-1234-567812345678",
}


def schema_value(schema: object, rng: random.Random, words: Sequence[str]) -> Any:
    """Draw a value that ``schema`` describes, its texts made of ``words``.

    Raises `InvalidRequest` that names the keyword for a schema that is none, has no value, or has one of more than
    `MAX_VALUES` parts or `MAX_CHARS` characters.
    """
    return _Drawing(schema, rng, words).value(schema, 0)


def _wrong(keyword: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"the synthetic engine cannot make a value for this schema: {keyword} {why}", param="schema")


class _Drawing:
    def __init__(self, root: object, rng: random.Random, words: Sequence[str]) -> None:
        self._root, self._rng, self._words = root, rng, words
        self._made = self._chars = self._members = 0

    def value(self, schema: object, depth: int) -> Any:
        self._made += 1
        if depth > MAX_DEPTH or self._made > MAX_VALUES:
            raise _wrong("the schema", f"asks for more than {MAX_DEPTH} levels or {MAX_VALUES} values")
        if schema is True or schema == {}:
            return self._counted(self._rng.choice(self._words))
        if not isinstance(schema, dict):
            raise _wrong(f"{str(schema)[:40]!r}", "is no schema")
        found = self._resolved(schema, depth, 0)
        if "const" in found:
            return self._given(found["const"])
        if "enum" in found:
            options = found["enum"]
            if not isinstance(options, list) or not options:
                raise _wrong("enum", "must be a list of values")
            return self._given(self._rng.choice(options))
        match self._type(found):
            case "object":
                return self._object(found, depth)
            case "array":
                return self._array(found, depth)
            case "string":
                return self._counted(self._string(found))
            case "integer" | "number" as kind:
                return self._number(found, kind)
            case "boolean":
                return self._rng.random() < 0.5
            case "null":
                return None
            case other:
                raise _wrong("type", f"{str(other)[:40]!r} is not known")

    def _given(self, value: Any) -> Any:
        """A value that stands in the schema."""
        self._counted(json.dumps(value))
        return value

    def _counted(self, text: str) -> str:
        self._chars += len(text)
        if self._chars > MAX_CHARS:
            raise _wrong("the schema", f"asks for more than {MAX_CHARS} characters")
        return text

    def _look_at(self, *parts: object) -> None:
        self._members += 1 + sum(len(part) for part in parts if isinstance(part, dict | list))
        if self._members > MAX_MEMBERS:
            raise _wrong("the schema", f"has more than {MAX_MEMBERS} members to look at")

    def _resolved(self, schema: Mapping[str, Any], depth: int, steps: int) -> dict[str, Any]:
        """The schema without references and combinations."""
        if steps > MAX_DEPTH:
            raise _wrong("$ref", "leads in a circle")
        self._look_at(schema, schema.get("properties"), schema.get("required"))
        for keyword in _REFUSED:
            if keyword in schema:
                raise _wrong(keyword, "is not supported")
        found = dict(schema)
        if "$ref" in found:
            target = self._target(found.pop("$ref"))
            found = _merged(self._resolved(target, depth, steps + 1), found)
        for part in _schemas(found.pop("allOf", []), "allOf"):
            found = _merged(found, self._resolved(part, depth, steps + 1))
            self._look_at(found, found.get("properties"), found.get("required"))
        for keyword in ("anyOf", "oneOf"):
            if keyword in found:
                parts = _schemas(found.pop(keyword), keyword)
                if not parts:
                    raise _wrong(keyword, "must be a list of schemas")
                chosen = parts[0] if depth < SHALLOW else min(parts, key=_weight)
                found = _merged(found, self._resolved(chosen, depth, steps + 1))
        return found

    def _target(self, reference: object) -> Mapping[str, Any]:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise _wrong("$ref", "must lead to a place in the same schema")
        at: Any = self._root
        for name in reference.split("/")[1:]:
            name = name.replace("~1", "/").replace("~0", "~")
            if not isinstance(at, dict) or name not in at:
                raise _wrong("$ref", f"leads to nothing: {reference[:80]!r}")
            at = at[name]
        if not isinstance(at, dict):
            raise _wrong("$ref", f"leads to no schema: {reference[:80]!r}")
        return at

    def _type(self, schema: Mapping[str, Any]) -> object:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((each for each in kind if each != "null"), "null")
        if kind is None:
            kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
        return kind

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise _wrong("properties", "must be an object, and required a list")
        required = dict.fromkeys(map(str, required))
        names = list(properties) if depth < SHALLOW else [name for name in properties if name in required]
        names += [name for name in required if name not in properties]
        more = schema.get("additionalProperties", True)
        least = _count(schema, "minProperties")
        if len(names) < least:
            if least > MAX_VALUES:
                raise _wrong("minProperties", f"is above {MAX_VALUES}")
            known = set(names)
            names += [name for name in properties if name not in known][: least - len(names)]
            names += [f"{self._words[at % len(self._words)]}{at}" for at in range(least - len(names))]
        if len(names) > _count(schema, "maxProperties", MAX_VALUES):
            raise _wrong("maxProperties", "is below what is required")
        if more is False and any(name not in properties for name in names):
            raise _wrong("additionalProperties", "forbids what is required")
        extra: object = more if isinstance(more, dict) else True
        return {self._counted(name): self.value(properties.get(name, extra), depth + 1) for name in names}

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        first = _schemas(schema.get("prefixItems", []), "prefixItems")
        least, most = _count(schema, "minItems"), _count(schema, "maxItems", MAX_VALUES)
        wanted = len(first) or (self._rng.randint(1, 3) if depth < SHALLOW else 0)
        count = min(max(least, wanted), most)
        if least > most:
            raise _wrong("minItems", "is above maxItems")
        items = schema.get("items", True)
        if items is False:
            if least > len(first):
                raise _wrong("items", "forbids as many as minItems asks for")
            count = min(count, len(first))
        unique = schema.get("uniqueItems") is True
        if unique and count > MAX_UNIQUE:
            raise _wrong("uniqueItems", f"asks for more than {MAX_UNIQUE} items that differ")
        made: list[Any] = []
        misses = 0
        while len(made) < count:
            at = len(made)
            value = self.value(first[at] if at < len(first) else items, depth + 1)
            if not unique or value not in made:
                made.append(value)
                continue
            misses += 1
            if len(made) >= least:
                break
            if misses > 1000:
                raise _wrong("uniqueItems", "cannot be met")
        return made

    def _string(self, schema: Mapping[str, Any]) -> str:
        least, most = _count(schema, "minLength"), _count(schema, "maxLength", MAX_CHARS)
        if least > most:
            raise _wrong("minLength", f"is above maxLength, or above {MAX_CHARS}")
        named = _FORMATS.get(str(schema.get("format")))
        if named is not None:
            if not least <= len(named) <= most:
                raise _wrong("format", "does not go with minLength or maxLength")
            return named
        text = " ".join(self._rng.choices(self._words, k=self._rng.randint(1, 4)))
        while len(text) < least:
            text += " " + self._rng.choice(self._words)
        return text[:most].rstrip().ljust(least, "x")

    def _number(self, schema: Mapping[str, Any], kind: str) -> int | float:
        low, high = _bound(schema, "minimum"), _bound(schema, "maximum")
        above, below = _bound(schema, "exclusiveMinimum"), _bound(schema, "exclusiveMaximum")
        step = _bound(schema, "multipleOf")
        if step is not None and step < 1e-9:
            raise _wrong("multipleOf", "must be 1e-9 or more")
        whole = kind == "integer" or step is not None
        unit = 1 if step is None else step
        if kind == "integer" and step is not None and step != int(step):
            unit = step * (10 ** len(str(step).partition(".")[2]))
        if not whole:
            least = max((each for each in (low, above) if each is not None), default=None)
            most = min((each for each in (high, below) if each is not None), default=None)
            start = least if least is not None else (most - 100 if most is not None else 0)
            end = most if most is not None else start + 100
            value = start + (end - start) * self._rng.uniform(0.25, 0.75)
            rounded = round(value, 2)
            value = rounded if start < rounded < end else value
            fits = start <= value <= end and value not in (above, below)
            if not fits:
                raise _wrong("minimum", "and maximum leave no number")
            return value
        first = -math.inf
        if low is not None:
            first = math.ceil(low / unit)
        if above is not None:
            first = max(first, math.floor(above / unit) + 1)
        last = math.inf
        if high is not None:
            last = math.floor(high / unit)
        if below is not None:
            last = min(last, math.ceil(below / unit) - 1)
        if first > last:
            raise _wrong("minimum", "and maximum leave no number")
        start_at = first if first > -math.inf else (last - 100 if last < math.inf else 0)
        many = self._rng.randint(int(start_at), int(min(last, start_at + 100)))
        result = many * unit
        return int(result) if kind == "integer" else result


def _merged(one: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Both at once, as far as they speak of different things; properties and what is required are added."""
    both = {**one, **other}
    for keyword in ("properties", "$defs"):
        if isinstance(one.get(keyword), dict) and isinstance(other.get(keyword), dict):
            both[keyword] = one[keyword] | other[keyword]
    if isinstance(one.get("required"), list) and isinstance(other.get("required"), list):
        both["required"] = list(dict.fromkeys([*map(str, one["required"]), *map(str, other["required"])]))
    return both


def _schemas(parts: object, keyword: str) -> list[dict[str, Any]]:
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise _wrong(keyword, "must be a list of schemas")
    return list(parts)


def _weight(schema: Mapping[str, Any]) -> int:
    """How much deeper a value of the schema may lead."""
    kind = schema.get("type", "object")
    return 0 if kind == "null" else 2 if kind in ("object", "array") else 1


def _count(schema: Mapping[str, Any], keyword: str, otherwise: int = 0) -> int:
    count = schema.get(keyword, otherwise)
    if isinstance(count, bool) or not isinstance(count, int | float) or count != int(count) or count < 0:
        raise _wrong(keyword, "must be a whole number")
    return int(count)


def _bound(schema: Mapping[str, Any], keyword: str) -> int | float | None:
    bound = schema.get(keyword)
    if bound is None:
        return None
    if isinstance(bound, bool) or not isinstance(bound, int | float) or abs(bound) > 2**53:
        raise _wrong(keyword, "must be a number of at most 2**53")
    return bound
