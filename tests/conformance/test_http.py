import socket
from typing import Any

import pytest

from anywire.testing.transport_kit import TransportConformance


class TestHttp(TransportConformance):
    transport = "http"

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        held = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
        addresses = [f"http://127.0.0.1:{each.getsockname()[1]}" for each in held]
        for each in held:
            each.close()
        # Three may listen at a time: a hub each on the agent plane, orchestrators on the client plane.
        return {"agent_addresses": addresses[:3], "client_addresses": addresses[3:], "token": "of this test run"}
