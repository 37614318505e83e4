"""What is said of an MCP server: its state, and what changed."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from anywire_engine_mcp.tools import McpTool
from anywire_engine_models.host.server import Exit
from anywire_engine_models.host.status import ModelState


class McpStatus(msgspec.Struct, frozen=True):
    """One server now. ``state``, ``reason``, ``exit``, ``pid``, ``starts`` and ``since`` are as in `ModelStatus`;
    ``transport`` is ``stdio`` or ``http``. ``tools`` are those that may be used, as they were listed last. ``protocol``
    is the version that is spoken. ``calls`` counts those that were made, ``failed`` those of them without a result,
    ``serving`` and ``waiting`` those under way."""

    server: str
    state: ModelState = "stopped"
    reason: str = ""
    exit: Exit | None = None
    transport: str = ""
    pid: int = 0
    protocol: str = ""
    on_demand: bool = False
    starts: int = 0
    serving: int = 0
    waiting: int = 0
    calls: int = 0
    failed: int = 0
    since: float = 0.0
    tools: tuple[McpTool, ...] = ()


class McpChanged(msgspec.Struct, frozen=True):
    """A server's state, or its tools, are others than before."""

    status: McpStatus


Listener = Callable[[McpChanged], None]
"""Called on the event loop after the change, in order. What it raises is logged and harms nobody."""
