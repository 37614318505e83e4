"""How agents, tasks, chunks and events look as JSON, wherever they are shown: over HTTP and the client plane alike."""

from __future__ import annotations

from typing import Any

import msgspec

from anywire.agent_health import AgentHealth
from anywire.context import TaskRecord, TaskView
from anywire.event_bus import Missed, Reset
from anywire.events import Event
from anywire.messages import Chunk
from anywire.selector import AgentView


def agent_json(view: AgentView, health: AgentHealth) -> dict[str, Any]:
    info, status = view.info, view.status
    return {
        "id": info.agent_id,
        "incarnation": info.incarnation,
        "host": info.host,
        "pid": info.pid,
        "transport": view.transport,
        "engine": info.engine,
        "models": list(view.offers),
        "offers": [msgspec.to_builtins(offer) for offer in view.offers.values()],
        "state": status.state,
        "detail": status.detail,
        "slots": status.slots,
        "load": {"active": status.active, "queued": status.queued, "in_flight": view.in_flight},
        "completed": view.completed,
        "failed": view.failed,
        "latency_ms": round(view.latency_ema_ms, 3),
        "specialization": info.specialization,
        "capabilities": list(info.capabilities),
        "device": info.device,
        "resources": dict(status.resources),
        "health": health_json(health),
    }


def health_json(health: AgentHealth) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(health)
    told["retry_in_ms"] = round(1e3 * told.pop("retry_in_s"))
    return told


def ordered_json(agent_id: str, health: AgentHealth) -> dict[str, Any]:
    """What is told to who has ordered something of an agent."""
    return {"id": agent_id, "object": "agent", "health": health_json(health)}


def task_json(view: TaskView) -> dict[str, Any]:
    """``caller`` is the id of who submitted it."""
    told: dict[str, Any] = msgspec.to_builtins(view)
    caller = told.pop("caller")
    return {
        "id": told.pop("task_id"),
        "object": "task",
        **told,
        "age_ms": round(view.age_ms, 3),
        "tenant": caller["tenant"],
        "caller": caller["id"],
    }


def record_json(record: TaskRecord) -> dict[str, Any]:
    """As `task_json`, and with it how the task ended, how its agents were chosen, and the milliseconds between the
    stages that it has reached."""
    decisions = [msgspec.to_builtins(each) for each in record.decisions]
    told = {"error": record.error, "message": record.message, "decisions": decisions}
    return (
        task_json(record.view)
        | told
        | {"stages_ms": record.stages.spans_ms()}
        | {"error": record.error, "message": record.message, "decisions": decisions}
    )


def chunk_json(chunk: Chunk) -> dict[str, Any]:
    """What a follower is told of a chunk; members that say nothing are left out. ``seq`` counts pieces of text: where
    it jumps, the follower was too slow."""
    told: dict[str, Any] = {"seq": chunk.seq, "pieces": len(chunk.deltas), "text": "".join(chunk.deltas)}
    told["final"] = chunk.final
    for name, text in (("extra", chunk.extra), ("usage", chunk.usage)):
        if text:
            told[name] = _parsed(text)
    if chunk.finish_reason:
        told["finish_reason"] = chunk.finish_reason
    return told


def event_json(event: Event | Missed | Reset) -> dict[str, Any]:
    """``type`` says which event it is: `Missed` is ``missed``, and `Reset` is ``reset``."""
    if isinstance(event, Missed):
        return {"type": "missed", "count": event.count}
    if isinstance(event, Reset):
        return {"type": "reset"}
    told: dict[str, Any] = msgspec.to_builtins(event)
    return told


def _parsed(text: str) -> Any:
    """What an agent sent as JSON; the text itself where it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return text
