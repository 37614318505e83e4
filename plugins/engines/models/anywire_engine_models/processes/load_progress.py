"""How much of a model is loaded: read from what its server writes meanwhile, or from how much of its file is in memory.

llama.cpp's own server writes a dot for each percent, in a line of its own. Servers in Python (vLLM, SGLang) write
``Loading safetensors checkpoint shards:  50% Completed``. llama.cpp inside xllamacpp writes nothing: it maps the
file into its memory, and Linux tells how much of that is there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

_PERCENT = re.compile(rb"(?i)\bload[^\r\n]{0,200}?\b(\d{1,3})\s?%")
_DOTS = 100
_KEPT = 512
"""Bytes of a line that has not ended; a longer one tells nothing."""
_MOST_MAPPED = 0.99
"""A file that is in memory is not yet a model that is ready."""


class LoadProgress:
    """Calls ``told`` with a part of 1 when more is loaded than before, until it is closed."""

    def __init__(self, told: Callable[[float], None]) -> None:
        self._told = told
        self._part = 0.0
        self._is_closed = False

    def close(self) -> None:
        """Tell no more: the model is loaded."""
        self._is_closed = True

    def reached(self, part: float) -> None:
        if part > self._part and not self._is_closed:
            self._part = part
            try:
                self._told(part)
            except Exception:
                log.exception("who is told how much is loaded failed, and is told no more")
                self.close()

    def stream(self) -> Callable[[bytes], None]:
        """What is to get all bytes of one stream of the server."""
        line = b""

        def feed(data: bytes) -> None:
            nonlocal line
            lines = (line + data).replace(b"\r", b"\n").split(b"\n")
            line = lines[-1][-_KEPT:]
            self.reached(max((_part(each) for each in lines[-_DOTS:]), default=0.0))

        return feed


def mapped_part(pid: int, file: Path) -> float:
    """The part of ``file`` that the process has in its memory; 0 where nothing tells it. Call it on a thread."""
    try:
        size, name = file.stat().st_size, str(file.resolve())
        kilobytes, is_of_file = 0, False
        with Path(f"/proc/{pid}/smaps").open(errors="replace") as maps:
            for line in maps:
                word, _, rest = line.partition(" ")
                if not word.endswith(":"):
                    is_of_file = line.rstrip("\n").endswith(name)
                elif is_of_file and word == "Rss:":
                    kilobytes += int(rest.split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return min(round(1024 * kilobytes / size, 2), _MOST_MAPPED) if size else 0.0


def _part(line: bytes) -> float:
    if line and not line.strip(b"."):
        return min(len(line) / _DOTS, 1.0)
    found = _PERCENT.search(line[:_KEPT])
    return min(int(found[1]) / 100, 1.0) if found else 0.0
