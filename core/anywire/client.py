"""A client that reaches orchestrators over any transport, without HTTP between.

    async with Client("dds", domain=3) as client:
        answer = await client.chat(model="m", messages=[{"role": "user", "content": "Hello"}])
        print(answer["choices"][0]["message"]["content"])
        async for piece in client.stream(model="m", messages=[...]):
            print(piece.text, end="")

To its orchestrators a client is a hub, as an orchestrator is to its agents. So it is the same pipeline, with a queue
that only waits for an orchestrator to appear, and a choice of the least loaded one.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, ClassVar, Self

import msgspec
import pydantic

from anywire.errors import ConfigError, EngineFailed, InvalidRequest, NoAgent, ShuttingDown, StreamCorrupted
from anywire.extra import split
from anywire.identity import hub_info
from anywire.messages import Chunk, Kind
from anywire.pipeline.config import PipelineConfig
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline.stream import TaskStream
from anywire.plugins import Plugins
from anywire.scheduler import QueuedTask, QueueKey, Scheduler, SchedulerConfig
from anywire.selector import AgentView, Selector
from anywire.submission import Submission
from anywire.transport import Transport

MAX_WAITING = 65536
"""Tasks that may wait for an orchestrator to appear."""


class ClientConfig(PipelineConfig):
    """The pipeline's settings as a client has them; without a deadline of its own, the orchestrator's default holds."""

    deadline: float = pydantic.Field(default=math.inf, gt=0, description="a task's time when none is named")
    agent_wait: float = pydantic.Field(default=3.0, ge=0, description="how long to wait for an orchestrator")


class Piece(msgspec.Struct, frozen=True):
    """A piece of a streamed answer. ``choices`` is what plain text of choice 0 cannot hold (tool calls, further
    choices …), in OpenAI's form; ``members`` is what the engine said beside the choices (``system_fingerprint`` …).
    ``finish_reason`` and ``usage`` come with the last piece."""

    text: str = ""
    choices: list[dict[str, Any]] = []
    members: dict[str, Any] = {}
    finish_reason: str = ""
    usage: dict[str, Any] = {}


class Client:
    """Sends tasks to every orchestrator that is seen over the transports given, in order of preference.

    A transport is named, its ``options`` with it when it is the only one, or is an instance of its own. Answers are in
    OpenAI's form; every error is an `AnywireError` as the orchestrator's pipeline raised it, or `NoAgent` when no
    orchestrator is seen. ``lease``: seconds after which the orchestrators take a silent client for dead. ``hub`` is the
    pipeline beneath: its agents are the orchestrators seen now.
    """

    def __init__(
        self,
        *transports: str | Transport,
        config: ClientConfig | None = None,
        lease: float = 1.0,
        **options: Any,
    ) -> None:
        if not transports:
            raise ConfigError("name the transport over which the orchestrator is reached: Client('dds')")
        if options and (len(transports) > 1 or not isinstance(transports[0], str)):
            raise ConfigError(f"options ({', '.join(options)}) can only be given with one transport named")
        plugins = _WithoutHooks()
        made = [plugins.create("transports", each, options) if isinstance(each, str) else each for each in transports]
        self.names = ", ".join(each.name for each in made)
        self._config = config or ClientConfig()
        self.hub = Orchestrator(
            hub_info(lease=lease),
            made,
            _Waiting(SchedulerConfig(max_queue_size=MAX_WAITING)),
            _LeastLoaded(None),
            config=self._config,
            plugins=plugins,
            plane="client",
        )
        self._state = "not open yet: use `async with`"
        self._met = False

    async def open(self) -> None:
        """Open the transports. Raises `TransportUnavailable`. Nobody is waited for."""
        await self.hub.start()
        self._state = ""

    async def close(self) -> None:
        """End what is under way with `ShuttingDown`, through to the engines; idempotent."""
        self._state = "closed"
        await self.hub.close()

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Asking

    async def chat(
        self,
        *,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        deadline: float = 0.0,
        priority: int = 0,
        trace: str = "",
        **fields: Any,
    ) -> dict[str, Any]:
        """A chat completion. ``deadline`` is in seconds, 0 leaves it to the orchestrator; ``trace`` is a W3C
        traceparent; further ``fields`` are the request's own (``max_tokens``, ``temperature``, ``tools`` …)."""
        request = {"model": model, "messages": messages, **fields}
        return await self._ask("chat", request, deadline, priority, trace)

    async def completions(
        self,
        *,
        model: str,
        prompt: Any,
        deadline: float = 0.0,
        priority: int = 0,
        trace: str = "",
        **fields: Any,
    ) -> dict[str, Any]:
        """A completion of ``prompt``; see `chat`."""
        return await self._ask("completion", {"model": model, "prompt": prompt, **fields}, deadline, priority, trace)

    async def embeddings(
        self,
        *,
        model: str,
        input: Any,  # noqa: A002
        deadline: float = 0.0,
        priority: int = 0,
        trace: str = "",
        **fields: Any,
    ) -> dict[str, Any]:
        """Embeddings of ``input``; see `chat`."""
        return await self._ask("embedding", {"model": model, "input": input, **fields}, deadline, priority, trace)

    async def stream(
        self, *, model: str, deadline: float = 0.0, priority: int = 0, trace: str = "", **fields: Any
    ) -> AsyncGenerator[Piece, None]:
        """The pieces of a chat completion, or with ``prompt`` in place of ``messages`` of a completion, as they come.

        A reader that pauses pauses the engine. Leaving the loop early cancels the task, at once when the generator is
        closed (`contextlib.aclosing`)."""
        if ("messages" in fields) == ("prompt" in fields):
            raise InvalidRequest("stream() takes either messages or prompt")
        kind: Kind = "chat" if "messages" in fields else "completion"
        request = {"model": model, **fields, "stream": True}
        submission = _submission(kind, request, True, deadline, priority, trace)
        await self._first_orchestrator()
        stream = self.submit(submission)
        async with aclosing(self.pieces(stream)) as pieces:
            async for piece in pieces:
                yield piece

    def submit(self, submission: Submission) -> TaskStream:
        """Take a task in as a gateway would; its stream also tells which orchestrator and transport were used, and
        the times. Read it with `pieces`, or chunk by chunk."""
        if self._state:
            raise ShuttingDown(f"this client is {self._state}")
        return self.hub.submit(submission)

    async def pieces(self, stream: TaskStream) -> AsyncGenerator[Piece, None]:
        """What a stream of `submit` brings; it is cancelled when its reader goes away."""
        try:
            async for chunk in stream:
                for piece in _pieces(chunk):
                    yield piece
        except (NoAgent, ShuttingDown) as error:
            raise self._explained(error) from error.__cause__
        finally:
            stream.cancel("its reader went away")

    async def models(self) -> list[str]:
        """The models of all orchestrators. Waits for the first orchestrator; raises `NoAgent` when none is seen."""
        await self._first_orchestrator()
        return self.hub.models()

    # Inside

    async def _first_orchestrator(self) -> None:
        """Until one was seen and has agents that are ready: only then it is known which models there are. Raises
        `NoAgent` when none is seen in time."""
        if self._state:
            raise ShuttingDown(f"this client is {self._state}")
        if self._met:
            return
        try:
            async with asyncio.timeout(self._config.agent_wait):
                await self.hub.agents_until(lambda agents: any(each.status.state != "starting" for each in agents))
            self._met = True
        except TimeoutError:
            if not self.hub.agents():
                raise self._nobody() from None

    async def _ask(
        self, kind: Kind, request: dict[str, Any], deadline: float, priority: int, trace: str
    ) -> dict[str, Any]:
        if request.pop("stream", False):
            raise InvalidRequest("this call gives whole answers; use stream() for pieces", param="stream")
        submission = _submission(kind, request, False, deadline, priority, trace)
        await self._first_orchestrator()
        stream = self.submit(submission)
        try:
            return _answer(kind, stream.task_id, request["model"], await stream.result())
        except (NoAgent, ShuttingDown) as error:
            raise self._explained(error) from error.__cause__
        finally:
            stream.cancel("nobody waits for it any more")

    def _explained(self, error: NoAgent | ShuttingDown) -> NoAgent | ShuttingDown:
        """The pipeline speaks of agents; where they are orchestrators, say so."""
        if isinstance(error, NoAgent) and not self.hub.agents():
            return self._nobody()
        if isinstance(error, ShuttingDown) and self._state:
            return ShuttingDown(f"this client is {self._state}", task_id=error.task_id)
        return error

    def _nobody(self) -> NoAgent:
        return NoAgent(
            f"no orchestrator is seen over {self.names} within {self._config.agent_wait:g} s: one must run with this "
            "transport, the same options and client_plane on; `anywire doctor` checks whether the transport works here"
        )


