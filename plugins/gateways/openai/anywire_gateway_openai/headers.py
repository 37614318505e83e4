"""The ``x-anywire-*`` headers of an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping

from anywire.task_stream import TaskStream

_UNPRINTABLE = re.compile(r"[^\x21-\x7e ]")


def answer_headers(stream: TaskStream) -> list[tuple[str, str]]:
    """What is known of a task when its answer begins. Where that begins with progress, its agent is not known yet."""
    headers = [("x-anywire-task", stream.task_id)]
    if stream.agent_id:
        headers += [
            ("x-anywire-transport", header_text(stream.transport)),
            ("x-anywire-agent", header_text(stream.agent_id)),
            ("x-anywire-attempts", str(stream.attempts)),
        ]
    if stream.ignored:
        headers.append(("x-anywire-ignored", ", ".join(stream.ignored)))
    return headers


def header_text(text: str) -> str:
    """``text`` with whatever a header cannot hold replaced: ids come from other machines."""
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub("?", text)


def stages_text(spans_ms: Mapping[str, float]) -> str:
    """Stage times in the syntax of ``Server-Timing``: ``received-admitted;dur=0.012, …``, in milliseconds."""
    return ", ".join([f"{name};dur={span:.3f}" for name, span in spans_ms.items()])
