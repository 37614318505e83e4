"""One transport's way into the pipeline."""

from __future__ import annotations

from functools import partial

from anywire.errors import AnywireError
from anywire.messages import AgentInfo, AgentStatus
from anywire.pipeline.attempts import Attempts
from anywire.pipeline.registry import Registry


class LinkSink:
    """A `HubSink` that adds the transport's number, ``link``, to what it is told. ``own_id`` is the orchestrator's."""

    def __init__(self, registry: Registry, attempts: Attempts, own_id: str, link: int) -> None:
        self._registry, self._attempts, self._own_id, self._link = registry, attempts, own_id, link
        self.chunk_received = partial(attempts.chunk_received, link)

    def agent_joined(self, info: AgentInfo) -> None:
        # Where it joins a parent over the very transport on which it is a hub, it meets itself.
        if info.agent_id != self._own_id:
            self._registry.joined(self._link, info)

    def agent_reported(self, agent_id: str, incarnation: int, status: AgentStatus) -> None:
        if agent_id != self._own_id:
            self._registry.reported(self._link, agent_id, incarnation, status)

    def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None:
        self._registry.lost(self._link, agent_id, incarnation, reason)

    def send_failed(self, agent_id: str, incarnation: int, task_id: str, attempt: int, error: AnywireError) -> None:
        self._attempts.send_failed(self._link, agent_id, incarnation, (task_id, attempt), error)
