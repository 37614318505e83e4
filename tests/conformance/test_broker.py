"""The small transport over a broker in which faults are planted, without any: what a wire without connections needs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from tests.conformance.planted.broker import Broker
from tests.long_form import in_the_long_form_alone

from anywire.testing.kit.answers import echo
from anywire.testing.kit.clients import ClientTests
from anywire.testing.kit.deaths import DeathTests
from anywire.testing.kit.fields import FieldTests
from anywire.testing.kit.forgeries import ForgeryTests
from anywire.testing.kit.identities import IdentityTests
from anywire.testing.kit.pauses import PauseTests
from anywire.testing.kit.pressure import PressureTests
from anywire.testing.kit.rogues import RogueTests
from anywire.testing.kit.versions import VersionTests
from anywire.testing.patience import expect
from anywire.testing.rig import Rig
from anywire.testing.transport_kit import TransportConformance
from anywire.transport_tools import dialling


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

    async def test_broker_that_comes_back_after_a_refused_attempt(
        self, rig: Rig, companions: Broker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refused = asyncio.Event()
        monkeypatch.setattr(dialling.log, "warning", lambda *args: refused.set())
        _, agent, _ = await rig.port("a", echo)
        _, sink, info = await rig.hub()
        await sink.event("joined", "a")
        await companions.stop()
        await agent.event("hub_lost", info.hub_id, info.incarnation)
        await expect(refused.wait(), "an attempt failed")
        await companions.restart()
        await sink.until(lambda: len(sink.named("joined")) == 2, "the agent joined again")


# What has nothing to do with the broker: other transports over the same tools have it.
in_the_long_form_alone(
    TestBroker,
    ClientTests,
    DeathTests,
    FieldTests,
    ForgeryTests,
    IdentityTests,
    PauseTests,
    PressureTests,
    RogueTests,
    VersionTests,
)
