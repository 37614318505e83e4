"""Answers that an engine has at hand: they are given without a run of the engine, which costs a task of the event loop
and a generator."""

from __future__ import annotations

from collections.abc import Callable

from anywire.boundary import Boundary
from anywire.clock import Clock
from anywire.engine import Delta, Engine
from anywire.messages import Chunk, TaskRequest
from anywire.roles.engine_output import is_plain

AtOnce = Callable[[TaskRequest], Delta | None]


def at_once_of(engine: Engine) -> AtOnce | None:
    """How ``engine`` is asked for answers at hand; None where it has none, or where its `Engine.run` is of a later class
    than its `Engine.at_once`."""
    if "run" in vars(engine):
        return None
    for cls in type(engine).__mro__:
        if "at_once" in vars(cls):
            return engine.at_once if cls is not Engine else None
        if "run" in vars(cls):
            return None
    return None


def answer_at_once(task: TaskRequest, ask: AtOnce, engine: Engine, clock: Clock, boundary: Boundary) -> Chunk | None:
    """The final chunk for ``task``; None where the engine is to run it. What is no answer counts as the engine's
    failure, and is left to a run as well."""
    received = clock.now_ns()
    try:
        delta = ask(task)
    except Exception as error:
        boundary.failed(f"engine {engine.name}", "at_once", error, task.task_id)
        return None
    if delta is None:
        return None
    if not is_plain(delta):
        what = f"returned {str(delta)[:80]!r}, which is no Delta of texts"
        boundary.failed(f"engine {engine.name}", "at_once", what, task.task_id)
        return None
    first = clock.now_ns()
    return Chunk(
        task.hub_id,
        task.task_id,
        task.attempt,
        0,
        (delta.text,),
        delta.extra,
        True,
        delta.finish_reason,
        delta.usage,
        "",
        received,
        received,
        first,
        first,
        attempts_used=delta.attempts_used,
    )
