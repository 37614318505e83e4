"""Tests that try many cases have a long form: ``ANYWIRE_SOAK=1`` makes them try others at each run, and far more."""

from __future__ import annotations

import os

SOAK = bool(os.environ.get("ANYWIRE_SOAK"))
TIMES = 20 if SOAK else 1


def examples(count: int) -> int:
    """How many cases to try, where ``count`` are tried in the short form."""
    return count * TIMES


def in_the_long_form_alone(suite: type, *kits: type) -> None:
    """In the short form, leave the tests of ``kits`` out of ``suite``, a subclass of them. For a transport whose code
    another suite runs all of ``kits`` against."""
    if not SOAK:
        for name in [name for kit in kits for name in vars(kit) if name.startswith("test_")]:
            setattr(suite, name, None)
