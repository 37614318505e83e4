"""The ``x-anywire-*`` headers of an answer.

| header | meaning |
|---|---|
| ``x-request-id`` | id of the request, in the log too: the client's own, or a new one |
| ``x-anywire-task`` | id of the task, for ``tasks/{id}`` |
| ``x-anywire-agent`` | id of the agent that answers |
| ``x-anywire-transport`` | transport over which it does |
| ``x-anywire-attempts`` | number of the attempt that answers |
| ``x-anywire-stages`` | of a whole answer: milliseconds between the stages, in the syntax of ``Server-Timing`` |
| ``x-anywire-ignored`` | ``priority``: one was sent, and the scheduler in use has no use for it |
| ``x-anywire-origin`` | of an error: ``client``, ``pipeline``, ``transport``, ``agent`` or ``engine``, where it arose |
| ``x-should-retry`` | of an error: ``false`` where trying again would end the same way |
| ``retry-after`` | of an error: seconds after which trying again makes sense |
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from anywire.task_stream import TaskStream

_UNPRINTABLE = re.compile(r"[^\x21-\x7e ]")


def answer_headers(stream: TaskStream, not_followed: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """What is known of a task when its answer begins. Where that begins with progress, its agent is not known yet.
    ``not_followed`` are members of the request that the answer shows no sign of."""
    headers = [("x-anywire-task", stream.task_id)]
    if stream.agent_id:
        headers += [
            ("x-anywire-transport", header_text(stream.transport)),
            ("x-anywire-agent", header_text(stream.agent_id)),
            ("x-anywire-attempts", str(stream.attempts)),
        ]
    if stream.ignored or not_followed:
        headers.append(("x-anywire-ignored", ", ".join((*stream.ignored, *not_followed))))
    return headers


def header_text(text: str) -> str:
    """``text`` with whatever a header cannot hold replaced: ids come from other machines."""
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub("?", text)


def stages_text(spans_ms: Mapping[str, float]) -> str:
    """Stage times in the syntax of ``Server-Timing``: ``received-admitted;dur=0.012, …``, in milliseconds."""
    return ", ".join([f"{name};dur={span:.3f}" for name, span in spans_ms.items()])
