"""Whole numbers in the query of a URL."""

from __future__ import annotations

from anywire.errors import InvalidRequest


def bounded_number(text: str, param: str, most: int) -> int:
    """The number in ``text``, 0 where it is empty. Raises `InvalidRequest` naming ``param`` for one that is no whole
    number from 0 to ``most``."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most):
        raise InvalidRequest(f"{param} must be a whole number from 0 to {most}, not {text[:32]!r}", param=param)
    return int(text)
