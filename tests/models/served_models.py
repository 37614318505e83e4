"""An engine `models` whose servers are simulated processes that answer over HTTP, for tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from tests.models.simulated_servers import Behaviour, SimulatedDevices, SimulatedLauncher, SimulatedServer

from anywire.engine import Delta, EngineProgress
from anywire.messages import Kind, TaskRequest
from anywire_engine_models.config import ModelsConfig
from anywire_engine_models.engine import ModelsEngine
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.server import Watcher
from anywire_engine_models.processes.server_command import ServerCommand

PROPS = {
    "default_generation_settings": {"n_ctx": 2048},
    "modalities": {"vision": False},
    "chat_template_caps": {"supports_tools": True},
}


class ModelApi:
    """What all servers of a launcher answer: a chat is answered with the model's name, after ``gate`` is open,
    with the status of the model in ``statuses`` where there is one. ``asked`` are the bodies, with the key that came
    with each."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, Any], str]] = []
        self.statuses: dict[str, int] = {}
        self.gate, self.begun, self.gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.address = ""
        self._open: set[asyncio.Transport] = set()
        self._runner: web.AppRunner | None = None

    async def up(self) -> None:
        app = web.Application()
        app.router.add_get("/props", self._props)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/embeddings", self._embed)
        app.router.add_post("/tokenize", self._tokenize)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.address = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def cut(self) -> None:
        """Break off what is being answered."""
        for transport in self._open:
            transport.abort()

    async def down(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _props(self, request: web.Request) -> web.Response:
        return web.json_response(PROPS)

    async def _tokenize(self, request: web.Request) -> web.Response:
        return web.json_response({"tokens": (await request.json())["content"].split()})

    async def _embed(self, request: web.Request) -> web.Response:
        await self._note(request)
        return web.json_response({"data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 1}})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = await self._note(request)
        if (status := self.statuses.get(asked["model"])) is not None:
            return web.json_response({"error": {"message": "no"}}, status=status)
        if not asked.get("stream"):
            message = {"role": "assistant", "content": f"{asked['model']} says hello"}
            return web.json_response({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        assert request.transport is not None
        self._open.add(request.transport)
        try:
            for text, finish in ((asked["model"], None), (" says", None), (" hello", "stop")):
                choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
                await response.write(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
                self.begun.set()
                await self.gate.wait()
            await response.write(b"data: [DONE]\n\n")
            await response.write_eof()
        except (asyncio.CancelledError, ConnectionError):
            self.gone.set()
            raise
        return response

    async def _note(self, request: web.Request) -> dict[str, Any]:
        asked: dict[str, Any] = await request.json()
        self.asked.append((asked, request.headers.get("Authorization", "")))
        return asked


class ServedLauncher(SimulatedLauncher):
    """A `SimulatedLauncher` whose servers are at the address of ``api``. ``commands`` are those of its launches."""

    def __init__(self, api: ModelApi, behave: Any = None, budget: int = 0) -> None:
        super().__init__(behave, budget=budget)
        self.api = api
        self.commands: list[ServerCommand] = []

    async def launch(self, model: HostedModel, device: str, watcher: Watcher) -> SimulatedServer:
        self.commands.append(model.launch)
        server = await super().launch(model, device, watcher)
        server.address = self.api.address
        return server


class FewDevices(SimulatedDevices):
    """`MachineDevices` of a processor alone."""

    async def begin(self) -> None:
        """Nothing to look at."""

    async def close(self) -> None:
        """Nothing was begun."""

    def follow(self, host: Any) -> None:
        """No card is promised to anybody."""

    def list(self) -> tuple[Any, ...]:
        return ()

    def gauges(self) -> dict[str, float]:
        return {"vram_free_bytes": 1.0}


def entry(name: str, **settings: Any) -> dict[str, Any]:
    """A registry's entry of ``local:NAME:1`` whose server needs no file: a command of its own that is never run."""
    return {
        "provider": "local",
        "library": "library",
        "name": name,
        "version": "1",
        "full_identifier": f"local:{name}:1",
        "manifest_data": None,
        "settings": {"command": ["serve", name], **settings},
    }


def write_registry(path: Path, *entries: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps({"models": entries}))
    return path


class Engine(ModelsEngine):
    """Lets a test wait for what is told."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.moved = asyncio.Event()

    def states(self) -> dict[str, str]:
        return {offer.model: offer.state for offer in self.status().offers}

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.moved.clear()
            await self.moved.wait()


class Rig:
    """The engine, its launcher and what its servers answer."""

    def __init__(self, engine: Engine, launcher: ServedLauncher, api: ModelApi) -> None:
        self.engine, self.launcher, self.api = engine, launcher, api

    async def command(self, name: str, /, **arguments: Any) -> list[Any]:
        return [result async for result in self.engine.command(f"models.{name}", arguments)]


@asynccontextmanager
async def running(
    registry: Path, *, behave: Any = None, budget: int = 0, devices: FewDevices | None = None, **options: Any
) -> AsyncIterator[Rig]:
    api = ModelApi()
    launcher = ServedLauncher(api, behave or Behaviour(), budget)
    config = ModelsConfig.model_validate({"registry": registry, "memory_budget": budget, **options})
    engine = Engine(config, launcher=launcher, devices=devices or FewDevices())
    async with AsyncExitStack() as stack:
        await api.up()
        stack.push_async_callback(api.down)
        stack.push_async_callback(engine.close)
        await engine.start(engine.moved.set)
        yield Rig(engine, launcher, api)
    assert not launcher.processes
    assert not launcher.faults


def chat(model: str, *, kind: Kind = "chat", resume: str = "", stream: bool = True, **body: Any) -> TaskRequest:
    content: dict[str, Any] = {"model": model}
    content["messages" if kind == "chat" else "input"] = [{"role": "user", "content": "hi"}] if kind == "chat" else "hi"
    return TaskRequest("hub", "t", 1, kind, model, json.dumps(content | body), stream=stream, resume=resume)


class Answer:
    """What a task brings: read by a task of its own. ``steps`` are the states of its progress, ``details`` with what
    each says."""

    def __init__(self, engine: ModelsEngine, task: TaskRequest) -> None:
        self.steps: list[str] = []
        self.details: list[str] = []
        self.deltas: list[Delta] = []
        self.moved = asyncio.Event()
        self.reading = asyncio.create_task(self._read(engine, task))

    async def _read(self, engine: ModelsEngine, task: TaskRequest) -> str:
        run = engine.run(task)
        try:
            async for each in run:
                if isinstance(each, EngineProgress):
                    self.steps.append(each.state)
                    self.details.append(each.detail)
                else:
                    self.deltas.append(each)
                self.moved.set()
        finally:
            await run.aclose()
            self.moved.set()
        return self.text

    async def until(self, state: str) -> None:
        """Wait until it says that it does that."""
        while state not in self.steps and not self.reading.done():
            self.moved.clear()
            await self.moved.wait()

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    async def stop(self) -> None:
        self.reading.cancel()
        await asyncio.wait({self.reading})


def models_of(pieces: Sequence[Any]) -> list[dict[str, Any]]:
    """The models in the results of ``models.list``."""
    return [model for piece in pieces for model in piece["models"]]
