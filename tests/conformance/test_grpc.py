from collections.abc import Callable
from typing import Any

import pytest

from anywire.testing.transport_kit import TransportConformance


class TestGrpc(TransportConformance):
    transport = "grpc"

    @pytest.fixture
    def options(self, options_of: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        return options_of("grpc") | {"token": "of this test run"}
