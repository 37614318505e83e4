"""The transport over the real nats-server: what is quick of it. `tests/system/test_nats_conformance` has the whole kit,
and what has nothing to do with the wire `test_packets` and others have too."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.nats_servers import NatsServer, needs_nats_server
from tests.long_form import in_the_long_form_alone

from anywire.testing.kit.clients import ClientTests
from anywire.testing.kit.commands import CommandTests
from anywire.testing.kit.deaths import DeathTests
from anywire.testing.kit.fields import FieldTests
from anywire.testing.kit.forgeries import ForgeryTests
from anywire.testing.kit.identities import IdentityTests
from anywire.testing.kit.pauses import PauseTests
from anywire.testing.kit.pressure import PressureTests
from anywire.testing.kit.progress import ProgressTests
from anywire.testing.kit.rogues import RogueTests
from anywire.testing.kit.streams import StreamTests
from anywire.testing.kit.versions import VersionTests
from anywire.testing.transport_kit import TransportConformance


@needs_nats_server
class TestNats(TransportConformance):
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


in_the_long_form_alone(
    TestNats,
    ClientTests,
    CommandTests,
    DeathTests,
    FieldTests,
    ForgeryTests,
    IdentityTests,
    PauseTests,
    PressureTests,
    ProgressTests,
    RogueTests,
    StreamTests,
    VersionTests,
)
