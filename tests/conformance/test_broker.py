"""The small transport over a broker in which faults are planted, without any: what a wire without connections needs."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from tests.conformance.planted.broker import Broker

from anywire.testing.transport_kit import TransportConformance


class TestBroker(TransportConformance):
    transport = "broker"
    plugins = ("tests.conformance.planted.plugin",)

    @pytest_asyncio.fixture
    async def companions(self) -> AsyncIterator[Broker]:  # type: ignore[override]
        async with Broker() as broker:
            yield broker

    @pytest.fixture
    def options(self, companions: Broker) -> dict[str, Any]:
        return {"port": companions.port}

    @pytest.fixture
    def break_wire(self, companions: Broker) -> Callable[[], Awaitable[None]]:
        return companions.cut
