"""Hook implementations of strangers: each is called by pluggy's own rules, and its failure is its own.

pluggy stops at the first implementation that raises. Here each one is wrapped, so that the others are called all the
same: what a plain implementation raises counts as ``None``, and a wrapper that raises is passed through.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import wraps
from typing import Any

import pluggy

from anywire.boundary import Boundary

_GUARDED = "_anywire_guarded"


def guard_implementations(manager: pluggy.PluginManager, boundary: Boundary) -> None:
    """Wrap every implementation registered so far that is not wrapped yet."""
    for plugin in manager.get_plugins():
        for caller in manager.get_hookcallers(plugin) or ():
            for implementation in caller.get_hookimpls():
                function = implementation.function
                if not hasattr(function, _GUARDED):
                    name = f"hook {implementation.plugin_name}"
                    guard = _wrapper if implementation.wrapper or implementation.hookwrapper else _plain
                    guarded = guard(function, name, caller.name, boundary)
                    setattr(guarded, _GUARDED, True)
                    implementation.function = guarded  # type: ignore[misc]


def _plain(function: Callable[..., Any], name: str, hook: str, boundary: Boundary) -> Callable[..., Any]:
    @wraps(function)
    def guarded(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            boundary.failed(name, hook, error)
            return None

    return guarded


def _wrapper(function: Callable[..., Any], name: str, hook: str, boundary: Boundary) -> Callable[..., Any]:
    @wraps(function)
    def guarded(*arguments: Any) -> Generator[Any, Any, Any]:
        try:
            inner = function(*arguments)
            next(inner)
        except (Exception, StopIteration) as error:
            boundary.failed(name, hook, "did not yield" if isinstance(error, StopIteration) else error)
            return (yield)
        result = yield
        try:
            inner.send(result)
        except StopIteration as stop:
            return stop.value
        except Exception as error:
            boundary.failed(name, hook, error)
            return result
        boundary.failed(name, hook, "yielded twice")
        inner.close()
        return result

    return guarded
