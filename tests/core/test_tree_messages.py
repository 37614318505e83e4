"""A tree of orchestrators three levels deep sends as many messages over each of its links as the arithmetic says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from anywire.builtin.memory import MemoryConfig, MemoryTransport
from anywire.engine import Delta
from anywire.identity import agent_info, hub_info
from anywire.messages import TaskRequest
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.roles.agent import Agent
from anywire.roles.fleet import fleet_agent
from anywire.submission import Submission
from anywire.testing.doubles import MODEL, ScriptedEngine, fifo, least_loaded
from anywire.testing.patience import expect, polled
from anywire.transport import Transport
from anywire_zeromq import ZeromqConfig, ZeromqTransport
from counted_transport import Counted, Counting
from reserved import free_port
from scale_arithmetic import messages_of, tree_of

FAN_OUT, LEVELS = 2, 3
AGENTS = FAN_OUT**LEVELS
SLOTS = 8
BEAT = 0.25


class Stepping(ScriptedEngine):
    """Gives a token when the reader has asked for it with ``steps``, so that no two are joined to one chunk."""

    def __init__(self, steps: dict[str, asyncio.Semaphore]) -> None:
        super().__init__()
        self._steps = steps

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        name, tokens = task.body.split()
        for number in range(1, int(tokens) + 1):
            if task.stream:
                await self._steps[name].acquire()
            yield Delta("t", "", "stop" if number == int(tokens) else "")


class CountedZeromq(Counting, ZeromqTransport):
    """The transport ``zeromq``."""


class Network:
    """What one orchestrator and those below it meet over."""

    def __init__(self, wire: str) -> None:
        self._memory = MemoryConfig(network=f"tree-{uuid4()}") if wire == "memory" else None
        address = f"tcp://127.0.0.1:{free_port()}"
        self._zeromq = ZeromqConfig(agent_addresses=[address])

    def above(self) -> Counting:
        return CountedZeromq(self._zeromq) if self._memory is None else Counted(self._memory)

    def below(self) -> Transport:
        return ZeromqTransport(self._zeromq) if self._memory is None else MemoryTransport(self._memory)


class Tree:
    """Two below each orchestrator, and two agents below each of the lowest."""

    def __init__(self, stack: AsyncExitStack, wire: str) -> None:
        self._stack, self._wire = stack, wire
        self.steps: dict[str, asyncio.Semaphore] = {}
        self.wires: list[list[Counting]] = [[] for _ in range(LEVELS)]
        """Those of the orchestrators of each level, the top first."""
        self.top: Orchestrator

    async def grow(self) -> None:
        self.top = await self._orchestrator(0)

    async def _orchestrator(self, level: int) -> Orchestrator:
        network = Network(self._wire)
        wire = network.above()
        made = Orchestrator(hub_info(), [wire], fifo(), least_loaded(), plugins=Plugins())
        await made.start()
        self._stack.push_async_callback(made.close)
        self.wires[level].append(wire)
        for _ in range(FAN_OUT):
            await self._below(level, network)
        slots = SLOTS * FAN_OUT ** (LEVELS - level)
        ready = made.agents_until(lambda agents: sum(each.free_slots for each in agents) == slots)
        await expect(ready, f"all slots below level {level} are known")
        return made

    async def _below(self, level: int, network: Network) -> None:
        if level + 1 < LEVELS:
            agent = fleet_agent(await self._orchestrator(level + 1), [network.below()], "agent")
        else:
            engine = Stepping(self.steps)
            agent = Agent(agent_info(engine=engine), engine, [network.below()], slots=SLOTS)
        await agent.start()
        self._stack.push_async_callback(agent.close)

    def counted(self) -> list[Counter[str]]:
        """Messages so far, by level and kind."""
        return [sum((wire.messages for wire in wires), Counter()) for wires in self.wires]

    async def ask(self, name: str, tokens: int, stream: bool) -> None:
        self.steps[name] = asyncio.Semaphore(1)
        text = ""
        async for chunk in self.top.submit(Submission("chat", MODEL, f"{name} {tokens}", stream)):
            text += "".join(chunk.deltas)
            self.steps[name].release()
        assert text == tokens * "t"


@pytest.fixture
async def tree(request: pytest.FixtureRequest) -> AsyncIterator[Tree]:
    async with AsyncExitStack() as stack:
        made = Tree(stack, getattr(request, "param", "memory"))
        await made.grow()
        yield made


def without_reports(counts: Counter[str]) -> dict[str, int]:
    return {kind: count for kind, count in counts.items() if kind != "AgentStatus"}


@pytest.mark.parametrize(
    ("tree", "tokens", "stream"),
    [
        ("memory", 1, False),
        ("memory", 40, False),
        ("memory", 1, True),
        ("memory", 33, True),
        ("memory", 100, True),
        ("zeromq", 1, False),
        ("zeromq", 100, True),
    ],
    indirect=["tree"],
)
async def test_each_level_carries_each_task_once(tree: Tree, tokens: int, stream: bool) -> None:
    tasks = 2 * AGENTS
    before = tree.counted()
    asking = asyncio.gather(*(tree.ask(f"task-{number}", tokens, stream) for number in range(tasks)))
    await expect(asking, "all are answered")
    paper = messages_of(tokens, stream=stream)
    wanted = {"TaskRequest": tasks * paper.requests, "Chunk": tasks * paper.chunks, "Credit": tasks * paper.credits}
    for level, (now, then) in enumerate(zip(tree.counted(), before, strict=True)):
        found = without_reports(now - then)
        accepted = found.get("Chunk", 0) - wanted["Chunk"]
        # On a busy machine a task may be without a token for a heartbeat: then its agent says that it has it.
        assert 0 <= accepted <= tasks, f"level {level}: {found}"
        assert found | {"Chunk": wanted["Chunk"]} == {kind: count for kind, count in wanted.items() if count}


async def test_an_orchestrator_hears_of_those_directly_below_it_and_of_no_others(tree: Tree) -> None:
    """So reports do not grow with the fleet: each level has those of its own links."""
    orchestrators = tree_of(AGENTS, FAN_OUT)
    assert [len(wires) for wires in tree.wires] == orchestrators[::-1] == [1, 2, 4]
    began, before = asyncio.get_running_loop().time(), tree.counted()

    def reports() -> list[int]:
        return [now["AgentStatus"] - then["AgentStatus"] for now, then in zip(tree.counted(), before, strict=True)]

    await polled(lambda: reports()[0] >= 6 * FAN_OUT, "the top has heard of each of its own six times")
    found = reports()
    beats = (asyncio.get_running_loop().time() - began) / BEAT + 1
    for level, count in enumerate(found):
        links = FAN_OUT ** (level + 1)
        assert count <= links * (beats + 1), f"level {level}: {count} reports of {links} links in {beats:.1f} beats"
