"""The contract of a transport holds over DDS with every optional QoS switched on at once."""

from collections.abc import Callable
from typing import Any

import pytest

from anywire.testing.transport_kit import TransportConformance


class TestDdsWithEveryOption(TransportConformance):
    transport = "dds"

    @pytest.fixture
    def options(self, options_of: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        # The periods are longer than any of these tests: nothing here stalls or expires.
        switched_on = {"deadline": 120.0, "lifespan": 120.0, "priorities": [1, 10], "latency_budget": 0.001}
        return options_of("dds") | switched_on
