"""One transport's way into the pipeline."""

from __future__ import annotations

from functools import partial
from typing import Any

from anywire.errors import AnywireError
from anywire.messages import AgentInfo, AgentStatus, CommandResult, Progress
from anywire.pipeline.fleet.registry import Registry
from anywire.pipeline.fleet.strangers import Strangers
from anywire.pipeline.intake.incoming import Incoming
from anywire.pipeline.services.commands import Commands
from anywire.pipeline.services.dropped import Dropped
from anywire.printable import printable


class LinkSink:
    """A `HubSink` that adds the transport's number, ``link``, to what it is told. ``own_id`` is the orchestrator's.

    A message that is not of its type, or names another hub or no task, is dropped here.
    """

    def __init__(
        self,
        registry: Registry,
        incoming: Incoming,
        commands: Commands,
        dropped: Dropped,
        own_id: str,
        link: int,
        strangers: Strangers | None = None,
    ) -> None:
        self._registry, self._incoming, self._commands, self._dropped = registry, incoming, commands, dropped
        self._own_id, self._link, self._strangers = own_id, link, strangers
        # Called for every token, and checked there.
        self.chunk_received = partial(incoming.chunk_received, link)

    def agent_joined(self, info: AgentInfo) -> None:
        if not self._is(info, AgentInfo, "?"):
            return
        # Where it joins a parent over the very transport on which it is a hub, it meets itself.
        if info.agent_id == self._own_id or (self._strangers is not None and self._strangers.joined(self._link, info)):
            return
        self._registry.joined(self._link, info)

    def agent_reported(self, agent_id: str, incarnation: int, status: AgentStatus) -> None:
        if agent_id == self._own_id or not self._is(status, AgentStatus, agent_id):
            return
        if self._strangers is not None and self._strangers.reported(self._link, agent_id, incarnation, status):
            return
        self._registry.reported(self._link, agent_id, incarnation, status)

    def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None:
        if self._strangers is not None:
            self._strangers.lost(self._link, agent_id, incarnation)
        self._registry.lost(self._link, agent_id, incarnation, printable(str(reason)))

    def progress_received(self, agent_id: str, incarnation: int, progress: Progress) -> None:
        if (
            type(progress) is Progress
            and type(progress.task_id) is str
            and type(progress.attempt) is int
            and progress.hub_id == self._own_id
        ):
            self._incoming.progress_received(self._link, agent_id, incarnation, progress)
        else:
            self._drop_task_message(agent_id, progress, Progress)

    def result_received(self, agent_id: str, incarnation: int, result: CommandResult) -> None:
        if type(result) is CommandResult and type(result.id) is str and result.hub_id == self._own_id:
            self._commands.result_received(self._link, agent_id, incarnation, result)
        else:
            self._drop_task_message(agent_id, result, CommandResult)

    def send_failed(self, agent_id: str, incarnation: int, task_id: str, attempt: int, error: AnywireError) -> None:
        if isinstance(error, AnywireError) and self._is(task_id, str, agent_id) and self._is(attempt, int, agent_id):
            if attempt:
                self._incoming.send_failed(self._link, agent_id, incarnation, (task_id, attempt), error)
            else:
                self._commands.send_failed(self._link, agent_id, incarnation, task_id, error)

    def _is(self, value: Any, kind: type[Any], agent_id: str) -> bool:
        if type(value) is kind:
            return True
        self._dropped.claim(agent_id, f"a {type(value).__name__} in place of a {kind.__name__}")
        return False

    def _drop_task_message(self, agent_id: str, message: Any, kind: type[Any]) -> None:
        if not self._is(message, kind, agent_id):
            return
        if message.hub_id != self._own_id:
            self._dropped.foreign(agent_id, "a message for another hub")
        else:
            self._dropped.claim(agent_id, f"a {kind.__name__} whose task or attempt is none")
