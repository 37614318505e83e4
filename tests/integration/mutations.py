"""Messages with something wrong: values of another type or out of bounds, names of others, bytes that were changed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from tests.long_form import SOAK

CONTROL = "\x1b[2J\r\n\x00\u202e"
DEEP: list[Any] = []
for _ in range(200):
    DEEP = [DEEP]
MARK = "DEEPHERE"
DEPTH = 5000
"""How deep what is nested too deeply is."""
VALUES: tuple[Any, ...] = (
    0, 1, -1, 2**31, 2**63 - 1, -(2**63), 2**64 - 1, 10**30, 1.5, 1e308, True, False, None,
    "", "x", "x" * 5000, CONTROL, "\u20ac" * 20, "[" * 3000, "{}", '{"a":' * 100, "ready", "2.0",
    [], ["x"], [1, 2], [[]] * 100, DEEP, {}, {"a": 1}, {"agent_id": "x"},
)  # fmt: skip


def seed() -> int:
    """The same at each run in the short form, another at each in the long one; ``ANYWIRE_SEED`` repeats one."""
    return int(os.environ.get("ANYWIRE_SEED") or (random.randrange(2**32) if SOAK else 13))


class Mutations:
    """``samples`` are messages of a plane. ``encode`` makes bytes of the type of one and its values, whatever they are;
    it raises for what its encoding has no form for. ``names`` gives ids of others, as they are now, which a message of
    that type may use; ``opening`` begins something nested, and
    ``encoded_mark`` is `MARK` as that encoding has it: there a member that nobody knows is nested too deeply."""

    def __init__(
        self,
        samples: Sequence[Any],
        encode: Callable[[type[Any], dict[str, Any]], bytes],
        names: Callable[[type[Any]], Sequence[Any]],
        opening: bytes,
        encoded_mark: bytes,
    ) -> None:
        self._mark = encoded_mark
        self.random, self._deep = random.Random(seed()), opening * DEPTH
        self._samples, self._encode, self._names = samples, encode, names

    def __call__(self) -> bytes:
        """The next one."""
        draw = self.random
        data = self._strange()
        kind = draw.randrange(6)
        if kind == 0:
            data = bytes(_changed(draw, bytearray(data)))
        elif kind == 1:
            data = data[: draw.randrange(len(data) + 1)]
        elif kind == 2:
            other = self._strange()
            data = data[: draw.randrange(len(data) + 1)] + other[draw.randrange(len(other) + 1) :]
        elif kind == 3 and draw.random() < 0.1:
            at = draw.randrange(len(data) + 1)
            data = data[:at] + self._deep + data[at:]
        elif kind == 4 and draw.random() < 0.1:
            data = draw.randbytes(draw.randrange(2000))
        return data

    def _strange(self) -> bytes:
        draw = self.random
        while True:
            sample = draw.choice(self._samples)
            values = msgspec.to_builtins(sample)
            names = self._names(type(sample))
            for _ in range(draw.randrange(4) if values else 0):
                self._replace(values, names)
            if draw.random() < 0.03:
                values["more"] = MARK
            try:
                return self._encode(type(sample), values).replace(self._mark, self._deep)
            except (TypeError, ValueError, OverflowError, AttributeError, KeyError):
                continue

    def _replace(self, values: dict[str, Any], names: Sequence[Any]) -> None:
        draw = self.random
        name = draw.choice(list(values))
        if isinstance(values[name], dict) and values[name] and draw.random() < 0.8:
            self._replace(values[name], names)
        else:
            value = draw.choice(names) if names and draw.random() < 0.4 else draw.choice(VALUES)
            values[name] = dict(value) if isinstance(value, dict) else value


def _changed(draw: random.Random, data: bytearray) -> bytearray:
    for _ in range(draw.randrange(1, 6)):
        at = draw.randrange(len(data) + 1)
        if draw.random() < 0.5 and at < len(data):
            data[at] = draw.randrange(256)
        elif draw.random() < 0.5:
            data[at:at] = draw.randbytes(draw.randrange(1, 9))
        else:
            del data[at : at + draw.randrange(1, 9)]
    return data
