"""An orchestrator as an agent: of its clients, and of a parent orchestrator that it joins.

Its engine is the whole pipeline with the fleet behind it. The ordinary `Agent` around it brings credit, cancel,
refusal, lost hubs and drain, and nothing of that is written twice: a reader that pauses stops the agent, which stops
reading the pipeline's stream, which stops the engine at the far end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import ClassVar

import msgspec
import pydantic

from anywire.agent import Agent
from anywire.engine import Delta, Engine, EngineStatus
from anywire.errors import AnywireError, ModelNotFound, NoAgent, QueueFull, Refused, ShuttingDown
from anywire.identity import agent_info
from anywire.messages import Chunk, TaskRequest
from anywire.pipeline.candidates import DEPTH
from anywire.pipeline.claims import MAX_MODELS, MAX_SLOTS
from anywire.pipeline.orchestrator import Orchestrator
from anywire.submission import Submission
from anywire.transport import Plane, Transport

log = logging.getLogger(__name__)

CLIENT_SLOTS = 65536
"""What clients may have under way at once; how much of it waits is the scheduler's to bound."""
LAST_WORDS = 1.0
"""Seconds for final chunks to be sent when the grace of a shutdown is over."""


class FleetConfig(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class FleetEngine(Engine):
    """Answers what its orchestrator's agents answer.

    For a parent (plane ``agent``) it has the fleet's slots, and what cannot be begun here is refused so that it goes
    elsewhere. For clients every error is an answer, with its own code, unless another orchestrator could do better.
    """

    name: ClassVar[str] = "orchestrator"
    Config = FleetConfig
    capabilities = ("chat", "completion", "embedding")

    def __init__(self, orchestrator: Orchestrator, plane: Plane) -> None:
        super().__init__(FleetConfig())
        self._orchestrator, self._joins = orchestrator, plane == "agent"
        self._elsewhere: tuple[type[AnywireError], ...] = (ShuttingDown,)
        if self._joins:
            self._elsewhere += (QueueFull, NoAgent, ModelNotFound)
        self._status = EngineStatus("starting")
        self._changed: Callable[[], None] = lambda: None
        self._stop_listening: Callable[[], None] = lambda: None
        self._update: asyncio.Handle | None = None

    async def start(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._status = self._read()
        self._stop_listening = self._orchestrator.listen(self._agents_changed)

    async def close(self) -> None:
        self._stop_listening()
        self._stop_listening = lambda: None
        if self._update is not None:
            self._update.cancel()

    def status(self) -> EngineStatus:
        waiting = self._orchestrator.waiting if self._joins else 0
        if waiting != self._status.queued:
            self._status = msgspec.structs.replace(self._status, queued=waiting)
        return self._status

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        submission = Submission(
            task.kind,
            task.model,
            task.body,
            task.stream,
            task.priority,
            task.time_left_ms / 1000,
            task.trace,
            task.hops + self._joins,
        )
        begun = False
        try:
            stream = self._orchestrator.submit(submission)
            try:
                async for chunk in stream:
                    for delta in _deltas(chunk):
                        begun = True
                        yield delta
            finally:
                stream.cancel("nobody reads it any more")
        except self._elsewhere as error:
            if begun:
                raise
            raise Refused(f"orchestrator {self._orchestrator.info.hub_id}: {error}") from error

    def _agents_changed(self) -> None:
        # Many that come at once are told of once: a status names all models.
        if self._update is None:
            self._update = asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._update = None
        status = self._read()
        if status != msgspec.structs.replace(self._status, queued=0):
            self._status = status
            self._changed()

    def _read(self) -> EngineStatus:
        fleet = self._orchestrator.registry.serving
        # A parent takes so many from one agent.
        models = fleet.ready_models()[:MAX_MODELS]
        if not self._joins:
            if not fleet.ready:
                return EngineStatus("starting", detail="no agent is ready yet", any_model=True)
            return EngineStatus("ready", models, any_model=True)
        # Failed ones count: else two that join each other would recover and fail in turns.
        limit = self._orchestrator.config.max_hops
        depth = min(limit, fleet.depth) + 1
        resources = {DEPTH: float(depth)}
        if depth > limit:
            detail = (
                f"more than {limit} orchestrators (pipeline.max_hops) are below each other: "
                "do they join each other in a circle?"
            )
            if self._status.state != "failed":
                log.error("%s", detail)
            return EngineStatus("failed", (), detail, slots=0, resources=resources)
        if not fleet.ready:
            return EngineStatus("starting", detail="no agent is ready yet", slots=0, resources=resources)
        return EngineStatus("ready", models, slots=min(fleet.ready_slots, MAX_SLOTS), resources=resources)


def _deltas(chunk: Chunk) -> Iterator[Delta]:
    *texts, last = chunk.deltas or ("",)
    for text in texts:
        yield Delta(text)
    yield Delta(last, chunk.extra, chunk.finish_reason, chunk.usage)


def fleet_agent(
    orchestrator: Orchestrator,
    transports: Sequence[Transport],
    plane: Plane,
    *,
    lease: float = 1.0,
    heartbeat_interval: float = 0.25,
) -> Agent:
    """The orchestrator as an agent that has not started: on plane ``client`` of its clients, on plane ``agent`` of the
    orchestrators it joins. Its id is the orchestrator's as a hub. ``transports`` are its own instances."""
    engine = FleetEngine(orchestrator, plane)
    info = agent_info(orchestrator.info.hub_id, engine=engine, lease=lease)
    return Agent(info, engine, transports, slots=CLIENT_SLOTS, plane=plane, heartbeat_interval=heartbeat_interval)


async def leave(agent: Agent, grace: float) -> None:
    """End it while its orchestrator closes with the same ``grace``: what runs may finish, or be told how it ended."""
    try:
        async with asyncio.timeout(grace + LAST_WORDS):
            await agent.drain()
    except TimeoutError:
        log.warning("tasks still ran on plane %s after %g s and are ended", agent.plane, grace)
    await agent.close()
