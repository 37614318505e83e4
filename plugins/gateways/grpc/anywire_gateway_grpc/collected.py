"""Tasks of agents elsewhere, as another service has counted their answers, in the messages of clients."""

from __future__ import annotations

from collections.abc import Callable

from anywire.collected_answers import SERVICE, CollectedAnswer, CollectedStatus, CollectedTask, CollectedTasks, Collects
from anywire.context import Context
from anywire_gateway_grpc import orchestrator_pb2 as wire
from anywire_gateway_grpc.results import VERSION, ms

STATUSES: dict[CollectedStatus, wire.DeliberationStatus] = {
    "collecting": wire.DELIBERATION_STATUS_IN_PROGRESS,
    "completed": wire.DELIBERATION_STATUS_COMPLETED,
    "failed": wire.DELIBERATION_STATUS_FAILED,
    "timed_out": wire.DELIBERATION_STATUS_TIMEOUT,
}

FindCollected = Callable[[], CollectedTasks | None]
"""What counts answers here, if anything does."""


def collected_of(context: Context) -> CollectedTasks | None:
    collects: Collects | None = context.services.get(SERVICE)
    return getattr(collects, "collected", None)


def collected_result(task: CollectedTask) -> wire.GetDeliberationResultResponse:
    """Its answers in the order in which they came. Nobody has scored them: none wins."""
    return wire.GetDeliberationResultResponse(
        task_id=task.task_id,
        status=STATUSES[task.status],
        results=[_result(each) for each in task.completed] if task.is_final else [],
        duration_ms=ms(task.ended - task.began) if task.is_final else 0,
        error_message=task.reason if task.status in ("failed", "timed_out") else "",
        metadata=wire.OrchestratorMetadata(
            orchestrator_version=VERSION,
            timestamp_ms=ms(task.ended or task.began),
            execution_id=task.task_id,
            tags={name: value for name, value in {"collected": "true", "reason": task.reason}.items() if value},
        ),
    )


def _result(answer: CollectedAnswer) -> wire.DeliberationResult:
    return wire.DeliberationResult(
        proposal=wire.Proposal(
            author_id=answer.agent_id,
            author_role=answer.role,
            content=answer.text,
            created_at_ms=ms(answer.at),
        )
    )
