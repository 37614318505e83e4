"""What is published when a task has ended, in the fields that existing clients read. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from anywire.collected_answers import CollectedAnswer, CollectedTask

MAX_TEXT_BYTES = 256 * 1024
"""Bytes of the texts of one event, which all its decisions share. The whole texts can be asked for."""
SHORT_BYTES, SHORT_AGENTS = 16 * 1024, 100
"""Bytes of the texts, and agents, of an event where the server does not take a longer one."""
CUT = " […]"


def is_completed(task: CollectedTask) -> bool:
    """Whether an ended task is told as completed; else it is told as failed, which is so after its time too."""
    return task.status == "completed"


def message_id(task: CollectedTask) -> str:
    """The same for each attempt to tell this end."""
    return f"collected:{task.task_id}:{round(task.began * 1000)}"


def told_shorter(task: CollectedTask) -> dict[str, Any]:
    """`told` for a server that does not take it: the first agents alone, and the beginnings of their texts."""
    payload = told(task, SHORT_BYTES) | {"cut": True}
    for name in ("failed_agents", "decisions"):
        if name in payload:
            payload[name] = payload[name][:SHORT_AGENTS]
    return payload


def told(task: CollectedTask, most: int = MAX_TEXT_BYTES) -> dict[str, Any]:
    """The payload for an ended task, with ``most`` bytes of texts."""
    payload: dict[str, Any] = {
        "task_id": task.task_id,
        "story_id": task.story_id,
        "role": task.role,
        "num_agents": task.wanted or len(task.answers),
        "failed_agents": [each.agent_id for each in task.answers if each.failed],
        "duration_ms": round(1000 * (task.ended - task.began)),
        "timestamp": iso(task.ended),
    }
    if not is_completed(task):
        kind = "timeout" if task.status == "timed_out" else "all_failed"
        return payload | {"error": task.reason or "no agent has answered", "error_type": kind}
    room = most // max(1, len(task.completed))
    return payload | {"decisions": [_decision(each, room) for each in task.completed]}


def iso(seconds: float) -> str:
    """A Unix time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _decision(answer: CollectedAnswer, room: int) -> dict[str, Any]:
    return {"id": answer.agent_id, "type": "proposal", "role": answer.role, "rationale": _cut(answer.text, room)}


def _cut(text: str, room: int) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= room:
        return encoded.decode()
    return encoded[: max(0, room - len(CUT.encode()))].decode(errors="ignore") + CUT
