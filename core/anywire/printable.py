"""Texts of strangers, so that they can be shown in a log or on a terminal."""

from __future__ import annotations


def printable(text: str, limit: int = 0) -> str:
    """``text`` with every character that is not printable as a space, cut to ``limit`` characters unless that is 0."""
    if limit and len(text) > limit:
        text = text[:limit]
    return text if text.isprintable() else "".join(each if each.isprintable() else " " for each in text)


def escaped(text: str, keep: str = "") -> str:
    """``text`` with every character that is not printable as its escape in Python (``\\x1b``), but for those of
    ``keep``. Control characters, escape sequences and marks that change the direction of writing are none."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else repr(each)[1:-1] for each in text)
