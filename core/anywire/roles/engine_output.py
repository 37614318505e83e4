"""What an engine yields, looked at before it goes on a wire."""

from __future__ import annotations

from typing import TypeGuard

from anywire.boundary import Boundary
from anywire.engine import Delta
from anywire.errors import EngineFailed


def is_plain(delta: object) -> TypeGuard[Delta]:
    """Whether it is a `Delta` of texts at first sight: this is asked for every token."""
    return (
        type(delta) is Delta
        and type(delta.text) is str
        and type(delta.extra) is str
        and type(delta.usage) is str
        and type(delta.finish_reason) is str
        and (delta.parts == () or _are_parts(delta))
    )


def checked(delta: object, engine: str, boundary: Boundary, task_id: str) -> Delta:
    """Look closely at what is not plainly a `Delta` of texts. Raises `EngineFailed` unless it is one all the same."""
    if (
        isinstance(delta, Delta)
        and all(isinstance(text, str) for text in (delta.text, delta.extra, delta.usage, delta.finish_reason))
        and (delta.parts == () or _are_parts(delta))
    ):
        return delta
    what = f"yielded {str(delta)[:80]!r}, which is no Delta of texts"
    boundary.failed(f"engine {engine}", "run", what, task_id)
    raise EngineFailed(f"the engine {engine} {what}")


def _are_parts(delta: Delta) -> bool:
    try:
        return type(delta.parts) is tuple and "".join(delta.parts) == delta.text
    except TypeError:  # not all of them are texts
        return False
