import socket
from pathlib import Path
from typing import Any

import pytest
import zmq

from anywire.testing.transport_kit import TransportConformance


class TestZeromq(TransportConformance):
    transport = "zeromq"

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        held = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
        addresses = [f"tcp://127.0.0.1:{each.getsockname()[1]}" for each in held]
        for each in held:
            each.close()
        # Three may listen at a time: a hub each on the agent plane, orchestrators on the client plane.
        return {"agent_addresses": addresses[:3], "client_addresses": addresses[3:]}


class TestZeromqSecuredOverUnixSockets(TransportConformance):
    transport = "zeromq"

    @pytest.fixture
    def options(self, tmp_path: Path) -> dict[str, Any]:
        addresses = [f"ipc://{tmp_path}/{number}" for number in range(5)]
        public, secret = (key.decode() for key in zmq.curve_keypair())
        return {
            "agent_addresses": addresses[:3],
            "client_addresses": addresses[3:],
            "secret_key": secret,
            "server_key": public,
            "allowed_keys": [public],
        }
