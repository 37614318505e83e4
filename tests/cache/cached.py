"""An orchestrator with the service ``cache``, an agent whose answers tell for whom and by which weights they are, and a
gateway where a test asks for one."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pydantic

from anywire.access import Access
from anywire.caller import OPERATOR, Caller
from anywire.engine import Delta, Engine, EngineProgress, EngineStatus
from anywire.messages import Kind, TaskRequest
from anywire.offers import Offer
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.patience import expect
from anywire.testing.service_bench import ServiceBench, service_bench
from anywire_gateway_openai import OpenAIGateway, OpenAIGatewayConfig
from anywire_service_cache.config import CacheConfig
from anywire_service_cache.service import Cache

Answer = Callable[[TaskRequest, int], list[Delta]]
"""What the engine gives for a task, and how many it has answered before."""


class TellingEngine(Engine):
    """Each answer says how many tasks there were before it, whose it is, and by which weights: no two are the same. The
    test may give ``answer`` another function."""

    name = "telling"
    Config = pydantic.BaseModel
    capabilities = ("chat", "completion", "embedding")

    def __init__(self, *models: str, digest: str = "w1") -> None:
        super().__init__(None)
        self.models = models or ("m",)
        self.answered = 0
        self.answer: Answer = self._tell
        self._changed: Callable[[], None] = lambda: None
        self.digests = dict.fromkeys(self.models, digest)

    async def start(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    async def close(self) -> None: ...

    def status(self) -> EngineStatus:
        return EngineStatus("ready", tuple(Offer(model, digest=self.digests[model]) for model in self.models))

    def load(self, model: str, digest: str) -> None:
        """Offer other weights under the name."""
        self.digests[model] = digest
        self._changed()

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        deltas = self.answer(task, self.answered)
        self.answered += 1
        for delta in deltas:
            yield delta

    def _tell(self, task: TaskRequest, number: int) -> list[Delta]:
        words = [
            f"{number}",
            f" {task.tenant}",
            f" {task.model}",
            f" {self.digests[task.model]}",
            " \u00e9\U0001f600\n",
        ]
        return [*map(Delta, words), Delta("", "", "stop", '{"prompt_tokens":1,"completion_tokens":5}')]


@asynccontextmanager
async def caching(
    state: Path, engine: Engine | None = None, access: Access | None = None, **settings: Any
) -> AsyncIterator[ServiceBench]:
    service = Cache(CacheConfig(**settings))
    async with service_bench(service, state=state, engine=engine or TellingEngine(), access=access) as bench:
        yield bench


@asynccontextmanager
async def front(bench: ServiceBench) -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client of a gateway before it."""
    gateway = OpenAIGateway(OpenAIGatewayConfig(port=0))
    await gateway.start(bench.context("openai"))
    try:
        async with aiohttp.ClientSession(gateway.address) as session:
            yield session
    finally:
        await gateway.close()


def chat(text: str, **members: Any) -> str:
    return json.dumps({"messages": [{"role": "user", "content": text}], **members})


def task(
    bench: ServiceBench,
    body: str,
    *,
    stream: bool = False,
    model: str = "m",
    kind: Kind = "chat",
    caller: Caller = OPERATOR,
    **fields: Any,
) -> TaskStream:
    return bench.orchestrator.submit(Submission(kind, model, body, stream, caller=caller, **fields))


async def ask(bench: ServiceBench, body: str, **settings: Any) -> tuple[str, str]:
    """What the cache says of it, and the text of the answer."""
    stream = task(bench, body, **settings)
    texts: list[str] = []
    while (chunk := await expect(anext(stream, None), "the next chunk of an answer")) is not None:
        texts += chunk.deltas
    return stream.notes.get("cache", ""), "".join(texts)


def vectors(bodies: dict[str, list[float]]) -> Answer:
    """What an engine answers that has these embeddings, by text."""

    def answer(task: TaskRequest, number: int) -> list[Delta]:
        if task.kind != "embedding":
            return [Delta(f"{number}", "", "stop")]
        texts = json.loads(task.body)["input"]
        data = [{"object": "embedding", "index": at, "embedding": bodies[text]} for at, text in enumerate(texts)]
        return [Delta("", json.dumps(data), "stop")]

    return answer
