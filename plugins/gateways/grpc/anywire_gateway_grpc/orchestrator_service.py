"""The methods of the OrchestratorService that ask questions and tell results."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from anywire.errors import ShuttingDown
from anywire_gateway_grpc import orchestrator_pb2 as wire
from anywire_gateway_grpc.asking import Asking, needs_id, won
from anywire_gateway_grpc.calls import Call, Method
from anywire_gateway_grpc.collected import FindCollected, collected_result
from anywire_gateway_grpc.faults import Ended, why
from anywire_gateway_grpc.numbers import Numbers
from anywire_gateway_grpc.progress import Progress
from anywire_gateway_grpc.questions import deliberate, orchestrate
from anywire_gateway_grpc.results import duration_ms, metadata, results, status_of, winner
from anywire_service_deliberation.offered import not_known
from anywire_service_deliberation.record import Deliberation

NOT_HERE = "this method is for planning, which is not part of this service: ask the planning service itself"
UNSERVED = dict.fromkeys(("ProcessPlanningEvent", "DeriveSubtasks", "GetTaskContext"), NOT_HERE)
"""Methods that other servers of this contract have."""


class OrchestratorCalls:
    """``collected`` has tasks of agents elsewhere, which a client may ask for too."""

    def __init__(self, asking: Asking, numbers: Numbers, collected: FindCollected = lambda: None) -> None:
        self._asking, self._numbers, self._collected = asking, numbers, collected

    @property
    def methods(self) -> dict[str, Method]:
        return {
            "Deliberate": Method(wire.DeliberateRequest, self.deliberate),
            "DeliberateForBacklogReview": Method(wire.DeliberateRequest, self.submit),
            "StreamDeliberation": Method(wire.DeliberateRequest, streaming=self.stream),
            "GetDeliberationResult": Method(wire.GetDeliberationResultRequest, self.get_result),
            "Orchestrate": Method(wire.OrchestrateRequest, self.orchestrate),
        }

    async def deliberate(self, asked: wire.DeliberateRequest, call: Call) -> wire.DeliberateResponse:
        return _told(won(await self._asking.ended(await self._asked(asked, call), call)))

    async def submit(self, asked: wire.DeliberateRequest, call: Call) -> wire.DeliberateResponse:
        return _told(await self._asked(asked, call))

    async def stream(self, asked: wire.DeliberateRequest, call: Call) -> AsyncGenerator[wire.DeliberationUpdate, None]:
        state = await self._asked(asked, call)
        deliberations, name = self._asking.deliberations, state.question.id
        progress = Progress(state)
        async with aclosing(deliberations.updates(name, call.caller)) as updates:
            async for update in updates:
                if update.name in ("answered", "ended") and not state.is_final:
                    state = await deliberations.get(name, call.caller) or state
                if update.name == "ended" and not state.winner:
                    raise Ended(state)
                yield progress.told(update, state)
                if update.name == "ended":
                    return
        raise ShuttingDown("the orchestrator is shutting down: the same call again goes on with it", retry_after=1)

    async def get_result(
        self, asked: wire.GetDeliberationResultRequest, call: Call
    ) -> wire.GetDeliberationResultResponse:
        name = needs_id(asked.task_id, "task_id")
        state = await self._asking.deliberations.get(name, call.caller)
        if state is None:
            collected = self._collected()
            task = await collected.get(name, call.caller) if collected is not None else None
            if task is not None:
                return collected_result(task)
            return wire.GetDeliberationResultResponse(
                task_id=name,
                status=wire.DELIBERATION_STATUS_UNKNOWN,
                error_message=not_known(name).message,
            )
        return wire.GetDeliberationResultResponse(
            task_id=name,
            status=status_of(state),
            results=results(state) if state.is_final else [],
            winner_id=state.winner if state.is_final else "",
            duration_ms=duration_ms(state),
            error_message=why(state) if state.status in ("failed", "timed_out", "cancelled") else "",
            metadata=metadata(state),
        )

    async def orchestrate(self, asked: wire.OrchestrateRequest, call: Call) -> wire.OrchestrateResponse:
        request = orchestrate(asked, await self._asking.council(asked.role, call))
        most = asked.constraints.max_iterations
        state = await self._asking.submit(request, orchestrate(asked, None), call, most)
        state = won(await self._asking.ended(state, call))
        if state.is_final:
            self._numbers.orchestrated(call.caller, duration_ms(state))
        return wire.OrchestrateResponse(
            winner=winner(state) if state.is_final else None,
            candidates=results(state) if state.is_final else [],
            execution_id=state.question.id,
            duration_ms=duration_ms(state),
            metadata=metadata(state),
        )

    async def _asked(self, asked: wire.DeliberateRequest, call: Call) -> Deliberation:
        request = deliberate(asked, await self._asking.council(asked.role, call))
        return await self._asking.submit(request, deliberate(asked, None), call, asked.constraints.max_iterations)


def _told(state: Deliberation) -> wire.DeliberateResponse:
    """With its results once it has ended; before that its id alone."""
    return wire.DeliberateResponse(
        task_id=state.question.id,
        results=results(state) if state.is_final else [],
        winner_id=state.winner if state.is_final else "",
        duration_ms=duration_ms(state),
        metadata=metadata(state),
    )