class _WithoutHooks(Plugins):
    """Transports come from plugins; hooks are for orchestrators."""

    def call(self, hook: str) -> Callable[..., Any] | None:
        return None


class _Waiting(Scheduler):
    """Tasks for which no orchestrator is there yet, in order; queueing in earnest is the orchestrator's."""

    name: ClassVar[str] = "waiting"

    def __init__(self, config: SchedulerConfig) -> None:
        super().__init__(config)
        self._queues: dict[QueueKey, OrderedDict[str, QueuedTask]] = {}
        self._keys: dict[str, QueueKey] = {}

    def put(self, task: QueuedTask) -> None:
        if len(self) >= self.config.max_queue_size:
            raise self.full()
        self._keys[task.task_id] = task.key
        self._queues.setdefault(task.key, OrderedDict())[task.task_id] = task

    def put_back(self, task: QueuedTask) -> None:
        self._keys[task.task_id] = task.key
        queue = self._queues.setdefault(task.key, OrderedDict())
        queue[task.task_id] = task
        queue.move_to_end(task.task_id, last=False)

    def take(self, ready: Callable[[QueueKey], bool]) -> QueuedTask | None:
        key = next((key for key in self._queues if ready(key)), None)
        if key is None:
            return None
        task = next(iter(self._queues[key].values()))
        self.remove(task.task_id)
        return task

    def remove(self, task_id: str) -> bool:
        key = self._keys.pop(task_id, None)
        if key is None:
            return False
        queue = self._queues[key]
        del queue[task_id]
        if not queue:
            del self._queues[key]
        return True

    def __len__(self) -> int:
        return len(self._keys)


