"""An engine with the commands ``models.*`` and simulated models, for tests of placement; also a plugin file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, ClassVar

import msgspec
import pydantic

from anywire.engine import Delta, Engine, EngineStatus
from anywire.errors import EngineFailed, InvalidRequest, UnknownCommand
from anywire.hookspecs import hookimpl
from anywire.messages import TaskRequest
from anywire.offers import Offer, OfferState

_OFFERED: dict[str, OfferState] = {
    "stopped": "stopped",
    "starting": "starting",
    "running": "ready",
    "stopping": "stopping",
    "crashed": "crashed",
}


class ModelAgentConfig(pydantic.BaseModel):
    """``models`` are sizes by name; ``loaded`` run from the start; ``loading`` is in seconds. Starts of what is in
    ``fails`` fail."""

    model_config = pydantic.ConfigDict(extra="forbid")

    models: dict[str, int] = {}
    budget: int = 0
    loaded: list[str] = []
    loading: float = 0.02
    fails: list[str] = []
    groups: dict[str, str] = {}
    pinned: list[str] = []


class Model(msgspec.Struct):
    size: int
    group: str = ""
    state: str = "stopped"
    serving: int = 0
    pinned: bool = False
    used: int = 0


class ModelAgent(Engine):
    """``log`` has what was done: (``start`` or ``unload``, model). ``broken`` are sentences about what must not
    happen."""

    name: ClassVar[str] = "model_agent"
    Config = ModelAgentConfig
    capabilities = ("chat",)
    config: ModelAgentConfig

    def __init__(self, config: ModelAgentConfig) -> None:
        super().__init__(config)
        self.models = {
            name: Model(size, config.groups.get(name, ""), pinned=name in config.pinned)
            for name, size in config.models.items()
        }
        for name in config.loaded:
            self.models[name].state = "running"
        self.log: list[tuple[str, str]] = []
        self.listed = 0
        self.broken: list[str] = []
        self.fails = set(config.fails)
        self.hold = asyncio.Event()
        """Answers wait for it where their request says so."""
        self._changed: Callable[[], None] = lambda: None
        self._uses = 0

    async def start(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    async def close(self) -> None:
        """Holds nothing."""

    def status(self) -> EngineStatus:
        offers = [Offer(name, state=_OFFERED[model.state]) for name, model in self.models.items()]
        return EngineStatus("ready", tuple(offers))

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        """One word a chunk; the request's ``max_tokens`` is how many. ``user``: "hold" waits before the first."""
        model = self.models[task.model]
        if model.state != "running":
            raise EngineFailed(f"{task.model} is {model.state}")
        body = msgspec.json.decode(task.body)
        self._uses += 1
        model.serving, model.used = model.serving + 1, self._uses
        try:
            if body.get("user") == "hold":
                await self.hold.wait()
            count = body.get("max_tokens") or 3
            for number in range(count):
                await asyncio.sleep(0.002)
                if model.state != "running":
                    self.broken.append(f"{task.model} was {model.state} while it served")
                yield Delta(f"{number} ", "", "stop" if number == count - 1 else "")
        finally:
            model.serving -= 1

    async def command(self, name: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        if name == "models.list":
            self.listed += 1
            half = len(self.models) // 2
            names = list(self.models)
            yield {"models": [self._told(each) for each in names[:half]]}
            used = sum(model.size for model in self.models.values() if model.state in ("starting", "running"))
            memory = {"budget_bytes": self.config.budget, "used_bytes": used}
            yield {"models": [self._told(each) for each in names[half:]], "memory": memory, "devices": []}
            return
        model = self.models.get(arguments.get("model", ""))
        if name not in ("models.start", "models.unload") or model is None:
            raise UnknownCommand(f"no command {name!r}")
        if name == "models.unload":
            await self._unload(arguments["model"], model)
        else:
            async for told in self._start(arguments["model"], model):
                yield told
        yield self._told(arguments["model"])

    async def _start(self, name: str, model: Model) -> AsyncGenerator[Any, None]:
        if model.state == "running":
            return
        self.log.append(("start", name))
        if self.config.budget and self._used() + model.size > self.config.budget:
            self.broken.append(f"{name} was started where there is no room")
            raise EngineFailed("no room")
        if any(model.group and each.group and each.group != model.group for each in self._loaded()):
            self.broken.append(f"{name} was started beside a model of another group")
        self._set(model, "starting")
        yield self._told(name) | {"progress": 0.5}
        await asyncio.sleep(self.config.loading)
        self._set(model, "crashed" if name in self.fails else "running")
        if name in self.fails:
            raise EngineFailed(f"{name} did not start")

    async def _unload(self, name: str, model: Model) -> None:
        if model.serving or model.pinned:
            raise InvalidRequest(f"{name} serves, or is pinned")
        self.log.append(("unload", name))
        self._set(model, "stopping")
        await asyncio.sleep(0)
        self._set(model, "stopped")

    def crash(self, name: str) -> None:
        self._set(self.models[name], "crashed")

    def _set(self, model: Model, state: str) -> None:
        model.state = state
        self._changed()

    def _loaded(self) -> list[Model]:
        return [model for model in self.models.values() if model.state in ("starting", "running", "stopping")]

    def _used(self) -> int:
        return sum(model.size for model in self._loaded())

    def _told(self, name: str) -> dict[str, Any]:
        model = self.models[name]
        told = {"model": name, "state": model.state, "memory_bytes": model.size, "serving": model.serving}
        return told | {"pinned": model.pinned, "group": model.group}


@hookimpl
def anywire_register(kind: str) -> Mapping[str, type] | None:
    return {"model_agent": ModelAgent} if kind == "engines" else None
