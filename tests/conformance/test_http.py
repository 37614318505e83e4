from collections.abc import Callable
from typing import Any

import pytest

from anywire.testing.transport_kit import TransportConformance


class TestHttp(TransportConformance):
    transport = "http"

    @pytest.fixture
    def options(self, options_of: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        return options_of("http") | {"token": "of this test run"}
