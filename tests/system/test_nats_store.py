"""The store ``nats`` against the contract of stores, at the real nats-server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from tests.integration.nats_servers import NatsServer, needs_nats_server

from anywire_service_deliberation.store import Place, Store
from anywire_service_deliberation.testing.store_kit import StoreConformance
from anywire_service_nats.kv_settings import NatsStoreConfig
from anywire_service_nats.kv_store import NatsStore

JETSTREAM = 'jetstream {{ store_dir: "{}" }}'


@needs_nats_server
class TestNatsStore(StoreConformance):
    @pytest_asyncio.fixture(autouse=True)
    async def server(self, tmp_path: Path) -> AsyncIterator[None]:
        async with NatsServer(tmp_path, JETSTREAM.format(tmp_path / "jetstream")) as self._server:
            yield

    def make(self, where: Path, max_kept: int) -> Store:
        return NatsStore(NatsStoreConfig(servers=[self._server.url]), Place(where, max_kept))