class _LeastLoaded(Selector):
    """The orchestrator with the fewest tasks of this client's and of others."""

    name: ClassVar[str] = "least_loaded"

    def select(self, task: QueuedTask, candidates: Sequence[AgentView]) -> AgentView:
        return min(candidates, key=lambda agent: (agent.in_flight, agent.status.active))


_FORMS: dict[Kind, tuple[str, str]] = {
    "chat": ("chatcmpl-", "chat.completion"),
    "completion": ("cmpl-", "text_completion"),
}


def _submission(
    kind: Kind, request: dict[str, Any], stream: bool, deadline: float, priority: int, trace: str
) -> Submission:
    if deadline < 0 or math.isnan(deadline):
        raise InvalidRequest(f"the deadline must be 0 or more seconds, not {deadline}", param="deadline")
    try:
        body = msgspec.json.encode(request).decode()
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"the request cannot be written as JSON: {error}") from error
    return Submission(kind, request["model"], body, stream, priority, deadline, trace)


def _answer(kind: Kind, task_id: str, model: str, chunk: Chunk) -> dict[str, Any]:
    """A whole answer in OpenAI's form."""
    usage = _decoded(chunk.usage)
    if kind == "embedding":
        if not chunk.extra:
            raise EngineFailed("the engine gave no embedding")
        return {"object": "list", "data": _decoded(chunk.extra), "model": model, **({"usage": usage} if usage else {})}
    prefix, form = _FORMS[kind]
    choices, members = _decoded(chunk.extra, split) or ([], {})
    if not chunk.extra:
        text = "".join(chunk.deltas)
        said = {"message": {"role": "assistant", "content": text}} if kind == "chat" else {"text": text}
        choices = [{"index": 0, **said, "logprobs": None, "finish_reason": chunk.finish_reason or "stop"}]
    answer: dict[str, Any] = {
        "id": prefix + task_id,
        "object": form,
        "created": int(time.time()),
        "model": model,
        "choices": choices,
    }
    return members | answer | ({"usage": usage} if usage else {})


def _pieces(chunk: Chunk) -> list[Piece]:
    if not chunk.final and not chunk.extra:
        return [Piece(text) for text in chunk.deltas]
    *texts, last = chunk.deltas or ("",)
    choices, members = _decoded(chunk.extra, split) or ([], {})
    ending = Piece(last, choices, members, chunk.finish_reason, _decoded(chunk.usage) or {})
    return [*map(Piece, texts), ending]


def _decoded(text: str, decode: Callable[[str], Any] = msgspec.json.decode) -> Any:
    try:
        return decode(text) if text else None
    except msgspec.DecodeError as error:
        raise StreamCorrupted(f"what came as JSON cannot be read: {error}", phase="streaming") from error
