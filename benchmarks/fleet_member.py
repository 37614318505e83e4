"""One process of a fleet over DDS: several agents, or one hub. It does what its standard input says, line by line.

``python benchmarks/fleet_member.py '{"role": "agents", …}'`` reads one command at a time, a JSON list, and writes one
line when it is done. It ends at the end of its standard input. Agents note what reached them: what the engine ran,
and before that what the DDS reader of their requests took.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, ClassVar, Literal, NamedTuple
from unittest import mock

import msgspec
import pydantic

from anywire.engine import Delta, Engine, EngineStatus
from anywire.errors import AnywireError
from anywire.identity import agent_info, hub_info
from anywire.messages import AgentInfo, TaskRequest
from anywire.offers import offers
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import PipelineConfig
from anywire.plugins import Plugins
from anywire.roles.agent import Agent
from anywire.selector import AgentView
from anywire.submission import Submission
from anywire.transport import AgentPort, AgentSink, Plane
from anywire_dds import DdsConfig, DdsTransport, agent_port, wire
from anywire_dds.contract import TopicName
from anywire_dds.endpoints import Endpoints, Samples
from anywire_dds.types import FRAME_MESSAGE

SLOTS = 256
"""More than all hubs together have in flight: no agent refuses, so every request is sent once."""


DEADLINE = 30.0
"""Seconds until a task that has not been answered is given up."""


class MemberSpec(msgspec.Struct, frozen=True):
    """``agents`` are those it holds, or as a hub those it asks. Each serves one model, which has its name."""

    role: Literal["agents", "hub"]
    name: str
    agents: list[str]
    options: dict[str, Any]
    lease: float


class Request(NamedTuple):
    """What one hub asked for: the agent's name and the number of the task."""

    hub_id: str
    model: str
    body: str


class AgentCount(msgspec.Struct, frozen=True):
    """What reached one agent: requests its DDS reader took, those its engine ran, and how many writers of requests
    Cyclone has matched with its reader."""

    agent_id: str
    taken: list[Request]
    run: list[Request]
    writers: int


class Met(msgspec.Struct, frozen=True):
    """What a hub knew when it had met all it waited for, or had waited long enough: ``at`` is monotonic, ``lost`` how
    often it has lost an agent so far."""

    at: float
    known: int
    lost: int


class Asked(msgspec.Struct, frozen=True):
    """``began`` and ``ended`` are monotonic; ``wrong`` says of each task that was not answered by its agent why."""

    began: float
    ended: float
    answered: int
    wrong: list[str]


class _Engine(Engine):
    """Serves the model that has its agent's name, and answers with that name."""

    name: ClassVar[str] = "counting"
    Config = pydantic.BaseModel

    def __init__(self, agent_id: str) -> None:
        super().__init__(None)
        self._agent_id = agent_id
        self.ran: list[Request] = []

    async def start(self, changed: Callable[[], None]) -> None:
        """Always ready."""

    async def close(self) -> None:
        """Holds nothing."""

    def status(self) -> EngineStatus:
        return EngineStatus("ready", offers(self._agent_id))

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        self.ran.append(Request(task.hub_id, task.model, task.body))
        yield Delta(self._agent_id, finish_reason="stop")


class _CountedEndpoints(Endpoints):
    """Endpoints of an agent that keep what the reader of requests took."""

    def read(
        self, topic: TopicName, partition: str, callback: Callable[[], object], *more: Any, **keywords: Any
    ) -> Callable[[], Samples]:
        take = super().read(topic, partition, callback, *more, **keywords)
        if topic != "request":
            return take
        self._taken: list[bytes] = []

        def counted() -> Samples:
            samples = take()
            self._taken += [data for data, sample in samples if sample.valid_data]
            return samples

        return counted

    def requests(self) -> list[Request]:
        unpacked = map(wire.unpack_request, self._taken)
        tasks = [wire.to_request(values) for values in unpacked if values[2] == FRAME_MESSAGE]
        return [Request(task.hub_id, task.model, task.body) for task in tasks]

    def writers_matched(self) -> int:
        return len(self._readers["request"].get_matched_publications())


