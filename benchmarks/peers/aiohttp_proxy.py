"""The least that a proxy written with aiohttp does: the request's bytes to the next engine, the answer's bytes back.

python -m peers.aiohttp_proxy PORT ENGINE ...

It reads nothing, chooses by turns, and keeps its connections: what more a router in Python costs, it does for it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from itertools import cycle

import aiohttp
import uvloop
from aiohttp import web

from peers.workload import PATH

PASSED_ON = ("Content-Type", "Authorization")


def application(engines: Sequence[str]) -> web.Application:
    """A proxy before these engines."""
    turns = cycle([f"{engine}{PATH}" for engine in engines])

    async def passed_on(request: web.Request) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        async with session.post(next(turns), data=await request.read(), headers=headers) as answer:
            kept = {"Content-Type": answer.headers.get("Content-Type", "application/json")}
            if answer.content_length is not None:
                return web.Response(body=await answer.read(), status=answer.status, headers=kept)
            stream = web.StreamResponse(status=answer.status, headers=kept)
            await stream.prepare(request)
            async for part in answer.content.iter_any():
                await stream.write(part)
            await stream.write_eof()
            return stream

    made = web.Application()
    made.router.add_post(PATH, passed_on)
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    made.on_cleanup.append(lambda _: session.close())
    return made


async def serve(port: int, engines: Sequence[str]) -> None:
    """Pass on until the process is asked to end."""
    stopped = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stopped.set)
    runner = web.AppRunner(application(engines), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await stopped.wait()
    await runner.cleanup()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop_runner:
        loop_runner.run(serve(int(sys.argv[1]), sys.argv[2:]))
