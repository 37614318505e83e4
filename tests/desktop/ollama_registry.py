"""A registry like Ollama's on loopback, whose misbehaviour a test sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

MODEL_LAYER = "application/vnd.ollama.image.model"
Blob = Callable[[web.Request, bytes], Any]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class OllamaRegistry:
    """``asked`` are the requests it got: path and ``Range``. ``answers`` are given to the next requests for a file in
    the place of the right one, in order: ``(request, data) → response``."""

    def __init__(self) -> None:
        self.url = ""
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.answers: list[Blob] = []

    def add(self, name: str, weights: bytes, version: str = "latest", **changes: Any) -> Mapping[str, Any]:
        """Have a model; ``changes`` are to its manifest."""
        config = b"{}"
        self.blobs |= {digest_of(weights): weights, digest_of(config): config}
        layer = {"mediaType": MODEL_LAYER, "digest": digest_of(weights), "size": len(weights)}
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"mediaType": "application/json", "digest": digest_of(config), "size": len(config)},
            "layers": [layer],
            **changes,
        }
        self.manifests[f"library/{name}/{version}"] = json.dumps(manifest).encode()
        return manifest

    @property
    def ranges(self) -> list[str]:
        """What of files was asked for."""
        return [told for path, told in self.asked if "/blobs/" in path]

    async def _manifest(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, ""))
        info = request.match_info
        found = self.manifests.get(f"{info['library']}/{info['name']}/{info['version']}")
        if found is None:
            raise web.HTTPNotFound
        return web.Response(body=found, content_type="application/vnd.docker.distribution.manifest.v2+json")

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        told = request.headers.get("Range", "")
        self.asked.append((request.path, told))
        data = self.blobs.get(request.match_info["digest"])
        if data is None:
            raise web.HTTPNotFound
        if self.answers and data != b"{}":
            answered: web.StreamResponse = await self.answers.pop(0)(request, data)
            return answered
        return await whole(request, data)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[OllamaRegistry]:
        app = web.Application()
        app.router.add_get("/v2/{library}/{name}/manifests/{version}", self._manifest)
        app.router.add_get("/v2/{library}/{name}/blobs/{digest}", self._blob)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


def _begin(request: web.Request) -> int:
    told = request.headers.get("Range", "bytes=0-")
    return int(told.removeprefix("bytes=").partition("-")[0])


async def whole(request: web.Request, data: bytes) -> web.StreamResponse:
    """The rest that was asked for."""
    begin = _begin(request)
    if "Range" not in request.headers:
        return web.Response(body=data)
    if begin >= len(data):
        return web.Response(status=416)
    told = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"}
    return web.Response(status=206, body=data[begin:], headers=told)


def breaks_off(after: int) -> Blob:
    """So many bytes of what was asked for, then the connection ends."""

    async def answer(request: web.Request, data: bytes) -> web.StreamResponse:
        begin = _begin(request)
        headers = {"Content-Length": str(len(data) - begin)}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        response = web.StreamResponse(status=206 if begin else 200, headers=headers)
        await response.prepare(request)
        await response.write(data[begin : begin + after])
        assert request.transport is not None
        request.transport.close()
        return response

    return answer


def says(status: int, body: bytes = b"", **headers: str) -> Blob:
    async def answer(request: web.Request, data: bytes) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return answer


async def without_ranges(request: web.Request, data: bytes) -> web.StreamResponse:
    return web.Response(body=data)
