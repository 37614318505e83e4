"""What is wrong when a server does not start, in words that say what to do."""

from __future__ import annotations

import os
import re
from pathlib import Path

from anywire_engine_models.host.server import Exit

_PORT_TAKEN = re.compile(r"couldn't bind|address already in use|\berrno 98\b", re.IGNORECASE)
_WELL_KNOWN = (
    (
        re.compile(r"(invalid|unknown) argument: --cache-ram"),
        "this llama-server cannot bound its memory for prompts: set prompt_cache to null, or install a newer one",
    ),
    (re.compile(r"no space left on device|disk quota exceeded|file too large", re.IGNORECASE), "a disk is full"),
    (
        re.compile(r"out of memory|cudaMalloc failed|OutOfDeviceMemory|(failed|unable) to allocate|bad_alloc"),
        "there was not enough memory for it",
    ),
    (
        re.compile(r"not within the file bounds|failed to load model|invalid magic"),
        "{file} cannot be loaded; is the file whole, and the server new enough for it?",
    ),
)
"""What stands in the last lines of a server, and what it means; the first that is found counts."""


def unreadable(path: Path) -> str:
    """Why the file of a model cannot be read; empty when it can."""
    try:
        with path.open("rb") as file:
            os.read(file.fileno(), 1)
    except OSError as error:
        return f"the model's file {path} cannot be read ({error.strerror}); is its path right, and its disk there?"
    return ""


def no_program(program: str) -> str:
    """The sentence for a program that is not there."""
    if os.sep in program and Path(program).expanduser().is_file():
        return f"{program} may not be run: `chmod +x` it, or give another program"
    where = "" if os.sep in program else " on the PATH"
    return f"there is no program {program}{where}: install it, or give the full path of one"


def says_port_is_taken(ended: Exit) -> bool:
    return any(_PORT_TAKEN.search(line) for line in ended.lines)


def advice(ended: Exit, model_file: str) -> str:
    """What the last lines of a server mean, where that is well known; else empty."""
    text = "\n".join(ended.lines)
    for pattern, meaning in _WELL_KNOWN:
        if pattern.search(text):
            return meaning.format(file=model_file or "the model")
    return ""
