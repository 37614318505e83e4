"""What somebody who wrote a wrong name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """The one of ``known`` that ``word`` is a misspelling of; empty when none is near."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), "")
