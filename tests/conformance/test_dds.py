from typing import Any

import pytest

from anywire.testing.transport_kit import TransportConformance


class TestDds(TransportConformance):
    transport = "dds"

    @pytest.fixture
    def options(self, dds_domain: int) -> dict[str, Any]:
        return {"domain": dds_domain}