class _Transport(DdsTransport):
    """Keeps the endpoints of the agent it opened."""

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        with mock.patch.object(agent_port, "Endpoints", _CountedEndpoints):
            port = await super().open_agent(info, plane, sink)
        assert isinstance(port, agent_port.DdsAgentPort)
        assert isinstance(port.endpoints, _CountedEndpoints)
        self.counted = port.endpoints
        return port


Commands = dict[str, Callable[..., Coroutine[Any, Any, Any]]]


class Agents:
    """The agents of one process, each as it would be alone but for sharing the process."""

    def __init__(self, spec: MemberSpec) -> None:
        self._members: list[tuple[Agent, _Engine, _Transport]] = []
        for agent_id in spec.agents:
            engine, transport = _Engine(agent_id), _Transport(DdsConfig(**spec.options))
            info = agent_info(agent_id, engine=engine, lease=spec.lease)
            agent = Agent(info, engine, [transport], slots=SLOTS, heartbeat_interval=spec.lease / 4)
            self._members.append((agent, engine, transport))
        self.commands: Commands = {"open": self.open, "count": self.count}

    async def open(self) -> None:
        for agent, _, _ in self._members:
            await agent.start()

    async def count(self) -> list[AgentCount]:
        return [
            AgentCount(
                agent.info.agent_id, transport.counted.requests(), engine.ran, transport.counted.writers_matched()
            )
            for agent, engine, transport in self._members
        ]

    async def close(self) -> None:
        await asyncio.gather(*(agent.close() for agent, _, _ in self._members))


class Asker:
    """A hub that asks every agent. No task is sent a second time: what arrives twice is a fault."""

    def __init__(self, spec: MemberSpec) -> None:
        plugins = Plugins()
        self._agents = spec.agents
        self._hub = Orchestrator(
            hub_info(spec.name, lease=spec.lease),
            [DdsTransport(DdsConfig(**spec.options))],
            plugins.create("schedulers", "fifo", {}),
            plugins.create("selectors", "least_loaded", {}),
            config=PipelineConfig(max_attempts=1, deadline=DEADLINE),
            plugins=plugins,
        )
        self.commands: Commands = {"open": self.open, "meet": self.meet, "ask": self.ask}

    async def open(self) -> None:
        await self._hub.start()

    async def meet(self, agents: int, seconds: float) -> Met:
        """Wait until so many agents have joined and said that they are ready, or for so many seconds."""
        known = 0

        def met(views: list[AgentView]) -> bool:
            nonlocal known
            known = sum(agent.status.state == "ready" for agent in views)
            return known >= agents

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hub.agents_until(met)
        return Met(time.monotonic(), known, self._hub.stats()["events"].get("agents_lost", 0))

    async def ask(self, tasks: int, in_flight: int) -> Asked:
        """Ask each agent ``tasks`` times, the agents by turns."""
        todo = itertools.product(range(tasks), self._agents)
        wrong: list[str] = []
        answered = 0

        async def client() -> None:
            nonlocal answered
            for number, agent_id in todo:
                try:
                    answer = await self._hub.submit(Submission("chat", agent_id, str(number))).result()
                except AnywireError as error:
                    wrong.append(f"task {number} of {agent_id}: {error}")
                    continue
                if (text := "".join(answer.deltas)) == agent_id:
                    answered += 1
                else:
                    wrong.append(f"task {number} of {agent_id} was answered by {text!r}")

        began = time.monotonic()
        await asyncio.gather(*(client() for _ in range(in_flight)))
        return Asked(began, time.monotonic(), answered, wrong)

    async def close(self) -> None:
        await self._hub.close()


async def run(spec: MemberSpec) -> None:
    commands = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    member = Agents(spec) if spec.role == "agents" else Asker(spec)
    _say("up")
    line = await commands.readline()
    try:
        while line:
            name, *arguments = msgspec.json.decode(line)
            work = asyncio.create_task(member.commands[name](*arguments))
            following = asyncio.create_task(commands.readline())
            await asyncio.wait((work, following), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():  # the next line comes after the answer to this one, so this is the end
                work.cancel()
                break
            _say(work.result())
            line = await following
    finally:
        await member.close()


def _say(result: Any) -> None:
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    try:
        import uvloop

        loop_factory = uvloop.new_event_loop
    except ImportError:
        pass
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run(msgspec.json.decode(sys.argv[1], type=MemberSpec)))
