"""Anywire: one orchestration pipeline for LLM agents, over any transport.

PYTEST_DONT_REWRITE: this file has no assertions, and whoever has imported it before pytest starts is not warned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anywire.roles.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> object:
    """Imports what is asked for: a transport's author who imports `anywire.transport` needs no pipeline."""
    if name == "Client":
        from anywire.roles.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
