"""The orchestrator as its gateway processes see it: the one agent of their hubs, on the plane of clients.

To a gateway process it is what it is to any client, but for three things: the process names the caller of each task
(`anywire.roles.vouched_callers`), a task keeps the id that the process has given it, so that it is known by it
everywhere, and it takes tasks while no agent is there, since only the orchestrator knows how long they may wait.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from anywire.caller import Caller
from anywire.engine import EngineStatus
from anywire.identity import agent_info
from anywire.messages import TaskRequest
from anywire.pipeline.orchestrator import Orchestrator
from anywire.request_log import RequestLog
from anywire.roles.agent import Agent
from anywire.roles.fleet import CLIENT_SLOTS, FleetEngine
from anywire.roles.fleet_status import status_for_clients
from anywire.roles.vouched_callers import VouchedCallers
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.transport import Transport


class GatewayEngine(FleetEngine):
    """Answers what gateway processes bring. They log their requests themselves."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        super().__init__(orchestrator, "client", RequestLog(False))
        self._elsewhere = ()

    def _submit(self, submission: Submission, task: TaskRequest) -> TaskStream:
        return self._orchestrator.submit(submission, task_id=task.task_id)

    def _submission(self, task: TaskRequest, caller: Caller, digest: str) -> Submission:
        found = super()._submission(task, caller, digest)
        return msgspec.structs.replace(found, parent="") if found.parent else found

    def _read(self) -> EngineStatus:
        status = status_for_clients(self._orchestrator)
        return status if status.state == "ready" else msgspec.structs.replace(status, state="ready", detail="")


def gateway_link(
    orchestrator: Orchestrator, transports: Sequence[Transport], *, lease: float, heartbeat_interval: float
) -> Agent:
    """``orchestrator`` as the agent of its gateway processes, not started. ``transports`` reach nobody else."""
    engine = GatewayEngine(orchestrator)
    return Agent(
        agent_info(orchestrator.info.hub_id, engine=engine, lease=lease),
        engine,
        transports,
        slots=CLIENT_SLOTS,
        plane="client",
        heartbeat_interval=heartbeat_interval,
        log_level=logging.DEBUG,
        callers=VouchedCallers(transports),
    )
