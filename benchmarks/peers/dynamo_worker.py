"""A worker of NVIDIA Dynamo that answers as `peers.engine` does: ``python -m peers.dynamo_worker`` in Dynamo's own
environment. Its frontend reaches it by its own request plane, so that both are what a request costs there."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from typing import Any

from peers.workload import ANSWER, MODEL, WORDS, pace_of, token

ENDPOINT = "peers.bench.generate"


def chunk(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    head = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1700000000, "model": MODEL}
    return head | {"choices": [choice]}


async def answer(request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    if not request.get("stream"):
        yield chunk({"role": "assistant", "content": ANSWER}, "stop")
        return
    tokens = int(request.get("max_tokens") or request.get("max_completion_tokens") or len(WORDS))
    pace, loop = pace_of(tokens), asyncio.get_running_loop()
    due = loop.time()
    for _ in range(tokens):
        yield chunk({"content": token()})
        due += pace
        await asyncio.sleep(max(0.0, due - loop.time()) if pace else 0)
    yield chunk({}, "length")


def main() -> None:
    llm, runtimes = importlib.import_module("dynamo.llm"), importlib.import_module("dynamo.runtime")

    async def work(runtime: Any) -> None:
        endpoint = runtime.endpoint(ENDPOINT)
        kinds = {"worker_type": llm.WorkerType.Aggregated, "skip_model_assets": True}
        await llm.register_model(llm.ModelInput.Text, llm.ModelType.Chat, endpoint, MODEL, MODEL, **kinds)
        await endpoint.serve_endpoint(answer, graceful_shutdown=False)

    importlib.import_module("uvloop").run(runtimes.dynamo_worker()(work)())


if __name__ == "__main__":
    main()
