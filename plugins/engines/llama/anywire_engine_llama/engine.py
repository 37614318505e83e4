"""The engine ``llama``: one model in a llama.cpp server of its own."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import ClassVar

import msgspec

from anywire.engine import Delta, Engine, EngineProgress, EngineStatus
from anywire.errors import ConfigError, EngineFailed
from anywire.messages import State, TaskRequest
from anywire.native_api import api_features
from anywire.offers import Offer, OfferState
from anywire.secrecy import keep_secret
from anywire.this_system import needs_posix
from anywire_engine_llama.config import LlamaConfig
from anywire_engine_models.host.actor import ModelHost
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.resident import LONG_LIFE
from anywire_engine_models.host.server import Device, Exit, Server, Watcher
from anywire_engine_models.host.status import ModelChanged, ModelStatus
from anywire_engine_models.llama_cpp.command import LlamaSettings, llama_command
from anywire_engine_models.llama_cpp.offer import read_offer
from anywire_engine_models.model_files import weights
from anywire_engine_models.model_files.named_weights import NamedWeights
from anywire_engine_models.named_start import start_named
from anywire_engine_models.offered_weights import OfferedWeights
from anywire_engine_models.processes import failures
from anywire_engine_models.processes.launcher import ProcessLauncher
from anywire_engine_models.processes.server_command import ServerCommand
from anywire_engine_models.waiting_turn import WaitingTurn
from anywire_engine_openai.connection_errors import ConnectionFailed
from anywire_engine_openai.resume import Way, can_be_resumed, resumed
from anywire_engine_openai.upstream import Upstream

LINES_SHOWN = 8
"""Last lines of the server that an error shows."""
OFFER_DETAIL = 500
"""Characters of the reason in an offer; the status has all of it."""
_OFFER_STATES: dict[State, OfferState] = {"starting": "starting", "ready": "ready", "failed": "crashed"}
_RESUMED_BY: Way = "last_message"

log = logging.getLogger(__name__)


class _ServersChoice:
    """`Devices` that leave the choice to the server."""

    async def choose(self, model: HostedModel, without: Sequence[str] = ()) -> Device:
        return Device("auto", "llama.cpp chooses itself")


class _NamingLauncher:
    """A launcher of processes that keeps ``digest``, the name of the weights that the newest one has read; when they
    have none it ``is_unnamed``."""

    def __init__(self) -> None:
        self._inner, self._names = ProcessLauncher(), NamedWeights()
        self.digest, self.is_unnamed = "", False

    async def launch(self, model: HostedModel, device: str, watcher: Watcher) -> Server:
        server, found = await start_named(self._inner, self._names, model, device, watcher)
        self.digest, self.is_unnamed = (found.digest, False) if found is not None else ("", True)
        return server


class LlamaEngine(Engine):
    """One model, whose server is restarted when it dies and ends with this process. ``host`` owns it."""

    name: ClassVar[str] = "llama"
    Config: ClassVar[type[LlamaConfig]] = LlamaConfig
    capabilities: tuple[str, ...] = ("chat", "completion", "tokenize", "detokenize", "resume")

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.config: LlamaConfig = config
        if config.embedding:
            self.capabilities = (*type(self).capabilities, "embedding")  # of this instance
        self.slots = config.slots
        """How many tasks it answers at once: an agent's ``slots`` should be the same."""
        self.key = secrets.token_hex(16)
        """What the server wants as bearer token, so that nothing else on this machine (a web page, say) uses it."""
        keep_secret(self.key)
        self._launcher, self._offered = _NamingLauncher(), OfferedWeights()
        self.host = ModelHost(self._launcher, _ServersChoice())
        self._offer = Offer(config.alias, state="starting")
        self._status = EngineStatus("starting", (self._offer,) if config.alias else ())
        self._changed: Callable[[], None] = lambda: None
        self._upstream = Upstream(
            api_key=self.key, default_max_tokens=config.default_max_tokens, always_stream=True, is_llama_cpp=True
        )
        self._model = config.alias
        self._file = ""
        self._is_started = False
        self._pid = 0
        """The newest server's process id, also after its end."""
        self._ready_at = 0.0
        self._deaths = 0
        """In quick succession."""
        self._unlisten: Callable[[], None] = lambda: None

    @property
    def address(self) -> str:
        """Where the server listens (``http://127.0.0.1:41234``), with another port after each restart."""
        return self._upstream.base_url.removesuffix("/v1")

    @property
    def pid(self) -> int:
        """The server's process id, 0 while there is none."""
        hosted = self._hosted()
        return hosted.pid if hosted is not None else 0

    async def start(self, changed: Callable[[], None]) -> None:
        """Load the model; returns when it answers. Raises `ConfigError` when a setting cannot work, and
        `EngineFailed` with the last lines of llama.cpp's log when it does not come up."""
        needs_posix("the engine llama")
        self._changed = changed
        try:
            path = weights.find(self.config.model)
        except ConfigError as error:
            raise ConfigError(f"llama.model: {error}") from error
        self._file = str(path)
        self._model = self.config.alias or weights.public_name(path)
        command = self._command(path)
        self._offer = Offer(self._model, state="starting")
        self._set("starting")
        self._unlisten = self.host.listen(self._model_changed)
        await self.host.begin([self._hosted_model(command)])
        try:
            await self.host.start(self._model)
            self._offer = await self._ask_for_offer()
        except EngineFailed as error:
            ended = self.host.status(self._model).exit
            failed = EngineFailed(self._ending(ended)) if ended is not None else error
            self._set("failed", str(failed))
            raise failed from error
        self._is_started = True
        self._set("ready")

    async def close(self) -> None:
        self._unlisten()
        await self.host.close()
        await self._upstream.close()

    def status(self) -> EngineStatus:
        hosted = self._hosted()
        queued = hosted.waiting if hosted is not None else 0
        return msgspec.structs.replace(self._status, queued=queued) if queued else self._status

    def resumable(self, task: TaskRequest) -> bool:
        same = not self._launcher.is_unnamed and self._offered.can_be_resumed(task)
        return same and can_be_resumed(task, _RESUMED_BY)

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        if self._status.state == "failed":
            # The status has the reason, and with it lines of the log, which are not for clients.
            raise EngineFailed("llama.cpp is not running (it is failed); the agent's log says why")
        try:
            async with contextlib.aclosing(self._run(task)) as run:
                async for each in run:
                    yield each
        finally:
            self._offered.forget(task)

    # Inside

    async def _run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        offered = self._offer.digest
        is_answered = False
        while not is_answered:
            async with WaitingTurn(self.host, self._model) as turn:
                async with contextlib.aclosing(turn.waits_for()) as waits:
                    async for detail in waits:
                        yield self._progress(detail)
                self._offered.compare(task, self._launcher.digest, offered)
                self._upstream.open(f"{turn.server.address}/v1")
                yield EngineProgress("running")
                try:
                    async with contextlib.aclosing(self._answer(task)) as deltas:
                        async for delta in deltas:
                            yield delta
                    is_answered = True
                except ConnectionFailed as error:
                    # A task that an ended server has not taken is answered by the next one.
                    if await turn.end_of_server() is None or not error.did_nothing:
                        raise

    def _command(self, path: Path) -> ServerCommand:
        config = self.config
        settings = LlamaSettings(
            alias=self._model,
            server=config.server,
            slots=config.slots,
            context=config.context,
            threads=config.threads,
            batch_threads=config.batch_threads,
            prompt_cache=config.prompt_cache,
            embedding=config.embedding,
            port=config.port,
            extra_args=tuple(config.extra_args),
            environment={"LLAMA_API_KEY": self.key},
        )
        try:
            command = llama_command(path, settings=settings)
        except ConfigError as error:
            raise ConfigError(f"llama.{error}") from error
        return msgspec.structs.replace(command, secret=False)  # it has one that stays

    def _hosted_model(self, command: ServerCommand) -> HostedModel:
        return HostedModel(
            self._model,
            slots=self.config.slots,
            on_demand=True,  # tasks that wait outlive a restart
            max_restarts=self.config.max_restarts,
            start_timeout=self.config.startup_timeout,
            launch=command,
        )

    def _hosted(self) -> ModelStatus | None:
        return next(iter(self.host.statuses()), None)

    def _progress(self, detail: str) -> EngineProgress:
        if detail.startswith("loading"):
            return EngineProgress("loading", self._model)
        return EngineProgress("queued", detail)

    def _answer(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        if task.resume:
            return resumed(self._upstream, task, self._model, _RESUMED_BY, self.config.default_max_tokens)
        return self._upstream.answer(task, self._model)

    async def _ask_for_offer(self) -> Offer:
        props = b""
        async with self.host.use(self._model) as server:
            self._upstream.open(f"{server.address}/v1")
            with contextlib.suppress(EngineFailed):  # not every server answers this
                props = await self._upstream.get(f"{server.address}/props")
        config = self.config
        return read_offer(self._model, props, slots=config.slots, context=config.context, digest=self._launcher.digest)

    def _model_changed(self, change: ModelChanged) -> None:
        status = change.status
        self._pid = status.pid or self._pid
        if status.state == "running" != change.previous:
            self._ready_at = status.since
        if status.state == change.previous or not self._is_started:
            return
        if status.state == "starting":
            self._set("starting", self._status.detail.partition("\nrestarting")[0])
        elif status.state == "running":
            self._upstream.open(f"{status.address}/v1")
            self._set("ready")
        elif status.state == "crashed":
            self._has_died(status)

    def _has_died(self, status: ModelStatus) -> None:
        lived = status.since - self._ready_at
        self._deaths = 1 if lived > LONG_LIFE else self._deaths + 1
        reason = self._ending(status.exit or Exit(status.reason))
        most = self.config.max_restarts
        if self._deaths > most:
            self._set("failed", f"{reason}\ngiven up after {self._deaths} deaths in a row; restart the agent")
        else:
            self._set("failed", f"{reason}\nrestarting (death {self._deaths} of at most {most} in a row)")

    def _ending(self, ended: Exit) -> str:
        """How the server ended, for a person, with the last lines it wrote."""
        if ended.signal:
            how = f"llama.cpp (pid {self._pid}) was ended by {ended.signal}"
        elif ended.code is not None:
            how = f"llama.cpp (pid {self._pid}) exited with status {ended.code}"
        else:
            how = f"llama.cpp: {ended.reason}"
        port = self.config.port
        if port and ended.reason.startswith(f"port {port} is in use"):
            how += f"\nport {port} is in use: set llama.port to another, or to 0 for a free one"
        advice = failures.advice(ended, self._file)
        lines = [f"  {line}" for line in ended.lines[-LINES_SHOWN:]]
        return "\n".join([f"{how}; it wrote last:" if lines else how, *lines, *([advice] if advice else [])])

    def _set(self, state: State, detail: str = "") -> None:
        offer_detail = detail.partition("\n")[0][:OFFER_DETAIL]
        self._offer = msgspec.structs.replace(self._offer, state=_OFFER_STATES[state], detail=offer_detail)
        if state == "ready":
            features = {name: has for name, has in self._offer.features.items() if name != "resume"}
            features |= {"resume": False} if self._launcher.is_unnamed else {}
            features |= api_features(self.config.apis)
            self._offer = msgspec.structs.replace(self._offer, digest=self._launcher.digest, features=features)
        status = EngineStatus(state, (self._offer,), detail)
        if status == self._status:
            return
        self._status = status
        log.log(logging.WARNING if state == "failed" else logging.INFO, "%s is %s %s", self._model, state, detail)
        self._changed()
