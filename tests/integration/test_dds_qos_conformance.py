"""The contract of a transport holds over DDS with every optional QoS and busy polling switched on at once."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.long_form import in_the_long_form_alone

from anywire.testing.kit.clients import ClientTests
from anywire.testing.kit.deaths import DeathTests
from anywire.testing.kit.ends import EndTests
from anywire.testing.kit.forgeries import ForgeryTests
from anywire.testing.kit.identities import IdentityTests
from anywire.testing.kit.pauses import PauseTests
from anywire.testing.kit.rogues import RogueTests
from anywire.testing.kit.versions import VersionTests
from anywire.testing.transport_kit import TransportConformance


class TestDdsWithEveryOption(TransportConformance):
    transport = "dds"

    @pytest.fixture
    def options(self, options_of: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        # The periods are longer than any of these tests: nothing here stalls or expires.
        switched_on = {"deadline": 120.0, "lifespan": 120.0, "priorities": [1, 10], "latency_budget": 0.001}
        switched_on["busy_poll"] = 200
        return options_of("dds") | switched_on


# The options change how messages are written and when they count as late, and not who is on a link.
in_the_long_form_alone(
    TestDdsWithEveryOption,
    ClientTests,
    DeathTests,
    EndTests,
    ForgeryTests,
    IdentityTests,
    PauseTests,
    RogueTests,
    VersionTests,
)
