"""The engine ``llama``: llama.cpp's server as a supervised child process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import AsyncGenerator, Callable
from typing import Any, ClassVar

import msgspec

from anywire.engine import Delta, Engine, EngineProgress, EngineStatus
from anywire.errors import ConfigError, EngineFailed
from anywire.messages import State, TaskRequest
from anywire.offers import Offer, OfferState
from anywire_engine_llama import model_file
from anywire_engine_llama.child import Child
from anywire_engine_llama.command import command
from anywire_engine_llama.config import LlamaConfig
from anywire_engine_llama.offer import read_offer
from anywire_engine_openai.connection_errors import ConnectionFailed
from anywire_engine_openai.resume import Way, can_be_resumed, resumed
from anywire_engine_openai.upstream import Upstream

FIRST_DELAY, LAST_DELAY = 0.1, 10.0  # seconds before a restart, doubling
LONG_LIFE = 30.0  # seconds; a death after that long begins the count anew

OFFER_DETAIL = 500
"""Characters of the reason in an offer; the status has all of it."""
_OFFER_STATES: dict[State, OfferState] = {"starting": "starting", "ready": "ready", "failed": "crashed"}
_RESUMED_BY: Way = "last_message"

log = logging.getLogger(__name__)


class LlamaEngine(Engine):
    """One model in one llama.cpp server of its own, which is restarted when it dies and ends with this process."""

    name: ClassVar[str] = "llama"
    Config: ClassVar[type[LlamaConfig]] = LlamaConfig
    capabilities: tuple[str, ...] = ("chat", "completion", "resume")

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.config: LlamaConfig = config
        if config.embedding:
            self.capabilities = (*type(self).capabilities, "embedding")  # of this instance
        self.slots = config.slots
        """How many tasks it answers at once: an agent's ``slots`` should be the same."""
        self.key = secrets.token_hex(16)
        """What the child wants as bearer token, so that nothing else on this machine (a web page, say) uses it."""
        self._offer = Offer(config.alias, state="starting")
        self._status = EngineStatus("starting", (self._offer,) if config.alias else ())
        self._changed: Callable[[], None] = lambda: None
        self._upstream = Upstream(api_key=self.key, default_max_tokens=config.default_max_tokens, always_stream=True)
        self._command: list[str] = []
        self._model = config.alias
        self._digest = ""
        self._free = asyncio.Semaphore(config.slots)
        """The slots that no task of this engine uses."""
        self._queued = 0
        self._moved = asyncio.Event()
        """Set when the state changes, for tasks that wait for it."""
        self._child: Child | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where the child listens (``http://127.0.0.1:41234``), with another port after each restart."""
        return self._upstream.base_url.removesuffix("/v1")

    @property
    def pid(self) -> int:
        """The child's process id, 0 while there is none."""
        return self._child.pid if self._child is not None else 0

    async def start(self, changed: Callable[[], None]) -> None:
        """Load the model; returns when it answers. Raises `ConfigError` when a setting cannot work, and
        `EngineFailed` with the last lines of llama.cpp's log when it does not come up."""
        self._changed = changed
        path = model_file.find(self.config.model)
        self._model = self.config.alias or model_file.public_name(path)
        self._command = command(self.config, path, self._model)
        self._offer = Offer(self._model, state="starting")
        self._set("starting")
        try:
            self._digest = await asyncio.to_thread(model_file.digest, path)
        except OSError as error:
            raise ConfigError(f"llama.model: {path} cannot be read: {error}") from error
        try:
            child = await self._launch()
        except EngineFailed as error:
            self._set("failed", str(error))
            raise
        self._set("ready")
        self._supervisor = asyncio.create_task(self._supervise(child), name="llama supervisor")

    async def close(self) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await supervisor
        child, self._child = self._child, None
        if child is not None:
            await child.stop()
        await self._upstream.close()
        self._moved.set()

    def status(self) -> EngineStatus:
        return msgspec.structs.replace(self._status, queued=self._queued) if self._queued else self._status

    def resumable(self, task: TaskRequest) -> bool:
        return can_be_resumed(task, _RESUMED_BY)

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        if self._free.locked():
            yield EngineProgress("queued", f"all {self.config.slots} slots are in use")
            self._queued += 1
            try:
                await self._free.acquire()
            finally:
                self._queued -= 1
        else:
            await self._free.acquire()
        try:
            if self._is_restarting:
                yield EngineProgress("loading", self._model)
                while self._is_restarting:
                    self._moved.clear()
                    await self._moved.wait()
            if self._status.state != "ready":
                # The status has the reason, and with it lines of the log, which are not for clients.
                raise EngineFailed(f"llama.cpp is not running (it is {self._status.state}); the agent's log says why")
            yield EngineProgress("running")
            async with contextlib.aclosing(self._answer(task)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            self._free.release()

    @property
    def _is_restarting(self) -> bool:
        return self._status.state == "starting" and self._supervisor is not None

    def _answer(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        if task.resume:
            return resumed(self._upstream, task, self._model, _RESUMED_BY, self.config.default_max_tokens)
        return self._upstream.answer(task, self._model)

    async def _launch(self) -> Child:
        """Start a child and wait until it answers. Raises `EngineFailed`; no child is left then."""
        try:
            child = self._child = await Child.spawn(self._command, os.environ | {"LLAMA_API_KEY": self.key})
        except OSError as error:
            raise EngineFailed(f"llama.cpp cannot be started: {error}") from error
        try:
            async with asyncio.timeout(self.config.startup_timeout):
                either: set[asyncio.Future[Any]] = {child.address, child.exited}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not child.exited.done():
                    self._upstream.open(child.address.result() + "/v1")
                    await self._healthy(child)
            if child.exited.done():
                raise EngineFailed(f"{child.ending()}{self._advice(child)}")
            await self._ask_for_offer()
        except TimeoutError:
            await child.stop()
            raise EngineFailed(
                f"llama.cpp was not ready after {self.config.startup_timeout:g} s (llama.startup_timeout)"
                f"{child.last_lines()}"
            ) from None
        except BaseException:
            await child.stop()
            raise
        return child

    async def _healthy(self, child: Child) -> None:
        """Wait until ``/health`` says that the model is loaded (a llama-server may listen before), or it died."""
        delay = 0.01
        while not child.exited.done():
            with contextlib.suppress(ConnectionFailed):
                if await self._upstream.healthy():
                    return
            await asyncio.wait({child.exited}, timeout=delay)
            delay = min(delay * 2, 0.5)

    async def _ask_for_offer(self) -> None:
        props = b""
        with contextlib.suppress(EngineFailed):  # not every server answers this
            props = await self._upstream.get(f"{self.address}/props")
        config = self.config
        self._offer = read_offer(self._model, props, slots=config.slots, context=config.context, digest=self._digest)

    async def _supervise(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            ready_at = loop.time()
            await asyncio.wait({child.exited})
            deaths = 1 if loop.time() - ready_at > LONG_LIFE else deaths + 1
            reason = child.ending()
            while True:
                self._child = None
                if deaths > self.config.max_restarts:
                    self._set("failed", f"{reason}\ngiven up after {deaths} deaths in a row; restart the agent")
                    return
                self._set(
                    "failed", f"{reason}\nrestarting (death {deaths} of at most {self.config.max_restarts} in a row)"
                )
                await asyncio.sleep(min(FIRST_DELAY * 2 ** (deaths - 1), LAST_DELAY))
                self._set("starting", reason)
                try:
                    child = await self._launch()
                    break
                except EngineFailed as error:
                    deaths += 1
                    reason = str(error)
            self._set("ready")

    def _advice(self, child: Child) -> str:
        text = "\n".join(child.lines)
        if "couldn't bind" in text:
            return f"\nport {self.config.port} is in use: set llama.port to another, or to 0 for a free one"
        if "not within the file bounds" in text or "failed to load model" in text:
            return f"\n{self.config.model} cannot be loaded: is the file whole, and the llama.cpp in use new enough?"
        return ""

    def _set(self, state: State, detail: str = "") -> None:
        offer_detail = detail.partition("\n")[0][:OFFER_DETAIL]
        self._offer = msgspec.structs.replace(self._offer, state=_OFFER_STATES[state], detail=offer_detail)
        status = EngineStatus(state, (self._offer,), detail)
        if status == self._status:
            return
        self._status = status
        log.log(logging.WARNING if state == "failed" else logging.INFO, "%s is %s %s", self._model, state, detail)
        self._moved.set()
        self._changed()
