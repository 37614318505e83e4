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

from anywire.engine import Delta, Engine, EngineStatus
from anywire.errors import EngineFailed, InvalidRequest
from anywire.messages import State, TaskRequest
from anywire_engine_llama import model_file
from anywire_engine_llama.child import Child
from anywire_engine_llama.command import command
from anywire_engine_llama.config import LlamaConfig
from anywire_engine_llama.resume import accounted, continuation
from anywire_engine_openai.upstream import ConnectionFailed, Upstream

FIRST_DELAY, LAST_DELAY = 0.1, 10.0  # seconds before a restart, doubling
LONG_LIFE = 30.0  # seconds; a death after that long begins the count anew

log = logging.getLogger(__name__)


class _Tokens(msgspec.Struct):
    tokens: list[int]


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
        self._status = EngineStatus("starting", (config.alias,) if config.alias else ())
        self._changed: Callable[[], None] = lambda: None
        self._upstream = Upstream(api_key=self.key, default_max_tokens=config.default_max_tokens, always_stream=True)
        self._command: list[str] = []
        self._model = config.alias
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
        self._set("starting")
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

    def status(self) -> EngineStatus:
        return self._status

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        if self._status.state != "ready":
            raise EngineFailed(f"llama.cpp is not running: {self._status.detail or self._status.state}")
        if task.resume:
            async with contextlib.aclosing(self._run_on(task)) as deltas:
                async for delta in deltas:
                    yield delta
            return
        async with contextlib.aclosing(self._upstream.answer(task, self._model)) as deltas:
            async for delta in deltas:
                yield delta

    async def _run_on(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        """The rest of an answer whose beginning is ``task.resume``."""
        answer = await self._upstream.ask(f"{self.address}/tokenize", {"content": task.resume})
        delivered = len(msgspec.json.decode(answer, type=_Tokens).tokens)
        rest = continuation(task, delivered, self.config.default_max_tokens)
        if rest is None:
            yield Delta(finish_reason="length")
            return
        try:
            async with contextlib.aclosing(self._upstream.answer(rest, self._model)) as deltas:
                async for delta in deltas:
                    yield accounted(delta, delivered)
        except InvalidRequest as error:
            # The client's request was good enough to begin with.
            raise EngineFailed(f"llama.cpp does not resume this answer: {error}", status=error.status) from error

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
                raise EngineFailed(f"{child.obituary()}{self._advice(child)}")
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

    async def _supervise(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            ready_at = loop.time()
            await asyncio.wait({child.exited})
            deaths = 1 if loop.time() - ready_at > LONG_LIFE else deaths + 1
            reason = child.obituary()
            while True:
                self._child = None
                if deaths > self.config.max_restarts:
                    self._set("failed", f"{reason}\ngiven up after {deaths} deaths in a row; restart the agent")
                    return
                self._set(
                    "failed", f"{reason}\nrestarting (death {deaths} of at most {self.config.max_restarts} in a row)"
                )
                await asyncio.sleep(min(FIRST_DELAY * 2 ** (deaths - 1), LAST_DELAY))
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
        status = EngineStatus(state, (self._model,), detail)
        if status == self._status:
            return
        self._status = status
        log.log(logging.WARNING if state == "failed" else logging.INFO, "%s is %s %s", self._model, state, detail)
        self._changed()
