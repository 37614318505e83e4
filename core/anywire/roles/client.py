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
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from anywire.builtin.fifo import Fifo
from anywire.errors import ConfigError, InvalidRequest, NoAgent, ShuttingDown
from anywire.identities.end_check import EndCheck
from anywire.identity import hub_info
from anywire.messages import Kind, WholeKind
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.roles.client_answers import Piece, pieces_of, whole_answer
from anywire.roles.client_commands import ClientConfig, PlaneCommands
from anywire.roles.client_deliberations import Deliberates
from anywire.roles.client_key import client_identity, with_proof
from anywire.roles.client_requests import NO_OPTIONS, TaskOptions, submission_of
from anywire.scheduler import SchedulerConfig
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.transport import Transport

__all__ = ["Client", "ClientConfig", "Piece", "TaskOptions"]

MAX_WAITING = 65536
"""Tasks that may wait for an orchestrator to appear."""


class FirstComeFirstSent(Fifo):
    """Sends priorities on: the scheduler of the orchestrator says whether it uses them."""

    uses_priority: ClassVar[bool] = True
    lets_pass: ClassVar[bool] = True


class Client(PlaneCommands, Deliberates):
    """Sends tasks to every orchestrator that is seen over the transports given, in order of preference.

    A transport is named, its ``options`` with it when it is the only one, or is an instance of its own. Answers are in
    OpenAI's form; every error is an `AnywireError` as the orchestrator's pipeline raised it, or `NoAgent` when no
    orchestrator is seen. ``lease``: seconds after which the orchestrators take a silent client for dead. ``key``: the
    API key (``aw-…``) of this client, where the orchestrators need one; without it that of the environment variable
    ANYWIRE_API_KEY, ``""`` for none. It is shown by a signature and never sent. ``admitted``: the file with the
    orchestrators that are asked (`anywire agents admit --role orchestrator`); without it every one. ``hub`` is the
    pipeline beneath: its agents are the orchestrators seen now. The constructor raises `ConfigError` and
    `PluginError`.
    """

    def __init__(
        self,
        *transports: str | Transport,
        config: ClientConfig | None = None,
        lease: float = 1.0,
        key: str | None = None,
        admitted: Path | None = None,
        **options: Any,
    ) -> None:
        if not transports:
            raise ConfigError("name the transport over which the orchestrator is reached: Client('dds')")
        if options and (len(transports) > 1 or not isinstance(transports[0], str)):
            raise ConfigError(f"options ({', '.join(options)}) can only be given with one transport named")
        plugins = WithoutHooks()
        made = [plugins.create("transports", each, options) if isinstance(each, str) else each for each in transports]
        self.names = ", ".join(each.name for each in made)
        identity = client_identity(key)
        self.has_key = identity is not None
        if identity is not None:
            for each in made:
                each.identity = identity
        check = EndCheck(admitted) if admitted is not None else None
        for each in made:
            each.admits = check.refusal if check is not None else None
        self._config = config or ClientConfig()
        self.hub = Orchestrator(
            with_proof(hub_info(lease=lease), identity),
            made,
            FirstComeFirstSent(SchedulerConfig(max_queue_size=MAX_WAITING)),
            plugins.create("selectors", "least_loaded", {}),
            config=self._config,
            plugins=plugins,
            plane="client",
            end_check=check,
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
        task: TaskOptions = NO_OPTIONS,
        **fields: Any,
    ) -> dict[str, Any]:
        """A chat completion. ``deadline`` is in seconds, 0 leaves it to the orchestrator; ``trace`` is a W3C
        traceparent; ``task`` is what it may carry beside (`TaskOptions`); further ``fields`` are the request's own
        (``max_tokens``, ``temperature``, ``tools`` …)."""
        request = {"model": model, "messages": messages, **fields}
        return await self._ask("chat", request, deadline, priority, trace, task)

    async def completions(
        self,
        *,
        model: str,
        prompt: Any,
        deadline: float = 0.0,
        priority: int = 0,
        trace: str = "",
        task: TaskOptions = NO_OPTIONS,
        **fields: Any,
    ) -> dict[str, Any]:
        """A completion of ``prompt``; see `chat`."""
        return await self._ask(
            "completion", {"model": model, "prompt": prompt, **fields}, deadline, priority, trace, task
        )

    async def embeddings(
        self,
        *,
        model: str,
        input: Any,  # noqa: A002
        deadline: float = 0.0,
        priority: int = 0,
        trace: str = "",
        task: TaskOptions = NO_OPTIONS,
        **fields: Any,
    ) -> dict[str, Any]:
        """Embeddings of ``input``; see `chat`."""
        return await self._ask("embedding", {"model": model, "input": input, **fields}, deadline, priority, trace, task)

    async def ask(
        self,
        kind: WholeKind,
        *,
        model: str,
        deadline: float = 0.0,
        priority: int = 0,
        trace: str = "",
        task: TaskOptions = NO_OPTIONS,
        **fields: Any,
    ) -> dict[str, Any]:
        """The answer to a task of another kind (``rerank``, ``tokenize`` …); ``fields`` and the answer are those that
        `anywire.engine` names. See `chat`."""
        return await self._ask(kind, {"model": model, **fields}, deadline, priority, trace, task)

    async def stream(
        self,
        *,
        model: str,
        deadline: float = 0.0,
        priority: int = 0,
        trace: str = "",
        task: TaskOptions = NO_OPTIONS,
        **fields: Any,
    ) -> AsyncGenerator[Piece, None]:
        """The pieces of a chat completion, or with ``prompt`` in place of ``messages`` of a completion, as they come.

        A reader that pauses pauses the engine. Leaving the loop early cancels the task, at once when the generator is
        closed (`contextlib.aclosing`)."""
        if ("messages" in fields) == ("prompt" in fields):
            raise InvalidRequest("stream() takes either messages or prompt")
        kind: Kind = "chat" if "messages" in fields else "completion"
        request = {"model": model, **fields, "stream": True}
        submission = submission_of(kind, request, True, deadline, priority, trace, task)
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
                for piece in pieces_of(chunk):
                    yield piece
        except (NoAgent, ShuttingDown) as error:
            raise self._explained(error) from error.__cause__
        finally:
            stream.cancel("its reader went away")

    async def models(self) -> list[str]:
        """The models of all orchestrators that this client may use. Waits for the first orchestrator; raises `NoAgent`
        when none is seen, and with a key what `command` raises."""
        await self._first_orchestrator()
        if not self.has_key:
            return self.hub.models()
        # What orchestrators announce is the same for everybody; what a key may use, each of them knows.
        asked = [self.command("models", orchestrator=each.agent_id) for each in self.hub.agents()]
        return sorted({found["model"] for models in asked async for found in models})

    # Inside

    def _pieces_of(self, submission: Submission) -> AsyncGenerator[Piece, None]:
        return self.pieces(self.submit(submission))

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
        self, kind: Kind, request: dict[str, Any], deadline: float, priority: int, trace: str, task: TaskOptions
    ) -> dict[str, Any]:
        if request.pop("stream", False):
            raise InvalidRequest("this call gives whole answers; use stream() for pieces", param="stream")
        submission = submission_of(kind, request, False, deadline, priority, trace, task)
        await self._first_orchestrator()
        stream = self.submit(submission)
        try:
            return whole_answer(kind, stream.task_id, request["model"], await stream.result())
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


class WithoutHooks(Plugins):
    """Transports come from plugins; hooks are for orchestrators."""

    def call(self, hook: str) -> Callable[..., Any] | None:
        return None
