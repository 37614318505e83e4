"""Macros of llama-swap: ``${NAME}`` in the texts of its file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

PORT = "${PORT}"
MAX_TEXT = 256 * 1024
"""Characters that a text may have with its macros filled in."""
_ROUNDS = 20
_MACRO = re.compile(r"\$\{([^}]*)\}")
_KEPT = frozenset(("PORT",))


def filled_in(text: str, macros: Mapping[str, object], environment: Mapping[str, str] | None = None) -> str:
    """``text`` with its macros filled in, those in macros too; only ``${PORT}`` stays. ``${env.NAME}`` is a variable of
    ``environment`` (default: of this process). Raises `ValueError` for what is not there, and for a macro in itself."""
    variables = os.environ if environment is None else environment
    for _ in range(_ROUNDS):
        size = len(text)

        def value(found: re.Match[str]) -> str:
            nonlocal size
            name = found[1]
            if name in _KEPT:
                return found[0]
            if name.startswith("env."):
                name = name.removeprefix("env.")
                if name not in variables:
                    raise ValueError(f"the environment variable {name[:100]} is not set")
                filled = variables[name]
            elif name in macros:
                filled = _text(macros[name])
            else:
                raise ValueError(f"the macro {name[:100]} is not there")
            size += len(filled)
            if size > MAX_TEXT:
                raise ValueError(f"with its macros it is longer than {MAX_TEXT} characters")
            return filled

        if all(name in _KEPT for name in _MACRO.findall(text)):
            return text
        text = _MACRO.sub(value, text)
    raise ValueError("its macros have each other in them")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else ""
