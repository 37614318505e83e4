"""What the service serves over HTTP: tasks of agents elsewhere, as they were counted."""

from __future__ import annotations

from typing import Any

import msgspec

from anywire.collected_answers import CollectedAnswer, CollectedTask, CollectedTasks
from anywire.errors import InvalidRequest
from anywire.route import Request, Response, Route

LISTED, MAX_LISTED = 100, 1000

_encode = msgspec.json.Encoder().encode


def collected_routes(tasks: CollectedTasks) -> list[Route]:
    """For `anywire.route.Routes.add`."""

    async def show(request: Request) -> Response:
        task_id = request.names.get("id", "")
        found = await tasks.get(task_id, request.caller)
        if found is None:
            raise InvalidRequest(
                f"nothing was collected for the task {task_id[:128]!r}, or it is kept no more",
                status=404,
                detail_code="collected_task_not_found",
            )
        return Response(_encode(shown(found, whole=True)))

    async def listing(request: Request) -> Response:
        found = await tasks.list(request.caller, _limit(request))
        return Response(_encode({"object": "list", "data": [shown(each, whole=False) for each in found]}))

    return [
        Route("GET", "/collected-tasks", listing, summary="List tasks that agents elsewhere answer, the newest first."),
        Route(
            "GET",
            "/collected-tasks/{id}",
            show,
            summary="Tell which agents elsewhere have answered a task, and what.",
        ),
    ]


def shown(task: CollectedTask, *, whole: bool) -> dict[str, Any]:
    """The task as JSON; its proposals with ``whole`` alone."""
    return {
        "task_id": task.task_id,
        "object": "collected_task",
        "status": task.status,
        "reason": task.reason,
        "role": task.role,
        "story_id": task.story_id,
        "num_agents": task.wanted,
        "answered": len(task.completed),
        "failed": len(task.answers) - len(task.completed),
        "began": round(task.began, 3),
        "deadline": round(task.deadline, 3),
        "ended": round(task.ended, 3),
        "answers": [_answer(each, whole) for each in task.answers],
    }


def _answer(answer: CollectedAnswer, whole: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "agent_id": answer.agent_id,
        "role": answer.role,
        "status": "failed" if answer.failed else "completed",
        "duration_ms": answer.duration_ms,
        "at": round(answer.at, 3),
    }
    if answer.failed:
        return told | {"error": answer.error, "error_type": answer.error_type}
    return told | ({"proposal": answer.proposal} if whole else {})


def _limit(request: Request) -> int:
    text = request.query.get("limit", str(LISTED))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
    if not 1 <= limit <= MAX_LISTED:
        raise InvalidRequest(f"limit must be a number from 1 to {MAX_LISTED}, got {text[:64]!r}", param="limit")
    return limit
