"""How the kit's bare agents answer, and the sizes and numbers its tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from anywire.messages import AgentStatus, Chunk, Command, CommandResult, TaskRequest
from anywire.roles.client import Client
from anywire.testing.doubles import MODEL, OFFERS, Script
from anywire.testing.patience import expect
from anywire.transport import Reply

MEGABYTE = 1024 * 1024


def answer_each(count: int, text: str = "{task}:{number}") -> Any:
    """A bare agent that answers every task with ``count`` chunks and a final one."""

    def on_task(task: TaskRequest, reply: Reply) -> None:
        for number in range(count):
            delta = text.format(task=task.task_id, number=number)
            reply.send(Chunk(task.hub_id, task.task_id, task.attempt, number, (delta,)))
        reply.send(Chunk(task.hub_id, task.task_id, task.attempt, count, final=True, finish_reason="stop"))

    return on_task


def result_each(count: int, data: str = "0") -> Any:
    """A bare agent that answers every command with ``count`` results and a final one."""

    def on_command(command: Command, reply: Reply) -> None:
        for number in range(count):
            reply.send(CommandResult(command.hub_id, command.id, number, data))
        reply.send(CommandResult(command.hub_id, command.id, count, final=True))

    return on_command


def echo(task: TaskRequest, reply: Reply) -> None:
    """A bare agent that gives back the body it got."""
    reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0, (task.body,), final=True, finish_reason="stop"))


def status(agent_id: str, incarnation: int, detail: str) -> AgentStatus:
    """A status that differs from others by its detail."""
    return AgentStatus(agent_id, incarnation, "ready", OFFERS, 8, detail=detail)


def script_fields(script: Script) -> dict[str, Any]:
    """A script as further fields of a request."""
    return msgspec.structs.asdict(script)


async def chat(client: Client, script: Script, **fields: Any) -> dict[str, Any]:
    """A client's whole answer, awaited with patience."""
    fields = {"model": MODEL, "messages": []} | script_fields(script) | fields
    return await expect(client.chat(**fields), f"a client is answered (script {script.tag!r})")


async def rest(stream: AsyncIterator[Any]) -> list[Any]:
    """Everything that a stream still gives, each item awaited with patience."""
    items: list[Any] = []
    while (item := await following(stream, len(items))) is not None:
        items.append(item)
    return items


async def following(stream: AsyncIterator[Any], number: int = 0) -> Any:
    """The next item of a stream, or None at its end."""

    async def item() -> Any:
        return await anext(stream, None)

    return await expect(item(), f"item {number} of a stream comes, or its end")
