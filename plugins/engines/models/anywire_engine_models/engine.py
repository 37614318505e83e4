"""The engine ``models``: many local models as processes of one owner."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, get_args

from anywire.engine import Delta, Engine, EngineProgress, EngineStatus
from anywire.errors import EngineFailed, InvalidRequest
from anywire.messages import Kind, TaskRequest
from anywire.offers import Offer
from anywire.this_system import needs_posix
from anywire_engine_models.catalogue import Catalogue, registry_of
from anywire_engine_models.commands import ModelCommands
from anywire_engine_models.config import ModelsConfig
from anywire_engine_models.devices import devices_of
from anywire_engine_models.host.actor import ModelHost
from anywire_engine_models.host.server import Devices, Launcher, Server
from anywire_engine_models.host.status import ModelChanged
from anywire_engine_models.hosted_models import KnownModel
from anywire_engine_models.learning import Learning
from anywire_engine_models.llama_cpp.cards import LlamaCards
from anywire_engine_models.local_api.server import LocalApi
from anywire_engine_models.machine_budget.share import MemoryShare
from anywire_engine_models.offered_weights import OfferedWeights
from anywire_engine_models.offers import offers_of
from anywire_engine_models.planned_host import planned_host
from anywire_engine_models.running_models import RunningModels
from anywire_engine_models.upstreams import Upstreams
from anywire_engine_models.waiting_turn import WaitingTurn
from anywire_engine_openai.connection_errors import ConnectionFailed
from anywire_engine_openai.resume import can_be_resumed, resumed

MAX_SLOTS = 1024
"""Tasks of all models that are taken in together; those of one model are bounded by its own slots."""
FAILED_DEPENDENCY = 424
"""The status of a model that does not start or has ended."""
LOADING = "loading"
"""What a host tells of a request whose model is being started; everything else is waiting for a turn."""

log = logging.getLogger(__name__)


class LocalDevices(Devices, Protocol):
    """What the engine needs of its machine's devices: see `anywire_engine_models.devices.machine.MachineDevices`."""

    async def begin(self) -> None: ...

    async def close(self) -> None: ...

    def follow(self, host: ModelHost) -> None: ...

    def list(self) -> Sequence[Any]: ...

    def gauges(self) -> dict[str, float]: ...


