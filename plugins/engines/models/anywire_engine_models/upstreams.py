"""The connections to the servers of models: one `Upstream` for each server's life."""

from __future__ import annotations

import asyncio

from anywire_engine_models.host.server import Server
from anywire_engine_models.hosted_models import KnownModel
from anywire_engine_openai.upstream import Upstream


class Upstreams:
    """Keeps the newest server of each model. All of it is used on the event loop."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Server, Upstream]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def of(self, known: KnownModel, server: Server) -> tuple[Upstream, bool]:
        """What speaks with ``server``, and whether it is new: nobody has spoken with this server before."""
        name = known.hosted.name
        before = self._open.get(name)
        if before is not None and before[0] is server:
            return before[1], False
        self.forget(name)
        settings = known.settings
        is_llama = settings.command is None
        upstream = Upstream(
            api_key=server.key,
            default_max_tokens=settings.default_max_tokens,
            always_stream=is_llama,
            keep_members=not is_llama,
            is_llama_cpp=is_llama,
        )
        upstream.open(f"{server.address}/v1")
        self._open[name] = server, upstream
        return upstream, True

    def forget(self, name: str) -> None:
        """Close what speaks with that model's server, which has ended."""
        found = self._open.pop(name, None)
        if found is not None:
            closing = asyncio.create_task(found[1].close(), name=f"close {name}")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        for name in list(self._open):
            self.forget(name)
        if self._closing:
            await asyncio.wait(self._closing)
