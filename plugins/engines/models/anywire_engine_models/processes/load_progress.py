"""How much of a model is loaded, read from what its server writes meanwhile.

llama.cpp writes a dot for each percent, in a line of its own. Servers in Python (vLLM, SGLang) write
``Loading safetensors checkpoint shards:  50% Completed``.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_PERCENT = re.compile(rb"(?i)\bload[^\r\n]{0,200}?\b(\d{1,3})\s?%")
_DOTS = 100
_KEPT = 512
"""Bytes of a line that has not ended; a longer one tells nothing."""


class LoadProgress:
    """Calls ``told`` with a part of 1 when more is loaded than before, for one load after the other."""

    def __init__(self, told: Callable[[float], None]) -> None:
        self._told = told
        self._part = 0.0
        self._line = b""

    def feed(self, data: bytes) -> None:
        lines = (self._line + data).replace(b"\r", b"\n").split(b"\n")
        self._line = lines[-1][-_KEPT:]
        part = max((_part(line) for line in lines[-_DOTS:]), default=0.0)
        if part > self._part:
            self._part = part
            self._told(part)


def _part(line: bytes) -> float:
    if line and not line.strip(b"."):
        return min(len(line) / _DOTS, 1.0)
    found = _PERCENT.search(line[:_KEPT])
    return min(int(found[1]) / 100, 1.0) if found else 0.0