class ModelsEngine(Engine):
    """Offers the models of a registry, each in a server process of its own, within a budget of memory.

    ``launcher`` and ``devices`` are those of this machine unless a test gives others.
    """

    name: ClassVar[str] = "models"
    Config: ClassVar[type[ModelsConfig]] = ModelsConfig
    capabilities: tuple[str, ...] = get_args(Kind)

    def __init__(
        self, config: ModelsConfig, *, launcher: Launcher | None = None, devices: LocalDevices | None = None
    ) -> None:
        super().__init__(config)
        self.config: ModelsConfig = config
        self._devices: LocalDevices = devices if devices is not None else devices_of(config)
        self._llama_cards = LlamaCards()
        self._running_models = RunningModels()
        self.host = planned_host(config, self._devices, self._llama_cards, self._running_models, launcher)
        self._share = MemoryShare(config, self.host)
        self.catalogue = Catalogue(config, registry_of(config.registry), self._running_models, self._apply, self._look)
        self.commands = ModelCommands(self.host, self.catalogue, self._devices, add_commands=config.add_commands)
        self._upstreams = Upstreams()
        self._learning = Learning(self._look)
        self._offered = OfferedWeights()
        self._changed: Callable[[], None] = lambda: None
        self._unlisten: Callable[[], None] = lambda: None
        self._offers: tuple[Offer, ...] = ()
        self._fault = ""
        self._status = EngineStatus("starting")
        self._running = False
        self._local_api: LocalApi | None = None

    async def start(self, changed: Callable[[], None]) -> None:
        """Read the registry and begin; models with ``autostart`` start in the background. Raises `ConfigError` when the
        one model that is to be offered is not there."""
        needs_posix("the engine models")
        self._changed = changed
        await self._devices.begin()
        self._devices.follow(self.host)
        await self.catalogue.read()
        self._unlisten = self.host.listen(self._model_changed)
        self._share.begin()
        await self.host.begin([known.hosted for known in self.catalogue.models.values()])
        self._running = True
        self.catalogue.follow()
        self._look()
        await self._serve_locally()

    async def close(self) -> None:
        self._running = False
        self._unlisten()
        async with contextlib.AsyncExitStack() as ends:  # each is closed, whatever the others raise
            ends.push_async_callback(self._devices.close)
            ends.push_async_callback(self._share.close)
            ends.push_async_callback(self._llama_cards.close)
            ends.push_async_callback(self._upstreams.close)
            ends.push_async_callback(self.host.close)
            ends.push_async_callback(self.catalogue.close)
            if self._local_api is not None:
                ends.push_async_callback(self._local_api.close)
            ends.push_async_callback(self._learning.close)

    def status(self) -> EngineStatus:
        status = self._made_status()
        if status != self._status:  # the agent looks closely at each that is another object
            self._status = status
        return self._status

    def resumable(self, task: TaskRequest) -> bool:
        known = self._running_models.get(task.model) or self.catalogue.models.get(task.model)
        if known is None or known.resume is None or not known.can_go_on:
            return False
        return self._offered.can_be_resumed(task) and can_be_resumed(task, known.resume)

    def command(self, name: str, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        return self.commands.carry_out(name, arguments)

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        try:
            async with contextlib.aclosing(self._run(task)) as run:
                async for each in run:
                    yield each
        finally:
            self._offered.forget(task)

    # Inside

    async def _run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        is_answered = False
        offered: str | None = None
        while not is_answered:
            known = self._running_models.as_it_is(self.catalogue.get(task.model), self.host.status(task.model))
            if offered is None:
                offered = next((each.digest for each in self._offers if each.model == task.model), "")
            if task.kind not in known.kinds:
                raise InvalidRequest(
                    f"the model {task.model} answers {', '.join(known.kinds)} tasks, no {task.kind}",
                    param="model",
                    status=400,
                )
            async with WaitingTurn(self.host, task.model) as turn:
                try:
                    async with contextlib.aclosing(turn.waits_for()) as waits:
                        async for detail in waits:
                            yield _progress(task.model, detail)
                except EngineFailed as error:
                    error.status, error.concerns = FAILED_DEPENDENCY, "model"
                    raise
                known = self._running_models.get(task.model) or known
                self._offered.compare(task, known.digest, offered)
                yield EngineProgress("running")
                try:
                    async with contextlib.aclosing(self._answer(known, turn.server, task)) as deltas:
                        async for delta in deltas:
                            yield delta
                    is_answered = True
                except ConnectionFailed as error:
                    error.concerns = "model"
                    ended = await turn.end_of_server()
                    if ended is None:
                        raise
                    # A task that an ended server has not taken is answered by the next one.
                    if not error.did_nothing:
                        error.status = FAILED_DEPENDENCY
                        error.add(f"; the server of {task.model} has ended: {ended.reason}")
                        raise
                except EngineFailed as error:
                    if not 400 <= error.status < 500:
                        error.concerns = "model"
                    raise

    async def _serve_locally(self) -> None:
        """Serve this user's own programs where that is wanted: what they add may bring a command."""
        api = self.config.local_api
        if api.enabled:
            commands = ModelCommands(self.host, self.catalogue, self._devices, add_commands=True)
            self._local_api = LocalApi(_Beside(self, commands), self.host.listen, host=api.host, port=api.port)
            await self._local_api.begin()

    def _answer(
        self, known: KnownModel, server: Server, task: TaskRequest
    ) -> AsyncGenerator[Delta | EngineProgress, None]:
        upstream, is_new = self._upstreams.of(known, server)
        if is_new and known.settings.command is None:
            self._learning.ask(known, server, upstream)
        if not task.resume:
            return upstream.answer(task, known.served_name)
        if known.resume is None:
            raise EngineFailed(f"the server of {task.model} is not known to go on from a text (its setting resume)")
        return resumed(upstream, task, known.served_name, known.resume, known.settings.default_max_tokens)

    async def _apply(self, models: Mapping[str, KnownModel]) -> None:
        """Let the host have these models from now on."""
        await self.host.replace([known.hosted for known in models.values()])
        self._learning.keep(models)

    def _model_changed(self, change: ModelChanged) -> None:
        if change.status.state in ("stopped", "crashed") and not change.status.serving:
            self._upstreams.forget(change.status.model)
            self._running_models.ended(change.status.model)
        self._look()

    def _look(self) -> None:
        """Tell the agent if what is offered is not what it was."""
        if not self._running:
            return
        statuses = self.host.statuses()
        models = self._running_models.all_as_they_are(self.catalogue.models, statuses)
        offers = offers_of(models, statuses, self._learning.of(models))
        fault = self.catalogue.fault
        if (offers, fault) != (self._offers, self._fault):
            self._offers, self._fault = offers, fault
            self._changed()

    def _made_status(self) -> EngineStatus:
        if not self._running:
            return EngineStatus("starting")
        statuses, models = self.host.statuses(), self.catalogue.models
        return EngineStatus(
            "failed" if self._fault and not models else "ready",
            self._offers,
            self._fault,
            slots=self._slots(),
            queued=sum(status.waiting for status in statuses),
            resources=self._gauges(),
        )

    def _slots(self) -> int:
        """Those of all models. Where not all fit into memory together, further requests are taken in, so that those of
        one model are answered together: the host can only wait with a swap for requests that it knows of."""
        models = self._running_models.all_as_they_are(self.catalogue.models, self.host.statuses())
        hosted = [known.hosted for known in models.values()]
        budget = self.host.memory().budget_bytes
        swaps = (
            0 < budget < sum(each.memory_bytes for each in hosted) or len({each.group for each in hosted} - {""}) > 1
        )
        further = self.config.taken_in * sum(each.on_demand for each in hosted) if swaps else 0
        return min(max(1, sum(each.slots for each in hosted) + further), MAX_SLOTS)

    def _gauges(self) -> dict[str, float]:
        memory = self.host.memory()
        return {
            **self._devices.gauges(),
            "model_memory_budget_bytes": float(memory.budget_bytes),
            "model_memory_used_bytes": float(memory.used_bytes),
            "model_loads": float(memory.loads),
            "model_swaps": float(memory.swaps),
            "model_swap_seconds": round(memory.swap_seconds, 3),
        }


class _Beside:
    """The engine as the routes beside it use it."""

    def __init__(self, engine: ModelsEngine, commands: ModelCommands) -> None:
        self._engine, self._commands = engine, commands

    def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        return self._engine.run(task)

    def command(self, name: str, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        return self._commands.carry_out(name, arguments)


def _progress(model: str, detail: str) -> EngineProgress:
    if detail.startswith(LOADING):
        return EngineProgress("loading", model)
    return EngineProgress("queued", detail)
