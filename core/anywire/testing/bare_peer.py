"""A bare end in a process of its own: it writes what its transport calls, and does what its standard input says.

Orders are JSON lines. A hub takes ``["send", agent_id, task_id, size]``, ``["command", agent_id, id, arguments]``,
``["drain", agent_id]`` and ``["close"]``; an agent takes ``["report", detail]``, ``["reply", task_id, seq, size,
final]``, ``["result", id, seq, size, final]``, ``["drain", task_id]`` and ``["close"]``. What an order raises is
written as ``["raised", order, class, message]``. An agent answers a task at once with one final chunk, and a command
with one result, unless the body or the arguments begin with ``hold``.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from anywire.errors import AnywireError
from anywire.identity import hub_info, new_incarnation
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
from anywire.testing.checked import CheckedTransport
from anywire.testing.doubles import MODEL, OFFERS
from anywire.testing.ledger import Ledger
from anywire.testing.patience import Breaches
from anywire.testing.recorder import Recorder
from anywire.transport import AgentPort, Hub, Reply, Transport


class _PrintedBreaches(Breaches):
    def __init__(self, events: Recorder) -> None:
        super().__init__()
        self._events = events

    def add(self, sentence: str) -> None:
        if sentence not in self.sentences:
            self.sentences.append(sentence)
            self._events.add("breach", sentence)


def checked(transport: Transport, events: Recorder) -> CheckedTransport:
    """The transport with the laws around it; each breach is an event."""
    return CheckedTransport(transport, _PrintedBreaches(events), Ledger())


class BareHub:
    def __init__(self, hub_id: str, lease: float, events: Recorder) -> None:
        self.info, self._events = hub_info(hub_id, lease=lease), events
        self.hub: Hub

    async def open(self, transport: Transport) -> None:
        self.hub = await transport.open_hub(self.info, "agent", self)
        self._events.add("ready", self.info.incarnation)

    async def obey(self, order: str, *arguments: Any) -> None:
        if order == "send":
            agent_id, task_id, size = arguments
            self.hub.send(agent_id, TaskRequest(self.info.hub_id, task_id, 1, "chat", MODEL, "x" * size, True))
        elif order == "command":
            agent_id, command_id, arguments_text = arguments
            self.hub.send(agent_id, Command(self.info.hub_id, command_id, "ordered", arguments_text))
        elif order == "drain":
            await self.hub.drain(arguments[0])
            self._events.add("drained", arguments[0])
        else:
            await self.close()

    async def close(self) -> None:
        await self.hub.close()
        self._events.add("closed")

    # HubSink

    def agent_joined(self, info: AgentInfo) -> None:
        self._events.add("joined", info.agent_id, info.incarnation)

    def agent_reported(self, agent_id: str, incarnation: int, status: AgentStatus) -> None:
        self._events.add("reported", agent_id, incarnation, status.state, status.detail)

    def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None:
        self._events.add("lost", agent_id, incarnation, reason)

    def chunk_received(self, agent_id: str, incarnation: int, chunk: Chunk) -> None:
        size = sum(map(len, chunk.deltas))
        self._events.add("chunk", chunk.task_id, chunk.attempt, chunk.seq, size, chunk.final)

    def progress_received(self, agent_id: str, incarnation: int, progress: Progress) -> None:
        self._events.add("progress", progress.task_id, progress.attempt, progress.state)

    def result_received(self, agent_id: str, incarnation: int, result: CommandResult) -> None:
        self._events.add("result", result.id, result.seq, len(result.data), result.final)

    def send_failed(self, agent_id: str, incarnation: int, task_id: str, attempt: int, error: AnywireError) -> None:
        self._events.add("send_failed", task_id, attempt, error.phase, str(error))


class BareAgent:
    def __init__(self, agent_id: str, lease: float, events: Recorder) -> None:
        self.info = AgentInfo(agent_id, new_incarnation(), capabilities=("chat",), lease_ms=round(lease * 1000))
        self.port: AgentPort
        self._events = events
        self._replies: dict[str, tuple[TaskRequest, Reply]] = {}
        self._commands: dict[str, tuple[Command, Reply]] = {}

    async def open(self, transport: Transport) -> None:
        self.port = await transport.open_agent(self.info, "agent", self)
        self._report("")
        self._events.add("ready", self.info.incarnation)

    async def obey(self, order: str, *arguments: Any) -> None:
        if order == "report":
            self._report(*arguments)
        elif order == "reply":
            task_id, seq, size, final = arguments
            task, reply = self._replies[task_id]
            reply.send(Chunk(task.hub_id, task_id, task.attempt, seq, ("x" * size,), final=final))
        elif order == "result":
            command_id, seq, size, final = arguments
            command, reply = self._commands[command_id]
            reply.send(CommandResult(command.hub_id, command_id, seq, "x" * size, final))
        elif order == "drain":
            await self._replies[arguments[0]][1].drain()
            self._events.add("drained", arguments[0])
        else:
            await self.close()

    async def close(self) -> None:
        await self.port.close()
        self._events.add("closed")

    def _report(self, detail: str) -> None:
        self.port.report(AgentStatus(self.info.agent_id, self.info.incarnation, "ready", OFFERS, 8, detail=detail))

    # AgentSink

    def hub_joined(self, info: HubInfo) -> None:
        self._events.add("hub_joined", info.hub_id, info.incarnation)

    def hub_lost(self, hub_id: str, incarnation: int, reason: str) -> None:
        self._events.add("hub_lost", hub_id, incarnation, reason)

    def task_received(self, hub_id: str, incarnation: int, task: TaskRequest, reply: Reply) -> None:
        self._events.add("task", task.task_id, task.attempt, len(task.body))
        if task.body.startswith("hold"):
            self._replies[task.task_id] = (task, reply)
            return
        reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0, (task.body[:10],), final=True))

    def command_received(self, hub_id: str, incarnation: int, command: Command, reply: Reply) -> None:
        self._events.add("command", command.id, command.name, len(command.arguments))
        if command.arguments.startswith("hold"):
            self._commands[command.id] = (command, reply)
            return
        reply.send(CommandResult(command.hub_id, command.id, 0, command.arguments[:10], True))

    def cancel_received(self, hub_id: str, incarnation: int, cancel: Cancel) -> None:
        self._events.add("cancel", cancel.task_id, cancel.attempt)

    def credit_received(self, hub_id: str, incarnation: int, credit: Credit) -> None:
        self._events.add("credit", credit.task_id, credit.attempt, credit.chunks)


async def obey_orders(end: BareHub | BareAgent, reader: asyncio.StreamReader, events: Recorder) -> None:
    """Do what each line says until the input ends, then close."""
    async for line in reader:
        order = msgspec.json.decode(line)
        try:
            await end.obey(*order)
        except AnywireError as error:
            events.add("raised", order[0], type(error).__name__, str(error))
    await end.close()
