"""An engine with the commands of the engine ``models``, whose models are not there: for tests of who asks it.

As a plugin (``--plugin tests/models/simulated_models.py``, engine ``simulated_models``) it stands behind an
orchestrator.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, ClassVar

import msgspec
import pydantic

from anywire.engine import Delta, Engine, EngineProgress, EngineStatus
from anywire.errors import EngineFailed, InvalidRequest, ModelNotFound, ModelStopped, UnknownCommand
from anywire.hookspecs import hookimpl
from anywire.messages import TaskRequest
from anywire.offers import Offer
from anywire_engine_models.host.model_log import ModelLog
from anywire_engine_models.host.server import Exit
from anywire_engine_models.host.status import Listener, ModelChanged, ModelState, ModelStatus
from anywire_engine_models.log_results import log_result

MODELS = ("local:one:1", "local:two:1", "local:broken:1")
BROKEN = MODELS[2]
"""It crashes when it is started."""
LINES = ("loading", "listening", "é\u2028 half")
CARD = {
    "device": "gpu:0",
    "name": "a card",
    "vram_total_bytes": 8 * 10**9,
    "vram_free_bytes": 10**9,
    "simulated": True,
}
FAULT = "the registry m.json: it is no JSON; the models that were read last count"

Script = Callable[[TaskRequest], AsyncGenerator[Any, None]]


async def words(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
    yield EngineProgress("loading", task.model)
    for word in ("one ", "two ", "three"):
        yield Delta(word)
    yield Delta(finish_reason="length", usage='{"prompt_tokens":1,"completion_tokens":3,"total_tokens":4}')


class NoOptions(pydantic.BaseModel):
    pass


class SimulatedModels(Engine):
    """``script`` answers tasks for models that run. ``carried_out`` are the commands that came, ``under_way`` those and
    the answers that have not ended."""

    name: ClassVar[str] = "simulated_models"
    Config: ClassVar[type[pydantic.BaseModel]] = NoOptions

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.script: Script = words
        self.statuses = {name: ModelStatus(name, on_demand=name == MODELS[1], memory_bytes=10**9) for name in MODELS}
        self.carried_out: list[tuple[str, dict[str, Any]]] = []
        self.under_way = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.go_on: asyncio.Event | None = None
        """Where set: a start waits for it in the middle."""
        self.nonsense: Any = None
        """Where set: what ``models.status`` tells."""
        self.log = ModelLog(100)
        """Of all models. It begins with `LINES`."""
        for line in LINES:
            self.log.add(line)
        self.listeners: list[Listener] = []
        self._told: Callable[[], None] = lambda: None

    async def start(self, changed: Callable[[], None]) -> None:
        self._told = changed

    async def close(self) -> None: ...

    def status(self) -> EngineStatus:
        states = {"running": "ready"}
        return EngineStatus(
            offers=tuple(
                [
                    Offer(each.model, state=states.get(each.state, each.state), on_demand=each.on_demand)  # type: ignore[arg-type]
                    for each in self.statuses.values()
                ]
            )
        )

    def listen(self, listener: Listener) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def change(self, model: str, state: ModelState, **members: Any) -> ModelStatus:
        before = self.statuses[model]
        after = msgspec.structs.replace(before, state=state, **members)
        self.statuses[model] = after
        for listener in self.listeners:
            listener(ModelChanged(after, before.state))
        self._told()
        return after

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        status = self._found(task.model)
        if status.state != "running" and not status.on_demand:
            raise ModelStopped(f"{task.model} is stopped: start it with `anywire models start {task.model}`")
        async for each in self._counted(self.script(task)):
            yield each

    def command(self, name: str, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        carry = getattr(self, f"_{name.removeprefix('models.')}", None) if name.startswith("models.") else None
        if carry is None:
            raise UnknownCommand(f"the engine {self.name} has no command {name!r}")
        self.carried_out.append((name, dict(arguments)))
        return self._counted(carry(arguments))

    async def _counted(self, results: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        self.under_way += 1
        self.idle.clear()
        try:
            async for each in results:
                yield each
        finally:
            await results.aclose()
            self.under_way -= 1
            if not self.under_way:
                self.idle.set()

    def _found(self, model: object) -> ModelStatus:
        if not isinstance(model, str):
            raise InvalidRequest("the argument model must be a text", param="model")
        if model not in self.statuses:
            raise ModelNotFound(f"no model {model!r} is known here; there are {', '.join(self.statuses)}")
        return self.statuses[model]

    async def _list(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        statuses = list(self.statuses.values())
        about = {
            "memory": {"budget_bytes": 12 * 10**9, "used_bytes": 10**9, "loads": 3, "swaps": 1, "swap_seconds": 0.5},
            "devices": [CARD],
            "registry": {"path": "m.json", "fault": FAULT},
        }
        yield {"models": [msgspec.to_builtins(each) for each in statuses[:2]], **about}
        yield {"models": [msgspec.to_builtins(each) for each in statuses[2:]], **about}

    async def _status(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        if self.nonsense is not None:
            yield self.nonsense
            return
        yield msgspec.to_builtins(self._found(arguments.get("model"))) | {"context": 4096, "digest": "sha256:00"}

    async def _start(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        model = self._found(arguments.get("model")).model
        yield msgspec.to_builtins(self.change(model, "starting", device="cpu", pid=4711))
        yield msgspec.to_builtins(self.change(model, "starting", progress=0.5))
        if self.go_on is not None:
            await self.go_on.wait()
        if model == BROKEN:
            exit_ = Exit("killed by SIGKILL", signal="SIGKILL", lines=("loading", "out of memory"))
            self.change(model, "crashed", exit=exit_, pid=0, device="", progress=0.0)
            raise EngineFailed(f"{model} did not start: killed by SIGKILL; its log has its last lines")
        yield msgspec.to_builtins(self.change(model, "running", progress=0.0, load_seconds=1.5, reason="asked to"))

    async def _stop(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        model = self._found(arguments.get("model")).model
        yield msgspec.to_builtins(self.change(model, "stopped", pid=0, device=""))

    async def _unload(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        status = self._found(arguments.get("model"))
        if status.pinned:
            raise InvalidRequest(f"{status.model} is pinned: unpin it first")
        yield msgspec.to_builtins(self.change(status.model, "stopped", pid=0, device=""))

    async def _pin(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        status = self._found(arguments.get("model"))
        yield msgspec.to_builtins(self.change(status.model, status.state, pinned=arguments["pinned"])) | {"kept": True}

    async def _logs(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        self._found(arguments.get("model"))
        logged = self.log.read(arguments["lines"], arguments["follow"], arguments.get("after", ""))
        async with aclosing(logged):
            async for each in logged:
                yield log_result(each)

    async def _add(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        name = arguments.get("full_identifier", "local:file:latest")
        self.statuses[name] = ModelStatus(name, on_demand=arguments.get("settings", {}).get("on_demand", False))
        yield msgspec.to_builtins(self.statuses[name])

    async def _import(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        yield {"added": ["local:three:1"]}
        yield {"added": ["local:four:1"]}
        yield {"skipped": [{"about": arguments["path"], "text": "it is no GGUF file"}]}


@hookimpl
def anywire_register(kind: str) -> Mapping[str, type] | None:
    return {SimulatedModels.name: SimulatedModels} if kind == "engines" else None
