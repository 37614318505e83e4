"""A transport whose wire is the test: it keeps what the pipeline sends and plays the agents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pydantic

from anywire import errors
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
    ProgressState,
    State,
    TaskRequest,
    ToAgent,
)
from anywire.offers import offers, offers_text
from anywire.testing.doubles import MODEL
from anywire.transport import AgentPort, AgentSink, Capabilities, Hub, HubSink, Plane, Transport


class PuppetConfig(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class PuppetTransport(Transport, Hub):
    """Transport and hub in one. ``fail_next`` is raised by the next ``send`` of a task."""

    name: ClassVar[str] = "puppet"
    Config = PuppetConfig
    capabilities: ClassVar[Capabilities] = Capabilities(liveliness="native", discovery="native", inter_process=False)

    def __init__(self, name: str = "puppet", liveliness: Any = "native") -> None:
        super().__init__(PuppetConfig())
        self.name = name  # type: ignore[misc]
        self.capabilities = Capabilities(liveliness=liveliness, discovery="native", inter_process=False)  # type: ignore[misc]
        self.sent: list[tuple[str, ToAgent]] = []
        self.fail_next: AnywireError | None = None
        self._sent_to: dict[tuple[str, int], tuple[str, int]] = {}
        self._incarnations: dict[str, int] = {}
        self._resuming: set[str] = set()
        self.sink: HubSink

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        self.sink = sink
        return self

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        raise NotImplementedError

    def send(self, agent_id: str, message: ToAgent) -> None:
        if isinstance(message, TaskRequest) and self.fail_next is not None:
            failure, self.fail_next = self.fail_next, None
            raise failure
        self.sent.append((agent_id, message))
        if isinstance(message, TaskRequest):
            self._sent_to[message.task_id, message.attempt] = (agent_id, self._incarnations.get(agent_id, 1))

    async def drain(self, agent_id: str) -> None:
        """Never full."""

    async def close(self) -> None:
        """Holds nothing."""

    # What the agents do

    def join(
        self,
        agent_id: str,
        *,
        incarnation: int = 1,
        slots: int = 8,
        models: Sequence[str] = (MODEL,),
        state: State = "ready",
        capabilities: Sequence[str] = ("chat",),
        lease_ms: int = 1000,
        info: AgentInfo | None = None,
    ) -> None:
        """``info`` takes the place of what is said of it otherwise."""
        self._incarnations[agent_id] = incarnation
        if "resume" in capabilities:
            self._resuming.add(agent_id)
        info = info or AgentInfo(agent_id, incarnation, capabilities=tuple(capabilities), lease_ms=lease_ms)
        self.sink.agent_joined(info)
        self.report(agent_id, incarnation=incarnation, slots=slots, models=models, state=state)

    def report(
        self,
        agent_id: str,
        *,
        incarnation: int = 1,
        slots: int = 8,
        models: Sequence[str] = (MODEL,),
        state: State = "ready",
        active: int = 0,
    ) -> None:
        status = AgentStatus(agent_id, incarnation, state, offers_text(offers(*models)), slots, active)
        self.sink.agent_reported(agent_id, incarnation, status)

    def lose(self, agent_id: str, *, incarnation: int = 1, reason: str = "test") -> None:
        self.sink.agent_lost(agent_id, incarnation, reason)

    def chunk(
        self, task: TaskRequest, seq: int, *deltas: str, final: bool = False, error: str = "", usage: str = ""
    ) -> None:
        """Let the agent that has the attempt send a chunk of it."""
        self.speak(*self.receiver(task), task, seq, *deltas, final=final, error=error, usage=usage)

    def speak(
        self,
        agent_id: str,
        incarnation: int,
        task: TaskRequest,
        seq: int,
        *deltas: str,
        final: bool = False,
        error: str = "",
        usage: str = "",
    ) -> None:
        """Let any agent send a chunk of an attempt."""
        resumable = seq == 0 and bool(deltas) and agent_id in self._resuming
        chunk = Chunk(
            task.hub_id,
            task.task_id,
            task.attempt,
            seq,
            deltas,
            final=final,
            error=error,
            finish_reason="stop",
            usage=usage,
            resumable=resumable,
        )
        self.sink.chunk_received(agent_id, incarnation, chunk)

    def final(self, task: TaskRequest, error: AnywireError, **members: Any) -> Chunk:
        """A final chunk with an error, not sent."""
        return Chunk(task.hub_id, task.task_id, task.attempt, 0, final=True, error=errors.to_wire(error), **members)

    def progress(self, task: TaskRequest, state: ProgressState, detail: str = "") -> None:
        """Let the agent that has the attempt say what it does."""
        agent_id, incarnation = self.receiver(task)
        progress = Progress(task.hub_id, task.task_id, task.attempt, state, detail)
        self.sink.progress_received(agent_id, incarnation, progress)

    def result(
        self,
        agent_id: str,
        command: Command,
        seq: int,
        data: str = "",
        *,
        final: bool = False,
        error: str = "",
        incarnation: int = 1,
    ) -> None:
        """Let any agent send a result of a command."""
        result = CommandResult(command.hub_id, command.id, seq, data, final, error)
        self.sink.result_received(agent_id, incarnation, result)

    def receiver(self, task: TaskRequest) -> tuple[str, int]:
        """The agent and incarnation that an attempt was sent to."""
        return self._sent_to[task.task_id, task.attempt]

    def accept(self, task: TaskRequest) -> None:
        """Say that the agent has the attempt."""
        self.chunk(task, 0)

    def stop(self, task: TaskRequest) -> None:
        """Answer a cancel: the engine has ended."""
        self.chunk(task, 0, final=True, error=errors.to_wire(errors.TaskCancelled("stopped")))

    def answer(self, task: TaskRequest, text: str = "answer", usage: str = "") -> None:
        self.chunk(task, 0, text, final=True, usage=usage)

    @property
    def requests(self) -> list[tuple[str, TaskRequest]]:
        return [(agent_id, message) for agent_id, message in self.sent if isinstance(message, TaskRequest)]

    @property
    def commands(self) -> list[tuple[str, Command]]:
        return [(agent_id, message) for agent_id, message in self.sent if isinstance(message, Command)]

    def cancels(self) -> list[Cancel]:
        return [message for _, message in self.sent if isinstance(message, Cancel)]

    def credits(self) -> list[Credit]:
        return [message for _, message in self.sent if isinstance(message, Credit)]
