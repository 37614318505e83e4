"""What running servers say of their models."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container, Mapping

from anywire.errors import EngineFailed
from anywire_engine_models.host.server import Server
from anywire_engine_models.hosted_models import KnownModel
from anywire_engine_models.llama_cpp.offer import read_offer
from anywire_engine_models.offers import Learned
from anywire_engine_openai.upstream import Upstream

log = logging.getLogger(__name__)


class Learning:
    """``told`` is called whenever a server has said something. Close it."""

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told
        self._learned: dict[str, tuple[KnownModel, Learned]] = {}
        self._asking: set[asyncio.Task[None]] = set()

    def ask(self, known: KnownModel, server: Server, upstream: Upstream) -> None:
        """Ask llama.cpp in the background what its model can."""
        asking = asyncio.create_task(self._ask(known, server, upstream), name=f"ask {known.hosted.name}")
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)

    def of(self, models: Mapping[str, KnownModel]) -> dict[str, Learned]:
        """What counts of these models: those with other weights, or that are started otherwise, can be others."""
        return {
            name: learned
            for name, (before, learned) in self._learned.items()
            if (known := models.get(name)) is not None
            and (known.digest, known.hosted.launch) == (before.digest, before.hosted.launch)
        }

    def keep(self, names: Container[str]) -> None:
        """Forget all others."""
        self._learned = {name: each for name, each in self._learned.items() if name in names}

    async def close(self) -> None:
        for asking in list(self._asking):
            asking.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    async def _ask(self, known: KnownModel, server: Server, upstream: Upstream) -> None:
        name = known.hosted.name
        try:
            props = await upstream.get(f"{server.address}/props")
        except EngineFailed as error:
            log.debug("%s does not tell what it can: %s", name, error)
            return
        found = read_offer(name, props, slots=known.hosted.slots, context=known.context, digest=known.digest)
        self._learned[name] = known, Learned(found.features, found.context)
        self._told()
