"""The factors of a plan: levels, each a value with a label."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from anywire_experiment.plan.companions import label
from anywire_experiment.plan.section import Section

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*$"


def number_as_name(value: object) -> object:
    """A number as a name, which YAML reads where a person wrote one."""
    return label(value) if isinstance(value, bool | int | float) else value


Name = Annotated[str, pydantic.BeforeValidator(number_as_name), pydantic.Field(pattern=f"^{_NAME}", max_length=64)]


class Level(Section):
    """One value of a factor."""

    label: Annotated[str, pydantic.Field(pattern=f"^-?{_NAME}", max_length=64)]
    value: Any


def _levels(value: object) -> object:
    if not isinstance(value, list) or not value:
        raise ValueError("a factor needs a list of levels")
    made = []
    for each in value:
        if isinstance(each, Level):
            made.append(each)
        elif isinstance(each, Mapping):
            if len(each) != 1:
                raise ValueError(f"a level is a value or one pair of label and value, found {dict(each)!r}")
            ((name, inner),) = each.items()
            made.append(Level(label=label(name), value=inner))
        elif isinstance(each, list):
            raise ValueError(f"a level that is a list needs a label: {{some-name: {json.dumps(each)}}}")
        else:
            made.append(Level(label=label(each), value=each))
    labels = [each.label for each in made]
    if double := next((each for each in labels if labels.count(each) > 1), None):
        raise ValueError(f"the level {double!r} is there twice; two levels of one value need labels")
    return made


def _as_pairs(levels: tuple[Level, ...]) -> list[dict[str, Any]]:
    """In the shape a plan's file has, so that a dumped plan is one again."""
    return [{each.label: each.value} for each in levels]


Levels = Annotated[
    tuple[Level, ...],
    pydantic.BeforeValidator(_levels),
    pydantic.PlainSerializer(_as_pairs),
    pydantic.WithJsonSchema({"type": "array", "minItems": 1, "items": {}}),
]
