"""Lines of a log as results of a command."""

from __future__ import annotations

from typing import Any

from anywire.event_bus import Missed, Reset
from anywire_engine_models.host.model_log import Logged, LogLine

MAX_ID_CHARS = 64
"""Of the id of a line."""


def log_result(logged: Logged) -> dict[str, Any]:
    """``{"line", "id"}``; ``{"missed"}``, how many lines are left out here; or ``{"reset": true}``: the line asked for
    is of an earlier life, and what follows begins with the oldest line there is."""
    match logged:
        case LogLine(text=text, id=line_id):
            return {"line": text, "id": line_id}
        case Missed(count=count):
            return {"missed": count}
        case Reset():
            return {"reset": True}


def event_head(result: Any) -> tuple[str, str]:
    """Name and id of the server-sent event for such a result: lines have an id, the others a name."""
    if not isinstance(result, dict):
        return "", ""
    name = next((name for name in ("missed", "reset") if name in result), "")
    line_id = result.get("id")
    is_id = isinstance(line_id, str) and len(line_id) <= MAX_ID_CHARS and line_id.isascii() and line_id.isprintable()
    return name, str(line_id) if is_id else ""
