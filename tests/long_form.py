"""Tests that try many cases have a long form: ``ANYWIRE_SOAK=1`` makes them try others at each run, and far more."""

from __future__ import annotations

import os

SOAK = bool(os.environ.get("ANYWIRE_SOAK"))
TIMES = 20 if SOAK else 1


def examples(count: int) -> int:
    """How many cases to try, where ``count`` are tried in the short form."""
    return count * TIMES
