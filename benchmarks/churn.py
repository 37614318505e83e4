"""Agents with ever new ids that come, take a task each and go: what an orchestrator must not remember.

Every second agent brings a model that was never seen before. On the way the wire is congested now and then, tasks fail,
are cancelled and are left with an agent that goes, and agents speak for others, or under names that are none.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from anywire import errors
from anywire.identity import hub_info
from anywire.messages import AgentInfo, TaskRequest, ToAgent
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.puppet import PuppetTransport

SHARED = "shared"
WAYS = ("answer", "answer", "stream", "fail", "cancel", "leave", "congested", "forge")


class Wire(PuppetTransport):
    """Keeps the newest request alone, so that nothing on this side grows."""

    def __init__(self) -> None:
        super().__init__()
        self.request: TaskRequest | None = None

    def send(self, agent_id: str, message: ToAgent) -> None:
        if self.fail_next is not None and isinstance(message, TaskRequest):
            failure, self.fail_next = self.fail_next, None
            raise failure
        if isinstance(message, TaskRequest):
            self.request = message

    def lose(self, agent_id: str, *, incarnation: int = 1, reason: str = "test") -> None:
        self._incarnations.pop(agent_id, None)
        super().lose(agent_id, incarnation=incarnation, reason=reason)


class Churn:
    """One orchestrator over a puppet transport, with agents that pass through it."""

    def __init__(self, selector: str = "least_loaded", seed: int = 1) -> None:
        plugins = Plugins()
        self.wire = Wire()
        self.orchestrator = Orchestrator(
            hub_info(),
            [self.wire],
            plugins.create("schedulers", "fifo", {}),
            plugins.create("selectors", selector, {}),
            plugins=plugins,
        )
        self._random = random.Random(seed)
        self._number = 0

    async def pass_through(self, agents: int, models: int = 1, ways: Sequence[str] = WAYS) -> None:
        """Let ``agents`` come and go, one after the other; every second brings ``models`` new ones. What becomes of
        each one's task is drawn from ``ways``."""
        for _ in range(agents):
            await self._pass_one(models, self._random.choice(ways))

    async def _pass_one(self, models: int, way: str) -> None:
        self._number += 1
        number, wire = self._number, self.wire
        agent_id = f"agent-{number:08}"
        names = [f"model-{number:08}-{each:04}" for each in range(models)] if number % 2 else [SHARED]
        wire.join(agent_id, models=names, slots=2)
        if way == "congested":
            wire.fail_next = errors.Congested("no room")
        stream = self.orchestrator.submit(Submission("chat", names[-1], "x" * 300, way == "stream"))
        if way == "congested" and self._random.random() < 0.5:
            await asyncio.sleep(0)  # there is room now: it is sent again; else the agent goes before that
        request, wire.request = wire.request, None
        if request is not None and way != "leave":
            self._bring(way, agent_id, request, stream)
        wire.lose(agent_id)
        stream.cancel("the agent has gone")
        with suppress(errors.AnywireError):
            while await stream.take():
                pass
        await asyncio.sleep(0)

    def _bring(self, way: str, agent_id: str, request: TaskRequest, stream: TaskStream) -> None:
        """Let the agent do what it does with its task."""
        say = self.wire.speak
        match way:
            case "stream":
                for seq in range(10):
                    say(agent_id, 1, request, seq, "text")
                say(agent_id, 1, request, 10, final=True)
            case "fail":
                say(agent_id, 1, request, 0, final=True, error=errors.to_wire(errors.EngineFailed("broken")))
            case "cancel":
                stream.cancel("by the reader")
                say(agent_id, 1, request, 0, final=True, error=errors.to_wire(errors.TaskCancelled("stopped")))
            case "forge":
                self._forge(agent_id, request)
            case _:
                say(agent_id, 1, request, 0, "text", final=True)

    def _forge(self, agent_id: str, request: TaskRequest) -> None:
        """Speak for others, for tasks that are none, under names that are none, and as an older life."""
        wire, stranger = self.wire, f"stranger-{agent_id}"
        wire.speak(stranger, 1, request, 0, "forged", final=True)
        wire.speak(agent_id, 2, request, 0, "forged", final=True)
        wire.report(stranger, models=[stranger])
        wire.lose(stranger)
        wire.sink.agent_joined(AgentInfo(f"{agent_id}\n", 1))
        wire.sink.agent_joined(AgentInfo(agent_id, 0))
        wire.report(agent_id, models=[f"{agent_id}\n"])
        wire.sink.send_failed(stranger, 1, request.task_id, 1, errors.AgentLost("forged", phase="not_sent"))


def sizes(owner: Any, seen: set[int] | None = None, path: str = "") -> Iterator[tuple[str, int]]:
    """Every container that the pipeline's objects hold below ``owner``, by its path, and how much is in it."""
    seen = set() if seen is None else seen
    if id(owner) in seen:
        return
    seen.add(id(owner))
    if isinstance(owner, dict | list | set | tuple) or hasattr(owner, "popleft"):
        yield path, len(owner)
        return
    if not type(owner).__module__.startswith("anywire"):
        return
    slots = [name for each in type(owner).__mro__ for name in getattr(each, "__slots__", ())]
    for name in [*getattr(owner, "__dict__", ()), *slots]:
        if hasattr(owner, name):
            yield from sizes(getattr(owner, name), seen, f"{path}.{name}")
