"""A user's own exercises: one JSON object per line."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec

from anywire.errors import ConfigError
from anywire_experiment.exercises.exercise import Exercise, fault_of

MAX_BYTES = 64 * 1024 * 1024
MAX_EXERCISES = 100_000

_decode = msgspec.json.Decoder(Exercise).decode


def read_exercises(path: Path) -> list[Exercise]:
    """The exercises of a file, in its order; blank lines are passed over. Raises `ConfigError` naming the line."""
    found: dict[str, Exercise] = {}
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"the exercises {path} have more than {MAX_BYTES} bytes")
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                made = _read(line, f"the exercises {path}, line {number}")
                if made.id in found:
                    raise ConfigError(f"the exercises {path}, line {number}: the id {made.id!r} is there twice")
                if len(found) == MAX_EXERCISES:
                    raise ConfigError(f"the exercises {path} are more than {MAX_EXERCISES}")
                found[made.id] = made
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the exercises {path} cannot be read: {error}") from error
    if not found:
        raise ConfigError(f"the exercises {path} have no line with one")
    return list(found.values())


def in_turn(exercises: list[Exercise], seed: int) -> Iterator[Exercise]:
    """All of them in an order that the seed decides, then again in the same one, without end."""
    return itertools.cycle(random.Random(seed).sample(exercises, len(exercises)))


def _read(line: str, where: str) -> Exercise:
    try:
        made = _decode(line)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ConfigError(
            f'{where}: {error}; a line is {{"id": "…", "prompt": "…", "answer": "…"}}, with "pattern" in the place of '
            '"answer" for a regular expression'
        ) from None
    if fault := fault_of(made):
        raise ConfigError(f"{where}: {fault}")
    return made
