"""A hub with an `Activity` beside it, which sees what it sends and what it receives."""

from __future__ import annotations

from anywire.errors import AnywireError
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, HubInfo, TaskRequest, ToAgent
from anywire.transport import HubSink, Plane
from anywire_dds.activity import Activity
from anywire_dds.config import DdsConfig
from anywire_dds.hub import DdsHub


class _ObservingSink:
    """A hub's sink with an `Activity` beside it."""

    def __init__(self, sink: HubSink, activity: Activity) -> None:
        self._sink, self._activity = sink, activity

    def agent_joined(self, info: AgentInfo) -> None:
        self._sink.agent_joined(info)

    def agent_reported(self, agent_id: str, incarnation: int, status: AgentStatus) -> None:
        self._sink.agent_reported(agent_id, incarnation, status)

    def chunk_received(self, agent_id: str, incarnation: int, chunk: Chunk) -> None:
        self._activity.received(agent_id, chunk)
        self._sink.chunk_received(agent_id, incarnation, chunk)

    def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None:
        self._activity.agent_lost(agent_id, reason)
        self._sink.agent_lost(agent_id, incarnation, reason)

    def send_failed(self, agent_id: str, incarnation: int, task_id: str, attempt: int, error: AnywireError) -> None:
        if error.phase == "not_sent":  # anything else is a notice, and the attempt goes on
            self._activity.failed(task_id, attempt, error)
        self._sink.send_failed(agent_id, incarnation, task_id, attempt, error)


class ObservableHub(DdsHub):
    """A hub that observers can see."""

    def __init__(self, config: DdsConfig, info: HubInfo, plane: Plane, sink: HubSink) -> None:
        self.activity = Activity(config, info)
        try:
            super().__init__(config, info, plane, _ObservingSink(sink, self.activity))
        except BaseException:
            self.activity.endpoints.abandon()
            raise

    def send(self, agent_id: str, message: ToAgent) -> None:
        super().send(agent_id, message)
        if isinstance(message, TaskRequest):
            self.activity.begun(agent_id, message)
        elif isinstance(message, Cancel):
            self.activity.cancelled(message)

    async def _close(self) -> None:
        await super()._close()
        await self.activity.close()
