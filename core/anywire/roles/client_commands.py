"""What a client asks orchestrators beside its tasks: commands, events, lists."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import pydantic

from anywire.errors import InvalidRequest, NoAgent, ShuttingDown
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import PipelineConfig
from anywire.roles.client_key import VARIABLE
from anywire.transport import HasFindings

MOST_TOLD = 3
"""Reasons why there is no link that an error tells: there may be an orchestrator at each of many addresses."""


class ClientConfig(PipelineConfig):
    """The pipeline's settings as a client has them; without a deadline of its own, the orchestrator's default holds."""

    deadline: float = pydantic.Field(default=math.inf, gt=0, description="a task's time when none is named")
    agent_wait: float = pydantic.Field(default=3.0, ge=0, description="how long to wait for an orchestrator")


class PlaneCommands:
    """Commands over the client plane, to the orchestrator that ``orchestrator`` names, or to the only one seen.

    What is allowed depends on the role (`anywire.caller.Role`), which is that of the client's key. Where nobody needs a
    key, a client whose transport does not leave its machine has the role ``operate``, another one ``use``, and sees its
    own tasks alone. Each raises `NoAgent` when the orchestrator
    is not seen in time, `InvalidRequest` when several are seen and none is named, `Forbidden`, `UnknownCommand`, and
    `AgentLost` when the link goes meanwhile.
    """

    hub: Orchestrator
    names: str
    _config: ClientConfig
    _state: str
    has_key: bool
    """Whether this client shows a key."""

    async def command(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        target: Sequence[str] = (),
        orchestrator: str = "",
        deadline: float = 60.0,
    ) -> AsyncGenerator[Any, None]:
        """Send a command; its results as they come, plain JSON types. A reader that pauses stops the agent.

        ``target`` are the ids that lead from an agent of the orchestrator down a tree; without one the orchestrator
        itself answers (``agents``, ``models``, ``stats``, ``tasks`` …). ``arguments`` are JSON, at most 64 KiB.
        ``deadline`` is in seconds, 0 means none. Closing the generator (`contextlib.aclosing`) cancels the command.

            async for line in client.command("logs", {"follow": True}, target=["agent-1"], deadline=0):
                print(line)
        """
        found = await self._orchestrator(orchestrator)
        async with aclosing(self.hub.command((found, *target), name, arguments, deadline=deadline)) as results:
            async for result in results:
                yield result

    async def events(
        self, *types: str, after: str = "", orchestrator: str = ""
    ) -> AsyncGenerator[dict[str, Any], None]:
        """What happens at the orchestrator, until the generator is closed: events as JSON objects (`anywire.events`),
        of these ``types`` (``task.ended`` …), all when none is named. With ``after``, the id of the newest event that
        was read, it begins with what followed. ``{"type": "missed", "count": n}`` stands for events that were left out
        because this reader was too slow, ``{"type": "reset"}`` says that ``after`` is not kept any more."""
        arguments = {"types": list(types), "after": after}
        async with aclosing(self.command("events", arguments, orchestrator=orchestrator, deadline=0)) as events:
            async for event in events:
                yield event

    async def agents(self, *, orchestrator: str = "") -> list[dict[str, Any]]:
        """The agents that the orchestrator knows now, with their health (`anywire.views.agent_json`). This is for the
        role ``observe``."""
        return [agent async for agent in self.command("agents", orchestrator=orchestrator)]

    async def drain_agent(self, agent_id: str, reason: str = "", *, orchestrator: str = "") -> dict[str, Any]:
        """Order that an agent gets no further task; what runs on it ends there. It holds over all lives of the agent,
        until `restore_agent` or the end of the orchestrator. ``reason`` (at most 1,024 characters) is shown to others.
        Returns the agent's health (`anywire.views.health_json`). This is for the role ``operate``. Raises
        `InvalidRequest` when no such agent is known."""
        return await self._order_agent(agent_id, "drain", reason, orchestrator)

    async def isolate_agent(self, agent_id: str, reason: str = "", *, orchestrator: str = "") -> dict[str, Any]:
        """As `drain_agent`, and what runs on the agent is taken away: it goes on at another agent where it can, else it
        ends with `AgentLost`."""
        return await self._order_agent(agent_id, "isolate", reason, orchestrator)

    async def restore_agent(self, agent_id: str, reason: str = "", *, orchestrator: str = "") -> dict[str, Any]:
        """End what was ordered of an agent; one that is quarantined is sent its next probe at once. Otherwise as
        `drain_agent`."""
        return await self._order_agent(agent_id, "restore", reason, orchestrator)

    async def tasks(self, *, orchestrator: str = "") -> list[dict[str, Any]]:
        """The tasks that have not ended, oldest first (`anywire.views.task_json`)."""
        return [task async for task in self.command("tasks", orchestrator=orchestrator)]

    async def explain(self, task_id: str, *, orchestrator: str = "") -> dict[str, Any]:
        """A task, be it ended, and how its agents were chosen (`anywire.views.record_json`). Raises `InvalidRequest`
        when there is no such task that is kept and that this client may see."""
        found: dict[str, Any]
        (found,) = [each async for each in self.command("explain", {"task_id": task_id}, orchestrator=orchestrator)]
        return found

    async def follow(self, task_id: str, *, orchestrator: str = "") -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of a task, from now on to its end (`anywire.views.chunk_json`); ``task_id`` is the
        orchestrator's, as `tasks` and `events` tell it. Raises `InvalidRequest` when there is no such task that this
        client may follow, and what the task ended with."""
        arguments = {"task_id": task_id}
        async with aclosing(self.command("follow", arguments, orchestrator=orchestrator, deadline=0)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _order_agent(self, agent_id: str, order: str, reason: str, orchestrator: str) -> dict[str, Any]:
        arguments = {"agent_id": agent_id, "order": order, "reason": reason}
        (told,) = [each async for each in self.command("order_agent", arguments, orchestrator=orchestrator)]
        health: dict[str, Any] = told["health"]
        return health

    async def _orchestrator(self, name: str) -> str:
        """The id of the orchestrator that is named, or of the only one, once it is seen."""
        if self._state:
            raise ShuttingDown(f"this client is {self._state}")
        try:
            async with asyncio.timeout(self._config.agent_wait):
                await self.hub.agents_until(
                    lambda agents: any(each.agent_id == name for each in agents) if name else bool(agents)
                )
        except TimeoutError:
            raise self._nobody(name) from None
        seen = [each.agent_id for each in self.hub.agents()]
        if not name and len(seen) > 1:
            raise InvalidRequest(f"several orchestrators are seen, name one: {', '.join(seen)}", param="orchestrator")
        return name or seen[0]

    def _nobody(self, name: str = "") -> NoAgent:
        if self.has_key:
            key = "this client shows a key; where none is needed, show none (key='', --key '')"
        else:
            key = f"this client shows no key; where one is needed, give it one (key=…, --key, {VARIABLE})"
        found = [fault for each in self.hub.transports if isinstance(each, HasFindings) for fault, _ in each.findings()]
        unseen = f"no orchestrator{f' {name}' if name else ''} is seen over {self.names} within "
        unseen += f"{self._config.agent_wait:g} s: "
        if found:
            return NoAgent(f"{unseen}{'; '.join(list(dict.fromkeys(found))[:MOST_TOLD])}. As to keys, {key}")
        return NoAgent(
            f"{unseen}one must run with this transport, the same options and client_plane on; {key}; `anywire doctor` "
            "checks whether the transport works here"
        )
