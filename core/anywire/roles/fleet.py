"""An orchestrator as an agent: of its clients, and of a parent orchestrator that it joins.

Its engine is the whole pipeline with the fleet behind it. The ordinary `Agent` around it brings credit, cancel,
refusal, lost hubs and drain, and nothing of that is written twice: a reader that pauses stops the agent, which stops
reading the pipeline's stream, which stops the engine at the far end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, ClassVar, get_args

import msgspec
import pydantic

from anywire import errors
from anywire.access import Access
from anywire.caller import Caller
from anywire.engine import Delta, Engine, EngineProgress, EngineStatus
from anywire.errors import (
    AnywireError,
    DeadlineTooShort,
    InvalidRequest,
    ModelNotFound,
    NoAgent,
    QueueFull,
    Refused,
    ShuttingDown,
)
from anywire.identity import agent_info
from anywire.large_body import LARGE_BYTES, read_large_body
from anywire.messages import Chunk, Kind, Progress, TaskRequest
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline.tasks.task import ORCHESTRATOR
from anywire.request_log import RequestLog
from anywire.roles.agent import Agent
from anywire.roles.fleet_commands import FleetCommands
from anywire.roles.fleet_status import status_for_clients, status_for_parent
from anywire.roles.identities import OwnIdentity
from anywire.roles.link_callers import protect_clients
from anywire.roles.remembered import Remembered
from anywire.submission import NO_HINTS, Hints, Submission, checked_hints
from anywire.task_stream import TaskStream
from anywire.transport import Plane, Transport

log = logging.getLogger(__name__)

CLIENT_SLOTS = 65536
"""What clients may have under way at once; how much of it waits is the scheduler's to bound."""
FINAL_CHUNKS_TIMEOUT = 1.0
"""Seconds for final chunks to be sent when the grace of a shutdown is over."""


