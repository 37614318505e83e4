"""Ids of traces and spans, and which traces are kept."""

from __future__ import annotations

from random import getrandbits

_RANGE = 2**64


def new_trace_id() -> str:
    return f"{getrandbits(128) or 1:032x}"


def new_span_id() -> str:
    return f"{getrandbits(64) or 1:016x}"


def is_kept(trace_id: str, ratio: float) -> bool:
    """Whether a trace belongs to the share ``ratio``: by its id, so that all who use the same share keep the same
    traces."""
    return int(trace_id[16:], 16) < ratio * _RANGE
