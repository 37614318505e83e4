"""The engine ``openai``: a foreign OpenAI-compatible server, watched."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import ClassVar

import msgspec

from anywire.engine import Delta, Engine, EngineProgress, EngineStatus
from anywire.errors import ConfigError, EngineFailed, InvalidRequest
from anywire.messages import Kind, State, TaskRequest
from anywire.native_api import api_features
from anywire.offers import MAX_OFFERS, Offer, OfferState, offers
from anywire_engine_openai.config import OpenAIConfig
from anywire_engine_openai.connection_errors import ConnectionFailed
from anywire_engine_openai.listing import ListedModel
from anywire_engine_openai.loading import StillLoading
from anywire_engine_openai.resume import WAYS, Way, can_be_resumed, resumed
from anywire_engine_openai.upstream import Upstream

FIRST_RETRY, LAST_RETRY = (
    0.05,
    5.0,
)  # seconds between looks at a server that is not there: doubled from one to the other

LLAMA_CPP = "llamacpp"
TOKENIZES = (LLAMA_CPP, "vllm")
"""Servers that turn texts into tokens and back, by what they say of themselves in their lists of models."""

log = logging.getLogger(__name__)


class OpenAIEngine(Engine):
    """Any server that speaks OpenAI's HTTP API. It need not be there at start, and may go and come back."""

    name: ClassVar[str] = "openai"
    Config: ClassVar[type[OpenAIConfig]] = OpenAIConfig

    def __init__(self, config: OpenAIConfig) -> None:
        super().__init__(config)
        self.config: OpenAIConfig = config
        self.capabilities = tuple(config.kinds)  # of this instance
        self._status = EngineStatus("starting", _in_state("starting", offers(*config.models)))
        self._changed: Callable[[], None] = lambda: None
        self._upstream: Upstream | None = None
        self._watch: asyncio.Task[None] | None = None
        self._look_now = asyncio.Event()
        self._loads = False
        """Whether the server has said, when it was looked at last, that it is loading."""
        self._running = 0

    async def start(self, changed: Callable[[], None]) -> None:
        """Look for the server once; when it is not there, `status` says so and changes when it comes. Raises
        `ConfigError` when it is there and waiting would not help: the key or the address is wrong."""
        self._changed = changed
        config = self.config
        upstream = Upstream(
            api_key=config.key(),
            connect_timeout=config.connect_timeout,
            default_max_tokens=config.default_max_tokens,
            always_stream=config.always_stream,
            keep_members=True,
            first_token_timeout=config.first_token_timeout,
            next_token_timeout=config.next_token_timeout,
            loading_timeout=config.loading_timeout,
            tls=config.tls(),
            apis=config.apis,
        )
        upstream.told_loading = self._look_now.set
        upstream.open(config.base_url)
        self._upstream = upstream
        error = await self._look(upstream)
        if error is not None and error.status in (401, 403):
            raise ConfigError(f"openai.api_key (or api_key_env) is not accepted: {error}") from error
        if error is not None and error.status in (404, 405):
            raise ConfigError(
                f"openai.base_url is not the root of an OpenAI API, or this server lists no models: {error}. "
                "Does the address lack /v1? Otherwise name the models in openai.models"
            ) from error
        self._watch = asyncio.create_task(self._keep_watch(upstream), name="openai engine watch")

    async def close(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            await upstream.close()

    def status(self) -> EngineStatus:
        return self._status

    def resumable(self, task: TaskRequest) -> bool:
        way = self._way_of(task.model)
        return way is not None and can_be_resumed(task, way)

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        if self._upstream is None:
            raise EngineFailed("the engine is not running")
        if self.config.models and task.model not in self.config.models:
            raise InvalidRequest(
                f"the model {task.model!r} is not offered here",
                param="model",
                status=404,
                detail_code="model_not_found",
            )
        self._running += 1
        upstream = self._upstream
        loading: StillLoading | None = None
        try:
            if not task.resume and upstream.gives_whole(task):
                try:
                    whole, tries = await upstream.whole(task, self.config.server_name(task.model))
                except ConnectionFailed as error:
                    if error.tries > 1:
                        yield Delta(attempts_used=error.tries)
                    raise
                if isinstance(whole, Delta):
                    if tries > 1:
                        yield Delta(attempts_used=tries)
                    yield whole
                    return
                loading = whole
                del whole
            async with contextlib.aclosing(self._answer(upstream, task, loading)) as deltas:
                loading = None  # once raised it holds all of this
                async for delta in deltas:
                    yield delta
        except ConnectionFailed as error:
            log.info("%s: %s (task %s)", self.config.base_url, error, task.task_id)
            if error.phase == "not_sent":
                detail = f"{self.config.base_url}: {error}"
                self._set(EngineStatus("failed", _in_state("crashed", self._status.offers), detail))
            self._look_now.set()  # it may have broken down over this one request
            raise
        finally:
            self._running -= 1

    def _answer(
        self, upstream: Upstream, task: TaskRequest, loading: StillLoading | None
    ) -> AsyncGenerator[Delta | EngineProgress, None]:
        name = self.config.server_name(task.model)
        if not task.resume:
            return upstream.answer(task, name, loading=loading)
        way = self._way_of(task.model)
        if way is None:
            raise EngineFailed("this server is not known to go on from a text (openai.resume)")
        return resumed(upstream, task, name, way, self.config.default_max_tokens)

    def _way_of(self, model: str) -> Way | None:
        return self._way(next((each.owner for each in self._status.offers if each.model == model), ""))

    def _way(self, owner: str) -> Way | None:
        """How the server that says this of itself is told to go on from a text; None where it cannot, or nobody
        knows."""
        chosen = self.config.resume
        if chosen == "never":
            return None
        return WAYS.get(owner) if chosen == "auto" else chosen

    async def _keep_watch(self, upstream: Upstream) -> None:
        """Look at the server: until it is there, when a task found it gone, and now and then while idle."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.config.startup_timeout
        delay = FIRST_RETRY
        while True:
            if self._status.state == "ready":
                delay = FIRST_RETRY
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.config.refresh_interval or None):
                        await self._look_now.wait()
                if self._running and not self._look_now.is_set():
                    continue  # it is answering tasks, so it is there; it may be too busy for anything else
            else:
                if self._status.state == "starting" and not self._loads and loop.time() >= deadline:
                    self._set(EngineStatus("failed", _in_state("crashed", self._status.offers), self._status.detail))
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_RETRY)
            self._look_now.clear()
            await self._look(upstream)

    async def _look(self, upstream: Upstream) -> EngineFailed | None:
        """Set the status by what the server lists; return what is wrong with it."""
        self._loads = False
        try:
            listed = await upstream.models()
        except EngineFailed as error:
            if self.config.models and error.status in (404, 405, 501):
                # It is there, but lists none.
                listed = [ListedModel(self.config.server_name(name)) for name in self.config.models]
            else:
                self._loads = isinstance(error, StillLoading)
                starts = self._loads or self._status.state == "starting"
                state: State = "starting" if starts else "failed"
                offer_state: OfferState = "starting" if starts else "crashed"
                self._set(EngineStatus(state, _in_state(offer_state, self._status.offers), str(error)))
                return error
        upstream.is_llama_cpp = any(each.owner == LLAMA_CPP and not each.is_anywires for each in listed)
        found = [each.id for each in listed]
        offered = self.config.offered(found)
        if offered:
            missing = [name for name in self.config.models if name not in offered]
            told = {each.id: each for each in listed}
            ready = tuple([self._offer(name, told) for name in offered[:MAX_OFFERS]])
            self._set(EngineStatus("ready", ready, f"not on the server: {', '.join(missing)}" if missing else ""))
        else:
            self._set(
                EngineStatus("failed", _in_state("crashed", offers(*self.config.models)), self._nothing_offered(found))
            )
        return None

    def _offer(self, name: str, listed: Mapping[str, ListedModel]) -> Offer:
        """What the server tells of a model; what it does not tell is unknown."""
        server_name = self.config.server_name(name)
        told = listed.get(server_name) or listed.get(f"{server_name}:latest") or ListedModel(server_name)
        kinds = self._kinds(told)
        features = told.features if self._way(told.owner) is None else told.features | {"resume": True}
        features = features | api_features(self.config.apis)
        return Offer(name, kinds=kinds, features=features, context=told.context, owner=told.owner)

    def _kinds(self, told: ListedModel) -> tuple[Kind, ...]:
        """Those of a model, none where nothing is known beside what the agent is capable of."""
        if "kinds" in self.config.model_fields_set:
            return tuple([kind for kind in told.kinds if kind in self.config.kinds])
        if told.is_anywires or told.owner not in TOKENIZES:
            return told.kinds
        return (*(told.kinds or self.config.kinds), "tokenize", "detokenize")

    def _nothing_offered(self, found: Sequence[str]) -> str:
        if found:
            return f"{self.config.base_url} has none of the models of openai.models; it has: {', '.join(found)}"
        return f"{self.config.base_url} is there but serves no model; load one there"

    def _set(self, status: EngineStatus) -> None:
        if status == self._status:
            return
        before, self._status = self._status, status
        if before.state != status.state:
            level = logging.INFO if status.state == "ready" else logging.WARNING
            log.log(level, "%s is %s %s", self.config.base_url, status.state, status.detail or ", ".join(status.models))
        self._changed()


def _in_state(state: OfferState, offered: Sequence[Offer]) -> tuple[Offer, ...]:
    return tuple([msgspec.structs.replace(offer, state=state) for offer in offered])
