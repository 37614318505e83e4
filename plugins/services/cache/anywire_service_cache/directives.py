"""What a client says of kept answers: the HTTP header ``cache-control`` of its request."""

from __future__ import annotations

import math
from typing import NamedTuple

HINT = "cache_control"
"""The hint that says the same of a task that did not come over HTTP."""


class Directives(NamedTuple):
    """``no_store``: the answer is not kept, and none that was is given. ``no_cache``: no kept answer is given, the new
    one takes its place. ``max_age``: seconds since a kept answer was given first that it may be old."""

    no_store: bool = False
    no_cache: bool = False
    max_age: float = math.inf


def read_directives(text: str) -> Directives:
    """Directives that are not known, or make no sense, say nothing. Of ``max-age`` the least counts."""
    if not text:
        return Directives()
    no_store = no_cache = False
    max_age = math.inf
    for part in text.lower().split(","):
        name, _, value = part.strip().partition("=")
        if name == "no-store":
            no_store = True
        elif name == "no-cache":
            no_cache = True
        elif name == "max-age":
            value = value.strip('"')
            if value.isdecimal() and value.isascii():
                max_age = min(max_age, int(value[:12]))
    return Directives(no_store, no_cache or max_age == 0, max_age)
