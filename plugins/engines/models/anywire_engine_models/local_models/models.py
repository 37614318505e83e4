"""The models of one program."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from typing import Any, Self

from anywire.clock import Clock
from anywire.engine import Delta
from anywire.errors import DeadlineExceeded, InvalidRequest
from anywire_engine_models.catalogue import Catalogue, registry_of
from anywire_engine_models.config import ModelsConfig
from anywire_engine_models.devices import MachineDevices, devices_of
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.model_log import Logged
from anywire_engine_models.host.server import Launcher, Server
from anywire_engine_models.host.status import Listener, MemoryUse, ModelChanged, ModelStatus
from anywire_engine_models.hosted_models import KnownModel, known_model
from anywire_engine_models.llama_cpp.cards import LlamaCards
from anywire_engine_models.local_models import chat
from anywire_engine_models.local_models.changes import Changes
from anywire_engine_models.local_models.chat import ChatPiece
from anywire_engine_models.local_models.usage import ServerUsage, UsageReader
from anywire_engine_models.machine_budget.share import MemoryShare
from anywire_engine_models.planned_host import planned_host
from anywire_engine_models.registry.entry import Entry, EntrySettings
from anywire_engine_models.running_models import RunningModels
from anywire_engine_models.upstreams import Upstreams
from anywire_engine_openai.assembly import Assembly

CHAT_TIMEOUT = 300.0
"""Seconds until an answer must be complete, where a call does not say otherwise."""


class LocalModels:
    """Local models as processes that this program owns: start and stop them, chat, look at them.

    Use it as an asynchronous context manager: at its end all servers are stopped, and however this process ends, none
    is left. All methods are called on the event loop, by any number of callers at once. A model is named by its
    ``full_identifier`` in the registry.

        async with LocalModels(ModelsConfig(registry="models.json", memory_budget="8 GB")) as models:
            await models.start("local:smollm2:135m")
            async for piece in models.chat("local:smollm2:135m", [{"role": "user", "content": "Hello"}]):
                print(piece.text, end="")

    Errors are those of `anywire.errors`: `ModelNotFound`, `ModelStopped` (it does not run, and no request starts it),
    `EngineFailed` (it did not start, or ended: with its exit status and last lines), `InvalidRequest`, `QueueFull`,
    `DeadlineExceeded`, `ShuttingDown`, and `ConfigError` where a file cannot be read or written.
    """

    def __init__(
        self,
        config: ModelsConfig | None = None,
        *,
        launcher: Launcher | None = None,
        devices: MachineDevices | None = None,
        clock: Clock | None = None,
    ) -> None:
        """``config`` is that of the engine `models`: where the registry is, how models are run, the memory for all of
        them. ``launcher``, ``devices`` and ``clock`` are those of this machine unless a test gives others."""
        self.config = config if config is not None else ModelsConfig()
        self._devices = devices if devices is not None else devices_of(self.config)
        self._llama_cards = LlamaCards()
        self._running = RunningModels()
        self._host = planned_host(self.config, self._devices, self._llama_cards, self._running, launcher, clock)
        self._share = MemoryShare(self.config, self._host, clock=clock)
        self._catalogue = Catalogue(
            self.config, registry_of(self.config.registry), self._running, self._apply, lambda: None
        )
        self._own: dict[str, KnownModel] = {}
        self._upstreams = Upstreams()
        self._usage = UsageReader()
        self._unlisten: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Self:
        try:
            await self._devices.begin()
            self._devices.follow(self._host)
            await self._catalogue.read()
            self._unlisten = self._host.listen(self._changed)
            self._share.begin()
            await self._host.begin(self._all(self._catalogue.models))
        except BaseException:
            await self.close()
            raise
        self._catalogue.follow()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop all models; who waits is answered with `ShuttingDown`. Safe to call twice."""
        await self._catalogue.close()
        await self._host.close()
        await self._share.close()
        self._unlisten()
        await self._upstreams.close()
        await self._llama_cards.close()
        await self._devices.close()

    # Which models there are

    @property
    def fault(self) -> str:
        """What is wrong with the registry, and what counts in its place; empty when nothing is."""
        return self._catalogue.fault

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The models of the registry."""
        return self._catalogue.registry.entries

    async def add(self, entry: Entry, *, replace: bool = False) -> None:
        """Write a model into the registry file; with ``replace`` in the place of the one of its identifier. Raises
        `InvalidRequest` when there is one, and `ConfigError` when the file cannot be written."""
        await self._catalogue.registry.add(entry, replace=replace)
        await self._catalogue.settled()

    async def update(self, model: str, settings: EntrySettings) -> None:
        """Write how a model is run into the registry file; it counts from the model's next start on."""
        await self._catalogue.registry.update(model, settings)
        await self._catalogue.settled()

    async def reread(self) -> None:
        """Return once what the registry file has now counts. A file that changes is read again anyway, within a
        second."""
        await self._catalogue.registry.read()
        await self._catalogue.settled()

    async def put(self, entry: Entry, config: ModelsConfig | None = None) -> None:
        """Have a model beside those of the registry, or in the place of the one of its identifier there, and write
        nothing. ``config`` says how it is run, default: that of all. A running one stays as it is until its next
        start. Raises `InvalidRequest` for settings that cannot work."""
        try:
            known = await asyncio.to_thread(known_model, entry, config if config is not None else self.config)
        except ValueError as error:
            raise InvalidRequest(f"{entry.full_identifier} cannot be run: {error}") from error
        self._own[entry.full_identifier] = known
        await self._apply(self._catalogue.models)

    async def remove(self, model: str) -> None:
        """Undo `put`. A running model ends once it serves nothing more. Nothing happens where there is none."""
        if self._own.pop(model, None) is not None:
            await self._apply(self._catalogue.models)

    # What they do

    async def start(self, model: str) -> ModelStatus:
        """Start a model and return when it answers; at once if it does. Starts of one model share one process."""
        return await self._host.start(self._known(model).hosted.name)

    async def stop(self, model: str) -> ModelStatus:
        """Stop a model, also one that is starting, and return when its process is gone."""
        return await self._host.stop(model)

    async def pin(self, model: str, pinned: bool = True) -> ModelStatus:
        """A pinned model makes room for no other one."""
        return await self._host.pin(model, pinned)

    async def chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        timeout: float = CHAT_TIMEOUT,
        told: Callable[[str], None] = lambda detail: None,
        **members: Any,
    ) -> AsyncGenerator[ChatPiece, None]:
        """The answer to a chat, piece by piece; the last piece has the reason of its end. Leave it early
        (``contextlib.aclosing``) to end the work of the model.

        ``members`` are further ones of OpenAI's request (``max_tokens=64``, ``temperature=0.7``, ``tools=[…]``) or of
        the server's own (``top_k``, ``chat_template_kwargs`` …); None leaves one out. ``timeout`` is in seconds, for
        everything. ``told`` is called with what the request waits for (``loading`` …)."""
        assembly = Assembly(chat=True)
        async with aclosing(self.deltas(model, messages, timeout=timeout, told=told, **members)) as deltas:
            async for delta in deltas:
                assembly.add(delta)
                step = chat.piece(delta)
                if step.text or step.thinking:
                    yield step
        yield chat.last_piece(assembly.whole())

    async def complete(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        timeout: float = CHAT_TIMEOUT,
        told: Callable[[str], None] = lambda detail: None,
        **members: Any,
    ) -> dict[str, Any]:
        """The whole answer to a chat, as OpenAI's JSON object. Otherwise as `chat`."""
        assembly = Assembly(chat=True)
        async with aclosing(self.deltas(model, messages, timeout=timeout, told=told, **members)) as deltas:
            async for delta in deltas:
                assembly.add(delta)
        return chat.completion(assembly.whole(), model, f"chatcmpl-{secrets.token_hex(12)}", int(time.time()))

    async def deltas(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        timeout: float = CHAT_TIMEOUT,
        told: Callable[[str], None] = lambda detail: None,
        **members: Any,
    ) -> AsyncGenerator[Delta, None]:
        """The answer as its server gives it, calls of tools in parts: for who calls them. Otherwise as `chat`."""
        known = self._known(model)
        body = chat.request_body(messages, members)
        deadline = asyncio.get_running_loop().time() + timeout
        is_answered = False
        try:
            while not is_answered:
                async with AsyncExitStack() as turn:
                    async with asyncio.timeout_at(deadline):
                        server = await turn.enter_async_context(self._host.use(model, told))
                    known = self._running.get(model) or known
                    upstream, _ = self._upstreams.of(known, server)
                    try:
                        async with aclosing(chat.answer(upstream, server, known.served_name, body, deadline)) as deltas:
                            async for delta in deltas:
                                yield delta
                        is_answered = True
                    except chat.ServerEnded as error:
                        # A request that an ended server has not taken is answered by the next one.
                        if not error.did_nothing:
                            raise
        except TimeoutError as error:
            raise DeadlineExceeded(f"{model} has not answered within {timeout:g} s") from error

    def server(self, model: str) -> AbstractAsyncContextManager[Server]:
        """A turn at the server of a model, for requests of one's own: ``async with models.server(name) as server``. It
        keeps its place in memory meanwhile."""
        return self._host.use(model)

    # How they are

    def list(self) -> tuple[ModelStatus, ...]:
        """All models as they are now."""
        return self._host.statuses()

    def status(self, model: str) -> ModelStatus:
        """One model as it is now."""
        return self._host.status(model)

    def memory(self) -> MemoryUse:
        """What the models use of their budget."""
        return self._host.memory()

    def usage(self, model: str) -> ServerUsage | None:
        """What the server of a model uses now; None when it has no process."""
        status = self._host.status(model)
        return self._usage.read(status.pid, self._devices.gauges()) if status.pid else None

    def logs(
        self, model: str, *, lines: int = 100, follow: bool = False, after: str = ""
    ) -> AsyncGenerator[Logged, None]:
        """The newest lines that a model's servers wrote, oldest first, or those ``after`` the line of that id; with
        ``follow`` those to come too. Each is a `LogLine`; `Missed` and `Reset` say what is left out."""
        return self._host.logs(model, lines=lines, follow=follow, after=after)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` on the event loop at every change; returns what ends that."""
        return self._host.listen(listener)

    def changes(self) -> Changes:
        """Every change from now on, as a stream."""
        return Changes(self._host.listen)

    # Inside

    def _known(self, model: str) -> KnownModel:
        return self._own[model] if model in self._own else self._catalogue.get(model)

    def _all(self, registered: Mapping[str, KnownModel]) -> Sequence[HostedModel]:
        return [known.hosted for known in (dict(registered) | self._own).values()]

    async def _apply(self, registered: Mapping[str, KnownModel]) -> None:
        await self._host.replace(self._all(registered))

    def _changed(self, change: ModelChanged) -> None:
        if change.status.state in ("stopped", "crashed") and not change.status.serving:
            self._upstreams.forget(change.status.model)
            self._running.ended(change.status.model)
