"""The methods of the RayExecutorService: an existing orchestrator submits here, and asks how it stands."""

from __future__ import annotations

import time
from functools import partial

from anywire_gateway_grpc import ray_executor_pb2 as wire
from anywire_gateway_grpc.asking import Asking, needs_id
from anywire_gateway_grpc.calls import Call, Method
from anywire_gateway_grpc.faults import why
from anywire_gateway_grpc.numbers import Numbers
from anywire_gateway_grpc.questions import execute
from anywire_gateway_grpc.results import mean_score, ms
from anywire_service_deliberation.offered import not_known
from anywire_service_deliberation.prompts import newest
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.views import one_line

MOST_JOBS = 1000
"""The newest of those under way that are listed."""


class ExecutorCalls:
    def __init__(self, asking: Asking, numbers: Numbers) -> None:
        self._asking, self._deliberations, self._numbers = asking, asking.deliberations, numbers

    @property
    def methods(self) -> dict[str, Method]:
        return {
            "ExecuteDeliberation": Method(wire.ExecuteDeliberationRequest, self.execute),
            "ExecuteBacklogReviewDeliberation": Method(wire.ExecuteBacklogReviewDeliberationRequest, self.execute),
            "GetDeliberationStatus": Method(wire.GetDeliberationStatusRequest, self.deliberation),
            "GetStatus": Method(wire.GetStatusRequest, self.status),
            "GetActiveJobs": Method(wire.GetActiveJobsRequest, self.jobs),
        }

    async def execute(
        self, asked: wire.ExecuteDeliberationRequest | wire.ExecuteBacklogReviewDeliberationRequest, call: Call
    ) -> wire.ExecuteDeliberationResponse:
        council = None if asked.agents else await self._asking.council(asked.role, call)
        request = execute(asked, council, partial(self._asking.meant, call=call))
        state = await self._asking.submit(request, execute(asked, None, str), call)
        count = len(state.question.members)
        return wire.ExecuteDeliberationResponse(
            task_id=asked.task_id or state.question.id,
            deliberation_id=state.question.id,
            status="submitted",
            message=f"{count} member{'' if count == 1 else 's'} asked",
        )

    async def deliberation(
        self, asked: wire.GetDeliberationStatusRequest, call: Call
    ) -> wire.GetDeliberationStatusResponse:
        name = needs_id(asked.deliberation_id, "deliberation_id")
        state = await self._deliberations.get(name, call.caller)
        if state is None:
            return wire.GetDeliberationStatusResponse(status="not_found", error_message=not_known(name).message)
        if not state.is_final:
            return wire.GetDeliberationStatusResponse(status="running")
        if not state.winner:
            return wire.GetDeliberationStatusResponse(status="failed", error_message=why(state))
        return wire.GetDeliberationStatusResponse(status="completed", result=_result(state))

    async def status(self, asked: wire.GetStatusRequest, call: Call) -> wire.GetStatusResponse:
        told = wire.GetStatusResponse(status=self._numbers.health, uptime_seconds=self._numbers.uptime)
        if asked.include_stats and not self._numbers.closing:
            found = await self._deliberations.statistics(call.caller)
            by = found["by_status"]
            completed = by.get("completed", 0) + by.get("degraded", 0)
            failed = sum(by.get(each, 0) for each in ("failed", "timed_out", "cancelled"))
            told.stats.CopyFrom(
                wire.RayExecutorStats(
                    total_deliberations=found["count"],
                    active_deliberations=found["count"] - completed - failed,
                    completed_deliberations=completed,
                    failed_deliberations=failed,
                    average_execution_time_ms=1000 * found["seconds"].get("mean", 0.0),
                )
            )
        return told

    async def jobs(self, asked: wire.GetActiveJobsRequest, call: Call) -> wire.GetActiveJobsResponse:
        found = await self._deliberations.list(call.caller, limit=MOST_JOBS)
        return wire.GetActiveJobsResponse(jobs=[_job(each) for each in found if not each.is_final])


def _result(state: Deliberation) -> wire.DeliberationResult:
    question, first = state.question, state.ranking[0]
    rivals = f"{len(state.ranking)} proposals" if len(state.ranking) > 1 else "the only proposal"
    how = f"{first.member} wins by {question.aggregation} of {rivals}"
    how += f"; dissent of {', '.join(first.dissent)}" if first.dissent else ""
    answer = newest(state, state.winner)
    known = {
        "status": state.status,
        "reason": state.reason,
        "role": next(each.role for each in question.members if each.name == state.winner),
        "model": answer.model,
        "agent": answer.agent,
        "transport": answer.transport,
    }
    return wire.DeliberationResult(
        agent_id=state.winner,
        proposal=answer.text,
        reasoning=how,
        score=mean_score(state, state.winner),
        metadata={name: value for name, value in known.items() if value},
    )


def _job(state: Deliberation) -> wire.JobInfo:
    question = state.question
    told = wire.JobInfo(
        job_id=question.id,
        name=one_line(question.task),
        status="RUNNING" if state.status != "submitted" else "PENDING",
        submission_id=question.id,
        role=question.members[0].role,
        task_id=question.id,
        runtime=f"{max(0.0, time.time() - state.submitted):.0f}s",
    )
    told.start_time.FromMilliseconds(ms(state.submitted))
    return told
