"""JSON of strangers that can be kept: written in other forms, and read again."""

from __future__ import annotations

from typing import Any

MAX_DEPTH = 100
"""Objects and lists within each other; encoders end at some hundreds, depending on who calls them."""
NOT_PLAIN = f"has numbers of more than 64 bits, or more than {MAX_DEPTH} lists and objects within each other"
_LEAST, _MOST = -(2**63), 2**64 - 1


def is_plain(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether decoded JSON can be written as JSON and as MessagePack, also as a part of something else."""
    if isinstance(value, dict):
        return depth > 0 and all(is_plain(each, depth - 1) for each in value.values())
    if isinstance(value, list):
        return depth > 0 and all(is_plain(each, depth - 1) for each in value)
    return not isinstance(value, int) or _LEAST <= value <= _MOST