class FleetConfig(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class FleetEngine(Engine):
    """Answers what its orchestrator's agents answer.

    For a parent (plane ``agent``) it has the fleet's slots, and what cannot be begun here is refused so that it goes
    elsewhere. For clients every error is an answer, with its own code, unless another orchestrator could do better.
    """

    name: ClassVar[str] = ORCHESTRATOR
    Config = FleetConfig
    capabilities = get_args(Kind)

    def __init__(
        self, orchestrator: Orchestrator, plane: Plane, requests: RequestLog, access: Access | None = None
    ) -> None:
        super().__init__(FleetConfig())
        self._requests = requests
        self._orchestrator, self._joins = orchestrator, plane == "agent"
        self._elsewhere: tuple[type[AnywireError], ...] = (ShuttingDown,)
        if self._joins:
            self._elsewhere += (QueueFull, DeadlineTooShort, NoAgent, ModelNotFound)
        self._status = EngineStatus("starting")
        self._changed: Callable[[], None] = lambda: None
        self._stop_listening: Callable[[], None] = lambda: None
        self._update: asyncio.Handle | None = None
        self._weights: dict[str, str] = {}
        """Digests of the weights of models whose answers go on here from a text, as the parent was told last."""
        self._running: dict[tuple[str, str, int], tuple[TaskStream, str | None]] = {}
        """Streams by hub, task and attempt, with the digest that the parent expects of their weights, None where it
        expects nothing."""
        self._own = Remembered()
        """Tasks by the hub that submitted them."""
        by_link = plane == "client" and not (access is not None and access.needs_key)
        self._commands = FleetCommands(orchestrator, self._own if by_link else None)

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

    def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        """As `run_for`, for a caller whom nobody but the task names."""
        return self.run_for(task, Caller(task.hub_id, task.tenant))

    async def run_for(self, task: TaskRequest, caller: Caller) -> AsyncGenerator[Delta | EngineProgress, None]:
        """See `anywire.roles.agent_run.RunsForCallers`."""
        begun, stream, began, error_code = False, None, perf_counter(), errors.TaskCancelled.code
        try:
            weights = self._weights.get(task.model)
            if task.resume:
                self._check_resume(task, weights)
            submission = self._submission(task, caller, weights or "")
            if len(task.body) > LARGE_BYTES:
                text, outline = await read_large_body(task.body, self._orchestrator.config.max_body_bytes)
                submission = msgspec.structs.replace(submission, body=text, outline=outline)
            stream = self._submit(submission, task)
            self._own.add(task.hub_id, stream.task_id)
            self._running[task.hub_id, task.task_id, task.attempt] = stream, weights
            if task.progress and stream.progress is None:
                yield EngineProgress("queued")
            while (step := await stream.step()) is not None:
                if isinstance(step, Progress):
                    yield EngineProgress(step.state, step.detail)
                    continue
                for delta in _deltas(step, stream):
                    begun = True
                    yield delta
            error_code = ""
        except AnywireError as error:
            error_code = error.code
            if isinstance(error, self._elsewhere) and not begun:
                raise Refused(f"orchestrator {self._orchestrator.info.hub_id}: {error}") from error
            if stream is not None and stream.spent > 1:
                yield Delta(attempts_used=stream.spent)
            raise
        finally:
            if stream is not None:
                del self._running[task.hub_id, task.task_id, task.attempt]
                stream.cancel("nobody reads it any more")
            self._requests.add(
                f"{'parent' if self._joins else 'client'} {task.hub_id} {task.kind}",
                "failed" if error_code else "answered",
                began,
                task=stream,
                model=task.model,
                error=error_code,
            )

    def resumable(self, task: TaskRequest) -> bool:
        """Whether the agent here that answers could be followed by another one, as the parent was told of its
        weights."""
        stream, weights = self._running.get((task.hub_id, task.task_id, task.attempt), (None, None))
        if stream is None or weights is None:
            return False
        return stream.weights == weights and stream.model == task.model

    def carry_out(
        self, name: str, arguments: Mapping[str, Any], target: Sequence[str], deadline: float, caller: Caller
    ) -> AsyncIterator[Any]:
        """See `anywire.roles.agent_commands.PassesCommandsOn`."""
        return self._commands.carry_out(name, arguments, target, deadline, caller)

    def _submit(self, submission: Submission, task: TaskRequest) -> TaskStream:
        return self._orchestrator.submit(submission)

    def _check_resume(self, task: TaskRequest, weights: str | None) -> None:
        """Raises `Refused` where nobody here goes on with the answer."""
        limit = self._orchestrator.config.resume_bytes
        if weights is None:
            raise Refused(f"no model {task.model!r} goes on from a text here, or its agents have different weights")
        if len(task.resume.encode(errors="replace")) > limit:
            raise Refused(f"the text to go on from is longer than {limit} bytes (pipeline.resume_bytes)")

    def _submission(self, task: TaskRequest, caller: Caller, digest: str) -> Submission:
        """A task as its orchestrator takes it in. Raises `InvalidRequest` for hints that are none."""
        return Submission(
            task.kind,
            task.model,
            task.body,
            task.stream,
            task.priority,
            task.time_left_ms / 1000,
            task.trace,
            task.hops + self._joins,
            caller,
            task.session,
            task.parent,
            task.policy,
            _hints(task.hints),
            task.prefer,
            task.avoid,
            task.attempts_left,
            task.progress,
            resume=task.resume,
            digest=digest,
            named_tenant=task.tenant,
        )

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
        if not self._joins:
            return status_for_clients(self._orchestrator)
        self._weights = self._orchestrator.resumable_models()
        status = status_for_parent(self._orchestrator, self._weights)
        if status.state == "failed" and self._status.state != "failed":
            log.error("%s", status.detail)
        return status


def _deltas(chunk: Chunk, stream: TaskStream) -> Iterator[Delta]:
    *texts, last = chunk.deltas or ("",)
    for text in texts:
        yield Delta(text)
    yield Delta(last, chunk.extra, chunk.finish_reason, chunk.usage, stream.spent if chunk.final else 0)


def _hints(text: str) -> Hints:
    if not text:
        return NO_HINTS
    try:
        hints = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"the hints are no JSON object: {error}", param="hints") from error
    return checked_hints(hints)


def fleet_agent(
    orchestrator: Orchestrator,
    transports: Sequence[Transport],
    plane: Plane,
    *,
    lease: float = 1.0,
    heartbeat_interval: float = 0.25,
    log_requests: bool = True,
    access: Access | None = None,
    own: OwnIdentity | None = None,
) -> Agent:
    """The orchestrator as an agent that has not started: on plane ``client`` of its clients, on plane ``agent`` of the
    orchestrators it joins. Its id is the orchestrator's as a hub. ``transports`` are its own instances, ``access`` says
    who its clients are (by default everybody is let in). With ``log_requests`` the log gets a line for each task.
    ``own`` is its identity, which its transports have already."""
    engine = FleetEngine(orchestrator, plane, RequestLog(log_requests), access)
    info = agent_info(orchestrator.info.hub_id, engine=engine, lease=lease)
    if own is not None:
        info = own.agent(info, plane)
    if plane == "client" and access is not None and access.needs_key:
        protect_clients(transports)
    level = logging.DEBUG if plane == "client" else logging.INFO
    return Agent(
        info,
        engine,
        transports,
        slots=CLIENT_SLOTS,
        plane=plane,
        heartbeat_interval=heartbeat_interval,
        log_level=level,
        access=access,
        end_check=own.check if own is not None else None,
    )


async def leave(agent: Agent, grace: float) -> None:
    """End it while its orchestrator closes with the same ``grace``: what runs may finish, or be told how it ended."""
    try:
        async with asyncio.timeout(grace + FINAL_CHUNKS_TIMEOUT):
            await agent.drain()
    except TimeoutError:
        log.warning("tasks still ran on plane %s after %g s and are ended", agent.plane, grace)
    await agent.close()
