"""The transport over the real nats-server, as the conformance kit is given it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.nats_servers import NatsServer

from anywire.testing.transport_kit import TransportConformance


class NatsConformance(TransportConformance):
    transport = "nats"

    @pytest_asyncio.fixture
    async def companions(self, tmp_path: Path) -> AsyncIterator[NatsServer]:  # type: ignore[override]
        async with NatsServer(tmp_path) as server:
            yield server

    @pytest.fixture
    def options(self, companions: NatsServer) -> dict[str, Any]:
        return {"servers": companions.url}

    @pytest.fixture
    def break_wire(self, companions: NatsServer) -> Callable[[], Awaitable[None]]:
        return companions.cut
