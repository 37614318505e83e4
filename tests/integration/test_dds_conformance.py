"""The conformance kit over DDS."""

import random
from typing import Any

import pytest

from anywire.testing.transport_kit import TransportConformance


class TestDds(TransportConformance):
    transport = "dds"

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"domain": random.randint(10, 200)}
