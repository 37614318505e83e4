"""A server beside an engine that answers rerank, tokens, sound and images as llama.cpp, vLLM or OpenAI do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Requests = list[tuple[str, Any]]


class WholeServer:
    """``answers`` are given by path; ``asked`` has each request's path and its JSON, or its form."""

    def __init__(self, owner: str = "", model: str = "m") -> None:
        self.answers: dict[str, web.Response] = {}
        self.asked: Requests = []
        self.models = {"data": [{"id": model, "owned_by": owner}]}
        self.url = ""

    def says(self, path: str, content: Any, status: int = 200) -> None:
        self.answers[path] = web.json_response(content, status=status)

    async def handle(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response(self.models)
        if request.content_type == "multipart/form-data":
            form = await request.post()
            content: Any = {}
            for name, value in form.items():
                if isinstance(value, web.FileField):
                    content[name] = (value.filename, value.content_type, value.file.read())
                else:
                    content.setdefault(name, []).append(value)
        else:
            content = await request.json()
        self.asked.append((request.path, content))
        found = self.answers[request.path]
        return web.Response(body=found.body, status=found.status, content_type=found.content_type)


@asynccontextmanager
async def whole_server(owner: str = "", model: str = "m") -> AsyncIterator[WholeServer]:
    server = WholeServer(owner, model)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield server
    finally:
        await runner.cleanup()
