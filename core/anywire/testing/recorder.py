"""Waiting for what happens, instead of for time to pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from anywire.errors import AnywireError
from anywire.messages import (
    AgentInfo,
    AgentStatus,
    Cancel,
    Chunk,
    Command,
    CommandResult,
    Credit,
    HubInfo,
    Progress,
    TaskRequest,
)
from anywire.testing.patience import PATIENCE, expect
from anywire.transport import Reply

__all__ = ["PATIENCE", "Recorder", "RecordingAgentSink", "RecordingHubSink"]


class Recorder:
    """Events in the order they happened, each a tuple whose first item names it.

    ``patience`` is how many seconds `until` and `event` wait unless told otherwise.
    """

    patience = PATIENCE

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self._changed: list[asyncio.Future[None]] = []

    def add(self, *event: Any) -> None:
        self.events.append(event)
        for waiter in self._changed:
            if not waiter.done():
                waiter.set_result(None)
        self._changed.clear()

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [event for event in self.events if event[0] == name]

    async def until(self, condition: Callable[[], Any], what: str = "", patience: float = 0.0) -> Any:
        """Wait for events until ``condition()`` is true; return its value. Raises `AssertionError` saying ``what`` did
        not happen, with the last events, when ``patience`` (seconds, default this recorder's own) is over."""

        async def wait() -> Any:
            while not (value := condition()):
                waiter = asyncio.get_running_loop().create_future()
                self._changed.append(waiter)
                await waiter
            return value

        return await expect(wait(), what or str(condition), patience or self.patience, self.tail)

    def tail(self) -> str:
        """The last events, for a failure's message."""
        return "; last events:\n" + "\n".join(str(event)[:200] for event in self.events[-20:])

    async def event(self, *expected: Any) -> tuple[Any, ...]:
        """Wait for an event that begins with ``expected``."""

        def found() -> tuple[Any, ...] | None:
            return next((event for event in self.events if event[: len(expected)] == expected), None)

        found_event: tuple[Any, ...] = await self.until(found, f"event {expected}")
        return found_event


class RecordingHubSink(Recorder):
    """A `HubSink` that writes down what it is told. A message comes with its id, its attempt or number, and the ids of
    the link."""

    def agent_joined(self, info: AgentInfo) -> None:
        self.add("joined", info.agent_id, info.incarnation, info)

    def agent_reported(self, agent_id: str, incarnation: int, status: AgentStatus) -> None:
        self.add("reported", agent_id, incarnation, status)

    def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None:
        self.add("lost", agent_id, incarnation, reason)

    def chunk_received(self, agent_id: str, incarnation: int, chunk: Chunk) -> None:
        self.add("chunk", chunk.task_id, chunk.attempt, chunk, agent_id, incarnation)

    def progress_received(self, agent_id: str, incarnation: int, progress: Progress) -> None:
        self.add("progress", progress.task_id, progress.attempt, progress, agent_id, incarnation)

    def result_received(self, agent_id: str, incarnation: int, result: CommandResult) -> None:
        self.add("result", result.id, result.seq, result, agent_id, incarnation)

    def send_failed(self, agent_id: str, incarnation: int, task_id: str, attempt: int, error: AnywireError) -> None:
        self.add("send_failed", task_id, attempt, error)

    def newest(self, agent_id: str) -> AgentStatus | None:
        """The status that was reported last."""
        return next((event[3] for event in reversed(self.events) if event[:2] == ("reported", agent_id)), None)

    async def detail(self, agent_id: str, detail: str) -> None:
        """Wait until the newest status is the one with this detail."""

        def told() -> bool:
            status = self.newest(agent_id)
            return status is not None and status.detail == detail

        await self.until(told, f"status {detail} is reported, and no later one follows it")

    def chunks(self, task_id: str) -> list[Chunk]:
        return [event[3] for event in self.events if event[0] == "chunk" and event[1] == task_id]

    def results(self, command_id: str) -> list[CommandResult]:
        return [event[3] for event in self.events if event[0] == "result" and event[1] == command_id]

    async def final_result(self, command_id: str) -> CommandResult:
        """Wait for the last result of a command."""

        def found() -> CommandResult | None:
            results = self.results(command_id)
            return results[-1] if results and results[-1].final else None

        result: CommandResult = await self.until(found, f"final result of {command_id}")
        return result

    async def final(self, task_id: str) -> Chunk:
        """Wait for the last chunk of a task."""

        def found() -> Chunk | None:
            chunks = self.chunks(task_id)
            return chunks[-1] if chunks and chunks[-1].final else None

        chunk: Chunk = await self.until(found, f"final chunk of {task_id}")
        return chunk


class RecordingAgentSink(Recorder):
    """An `AgentSink` that writes down what it is told, as `RecordingHubSink` does. ``on_task`` and ``on_command`` may
    answer."""

    def __init__(
        self,
        on_task: Callable[[TaskRequest, Reply], None] | None = None,
        on_command: Callable[[Command, Reply], None] | None = None,
    ) -> None:
        super().__init__()
        self._on_task, self._on_command = on_task, on_command

    def task_received(self, hub_id: str, incarnation: int, task: TaskRequest, reply: Reply) -> None:
        self.add("task", task.task_id, task.attempt, task, reply, hub_id, incarnation)
        if self._on_task is not None:
            self._on_task(task, reply)

    def command_received(self, hub_id: str, incarnation: int, command: Command, reply: Reply) -> None:
        self.add("command", command.id, command.name, command, reply, hub_id, incarnation)
        if self._on_command is not None:
            self._on_command(command, reply)

    def cancel_received(self, hub_id: str, incarnation: int, cancel: Cancel) -> None:
        self.add("cancel", cancel.task_id, cancel.attempt, cancel, hub_id, incarnation)

    def credit_received(self, hub_id: str, incarnation: int, credit: Credit) -> None:
        self.add("credit", credit.task_id, credit.attempt, credit, hub_id, incarnation)

    def hub_joined(self, info: HubInfo) -> None:
        self.add("hub_joined", info.hub_id, info.incarnation, info)

    def hub_lost(self, hub_id: str, incarnation: int, reason: str) -> None:
        self.add("hub_lost", hub_id, incarnation, reason)
