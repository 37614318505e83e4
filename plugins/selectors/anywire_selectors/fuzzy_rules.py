"""Fuzzy rules: sets with their membership functions, rules over them, and what they conclude."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic
import yaml

from anywire.errors import ConfigError
from anywire.plugins import describe_validation

Input = Literal["load", "latency", "urgency", "complexity"]
INPUTS: tuple[Input, ...] = get_args(Input)
UNITS: dict[Input, str] = {
    "load": "share of the slots in use, 0 to 1",
    "latency": "ms to the first token",
    "urgency": "0 to 1",
    "complexity": "0 to 1",
}
MAX_FILE_BYTES = 256 * 1024

Number = Annotated[float, pydantic.Field(allow_inf_nan=False)]
Points = Annotated[list[Number], pydantic.Field(min_length=3, max_length=4)]
Name = Annotated[str, pydantic.Field(min_length=1, max_length=40)]

_SETS: dict[Input, dict[str, list[float]]] = {
    "load": {"low": [0, 0, 0.5], "medium": [0.25, 0.5, 0.75], "high": [0.5, 1, 1]},
    "latency": {"short": [0, 0, 200, 1000], "long": [200, 1000, 1000]},
    "urgency": {"low": [0, 0, 0.5], "medium": [0.25, 0.5, 0.75], "high": [0.5, 1, 1]},
    "complexity": {"low": [0, 0, 0.6], "high": [0.4, 1, 1]},
}
_RULES: list[dict[str, Any]] = [
    {"if": {"load": "low"}, "then": 0.9},
    {"if": {"load": "medium"}, "then": 0.5},
    {"if": {"load": "high"}, "then": 0.1},
    {"if": {"latency": "short"}, "then": 0.8},
    {"if": {"latency": "long"}, "then": 0.2},
    {"if": {"urgency": "high", "latency": "short", "load": "low"}, "then": 1.0, "weight": 2},
    {"if": {"urgency": "high", "latency": "long"}, "then": 0.0, "weight": 2},
    {"if": {"urgency": "low", "load": "medium"}, "then": 0.7},
    {"if": {"complexity": "high", "load": "low"}, "then": 1.0},
    {"if": {"complexity": "high", "load": "high"}, "then": 0.0},
]


class Rule(pydantic.BaseModel):
    """``if``: a set for each of some inputs, all of which must hold. ``then``: how well the agent suits, 0 to 1."""

    model_config = pydantic.ConfigDict(extra="forbid")

    when: dict[Input, Name] = pydantic.Field(alias="if", min_length=1)
    then: float = pydantic.Field(ge=0, le=1)
    weight: float = pydantic.Field(default=1.0, gt=0, le=1000)

    def __str__(self) -> str:
        conditions = " and ".join(f"{name} is {a_set}" for name, a_set in self.when.items())
        return f"if {conditions} then {self.then:g}"


class FuzzyRules(pydantic.BaseModel):
    """What a file of rules says. ``sets``: for each input its sets, each with the points of its membership function,
    ascending: three for a triangle (0 at the first, 1 at the second, 0 at the third), four for a trapezoid. Two equal
    points at an end make it stay 1 beyond that end."""

    model_config = pydantic.ConfigDict(extra="forbid")

    sets: dict[Input, dict[Name, Points]] = pydantic.Field(
        default_factory=lambda: {name: dict(sets) for name, sets in _SETS.items()}
    )
    rules: list[Rule] = pydantic.Field(
        default_factory=lambda: [Rule.model_validate(rule) for rule in _RULES], min_length=1, max_length=256
    )

    _compiled: list[tuple[float, float, tuple[tuple[Input, str], ...], Rule]] = pydantic.PrivateAttr(
        default_factory=list
    )

    @pydantic.model_validator(mode="after")
    def _all_is_known(self) -> FuzzyRules:
        for name, sets in self.sets.items():
            for a_set, points in sets.items():
                if sorted(points) != points or points[0] == points[-1]:
                    raise ValueError(f"sets.{name}.{a_set}: the points must ascend, got {points}")
        for number, rule in enumerate(self.rules):
            for name, a_set in rule.when.items():
                if a_set not in self.sets.get(name, {}):
                    known = ", ".join(self.sets.get(name, {})) or "none"
                    raise ValueError(f"rules.{number}: {name} has no set {a_set!r}; sets: {known}")
        self._compiled = [(rule.weight, rule.then, tuple(rule.when.items()), rule) for rule in self.rules]
        return self

    def degrees(self, values: Mapping[Input, float]) -> dict[tuple[Input, str], float]:
        """How far each of the ``values`` belongs to each set of its input."""
        return {
            (name, a_set): membership(points, value)
            for name, value in values.items()
            for a_set, points in self.sets.get(name, {}).items()
        }

    def conclude(self, degrees: Mapping[tuple[Input, str], float]) -> tuple[float, Rule | None]:
        """How well an agent with these `degrees` of all inputs suits, 0.0 to 1.0, and the rule that counts most; 0.5
        and no rule when none holds.

        The inference is that of T. Takagi and M. Sugeno, "Fuzzy Identification of Systems and Its Applications to
        Modeling and Control", IEEE SMC 15 (1), 1985, of order 0: a rule holds as far as the least of its conditions
        does, and the mean of what the rules conclude, weighted by that, is the result."""
        total = weights = strongest = 0.0
        counts: Rule | None = None
        for weight, then, conditions, rule in self._compiled:
            holds = weight * min([degrees[condition] for condition in conditions])
            if holds:
                total += holds * then
                weights += holds
                if holds > strongest:
                    strongest, counts = holds, rule
        return (total / weights if weights > 0 else 0.5), counts


def membership(points: list[float], value: float) -> float:
    """How far ``value`` belongs to the set of that triangle or trapezoid, 0.0 to 1.0."""
    first, top, last, end = points[0], points[1], points[-2], points[-1]
    if math.isnan(value):
        return 0.0
    # An end of two equal points goes on for ever.
    if value < top:
        return max(0.0, (value - first) / (top - first)) if first < top else 1.0
    if value > last:
        return max(0.0, (end - value) / (end - last)) if last < end else 1.0
    return 1.0


def read_rules(path: Path) -> FuzzyRules:
    """The rules in a YAML file. Raises `ConfigError`, which says what is wrong and where."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the rules cannot be read: {error}") from error
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} has more than {MAX_FILE_BYTES} bytes")
    try:
        given = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    if given is not None and not isinstance(given, dict):
        raise ConfigError(f"{path} must have the members `sets` and `rules`")
    try:
        return FuzzyRules.model_validate(given or {})
    except pydantic.ValidationError as error:
        raise ConfigError(f"{path}: {describe_validation(error, FuzzyRules, '')}") from error
