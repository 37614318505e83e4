"""The fields that the contract names for each subject, built by pure functions. Everything is plain JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anywire_service_nats.envelopes import told_time

OF_CONSTRAINTS = ("story_id", "plan_id")
OF_METADATA = ("story_id", "ceremony_id", "task_type")


def answer_completed(
    *,
    task_id: str,
    agent_id: str,
    role: str,
    num_agents: int,
    proposal: Mapping[str, Any],
    duration_ms: int,
    time: float,
    constraints: Mapping[str, Any],
    summary: str = "",
    tokens_in: int = 0,
    tokens_out: int = 0,
    artifacts: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """``agent.response.completed``. ``proposal`` has its text in ``content``; ``time`` is seconds since 1970."""
    return {
        "task_id": task_id,
        "status": "completed",
        "agent_id": agent_id,
        "role": role,
        "num_agents": num_agents,
        "proposal": dict(proposal),
        "duration_ms": duration_ms,
        "timestamp": told_time(time),
        "constraints": dict(constraints),
        "artifacts": [dict(each) for each in artifacts],
        "summary": summary,
        "metrics": {"tokens_in": tokens_in, "tokens_out": tokens_out, "latency_ms": duration_ms},
        "workspace_report": {},
    }


def answer_failed(
    *,
    task_id: str,
    agent_id: str,
    role: str,
    num_agents: int,
    error: str,
    error_type: str,
    duration_ms: int,
    time: float,
) -> dict[str, Any]:
    """``agent.response.failed``. ``error_type`` is a code (``agent_lost``)."""
    return {
        "task_id": task_id,
        "status": "failed",
        "agent_id": agent_id,
        "role": role,
        "num_agents": num_agents,
        "error": error,
        "error_type": error_type,
        "duration_ms": duration_ms,
        "timestamp": told_time(time),
    }


def deliberation_completed(
    *,
    task_id: str,
    story_id: str,
    decisions: Sequence[Mapping[str, str]],
    time: float,
    winner: str = "",
    role: str = "",
) -> dict[str, Any]:
    """``orchestration.deliberation.completed``. Each decision has ``id``, ``type`` and ``rationale``."""
    return {
        "story_id": story_id,
        "task_id": task_id,
        "decisions": [dict(each) for each in decisions],
        "timestamp": told_time(time),
        "winner": winner,
        "role": role,
    }


def deliberation_failed(*, task_id: str, story_id: str, error: str, time: float) -> dict[str, Any]:
    """``orchestration.deliberation.failed``."""
    return {"story_id": story_id, "task_id": task_id, "error": error, "timestamp": told_time(time)}


def task_dispatched(*, task_id: str, story_id: str, agent: str, role: str, time: float) -> dict[str, Any]:
    """``orchestration.task.dispatched``."""
    return {"task_id": task_id, "story_id": story_id, "agent": agent, "role": role, "timestamp": told_time(time)}


def constraints(metadata: Mapping[str, Any], *, task_id: str, num_agents: int, timeout: float) -> dict[str, Any]:
    """The ``constraints`` of an answer, with what the request's ``metadata`` says of its story, plan and ceremony."""
    known = {name: _text(metadata, name) for name in OF_METADATA}
    return {
        **{name: _text(metadata, name) for name in OF_CONSTRAINTS},
        "timeout_seconds": int(timeout),
        "max_retries": _number(metadata, "max_retries"),
        "metadata": {**known, "task_id": task_id, "num_agents": num_agents},
    }


def _text(metadata: Mapping[str, Any], name: str) -> str:
    value = metadata.get(name, "")
    return value if isinstance(value, str) else ""


def _number(metadata: Mapping[str, Any], name: str) -> int:
    value = metadata.get(name, 0)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
