import socket
from typing import Any

import pytest

from anywire.testing.transport_kit import TransportConformance


def free_addresses(count: int) -> list[str]:
    """Addresses nobody listens on now, all different."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"tcp://127.0.0.1:{each.getsockname()[1]}" for each in held]
    for each in held:
        each.close()
    return addresses


class TestZeromq(TransportConformance):
    transport = "zeromq"

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        # Three may listen at a time: a hub each on the agent plane, orchestrators on the client plane.
        addresses = free_addresses(5)
        return {"agent_addresses": addresses[:3], "client_addresses": addresses[3:]}
