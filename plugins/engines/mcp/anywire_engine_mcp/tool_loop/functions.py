"""Tools of servers as functions that a model is told of."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from anywire_engine_mcp.tools import McpTool

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOT_OF_A_NAME = re.compile(r"[^A-Za-z0-9_-]")


class Place(msgspec.Struct, frozen=True):
    """The tool that stands behind a function of the model."""

    label: str
    tool: McpTool

    def __str__(self) -> str:
        return f"{self.label}/{self.tool.name}"


def named(places: Sequence[Place], taken: Collection[str] = (), *, labelled: bool = False) -> dict[str, Place]:
    """Each tool under a name of a function that none of ``taken`` has: its own, where only one has it; else with the
    server's label before it. ``labelled``: always with the label, so that a name stays the same whichever servers there
    are."""
    counts: dict[str, int] = {}
    for place in places:
        counts[place.tool.name] = counts.get(place.tool.name, 0) + 1
    found: dict[str, Place] = {}
    for place in places:
        name = place.tool.name
        if labelled or counts[name] > 1 or name in taken or name in found or not _NAME.fullmatch(name):
            whole = _NOT_OF_A_NAME.sub("_", f"{place.label}_{name}")
            name = whole[:64]
            if len(whole) > 64 or name in taken or name in found or (not labelled and name in counts):
                name = f"{whole[:55]}_{hashlib.sha256(str(place).encode()).hexdigest()[:8]}"
        found[name] = place
    return found


def definitions(functions: Mapping[str, Place]) -> list[dict[str, Any]]:
    """The functions as OpenAI's ``tools``."""
    return [_definition(name, place.tool) for name, place in functions.items()]


def _definition(name: str, tool: McpTool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = tool.schema or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}
