"""Servers that a load generator asks in tests, and a workload run against one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from aiohttp import web

from anywire_experiment.load.generator import Generator
from anywire_experiment.load.openai_http import HttpTarget
from anywire_experiment.load.rows import Rows
from anywire_experiment.plan.workload import Workload
from anywire_experiment.record.samples import LOADED

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
HEADERS = {
    "x-anywire-transport": "dds",
    "x-anywire-agent": "a1",
    "x-anywire-task": "t1",
    "x-anywire-attempts": "2",
}


async def whole(request: web.Request) -> web.StreamResponse:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello you"}, "finish_reason": "stop"}
    return web.json_response({"choices": [choice], "usage": USAGE}, headers=HEADERS)


async def events(request: web.Request, *said: str) -> web.StreamResponse:
    response = web.StreamResponse(headers=HEADERS | {"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for each in said:
        await response.write(f"data: {each}\n\n".encode())
    return response


def piece(text: str) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]})


async def streamed(request: web.Request) -> web.StreamResponse:
    usage = json.dumps({"choices": [], "usage": USAGE})
    return await events(request, piece("hel"), piece("lo"), usage, "[DONE]")


@asynccontextmanager
async def gateway(handler: Handler) -> AsyncIterator[str]:
    async def models(request: web.Request) -> web.StreamResponse:
        return web.json_response({"data": [{"id": "m"}]})

    app = web.Application()
    app.add_routes([web.get("/v1/models", models), web.post("/v1/chat/completions", handler)])
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def measured(tmp_path: Path, handler: Handler, workload: dict[str, Any], warm_up: int = 0) -> pa.Table:
    """The rows of one workload against ``handler``, read back from the file; the transport dds is asserted."""
    rows = Rows()
    given = {"warm_up": {"requests": warm_up, "limit": warm_up}} | workload
    async with gateway(handler) as url:
        target = HttpTarget(url)
        try:
            made = Workload.model_validate(given)
            generator = Generator("w", made, target, rows, seed=5, transports=frozenset({"dds"}))
            await generator.warm_up()
            await generator.measure(lambda at_ns: None)
        finally:
            await target.close()
    path = tmp_path / "rows.parquet"
    rows.write(path)
    table = pq.read_table(path)
    assert table.schema.equals(LOADED)
    return table
